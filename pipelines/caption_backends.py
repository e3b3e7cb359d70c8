"""Captions by a service that is paid for: keyed clips in, an answer or an error each, and what it all cost."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.keyed import Keyed, Outcome


def by_gemini(items: Sequence[Keyed], settings: Any, backend: str) -> Iterable[tuple[str, Outcome]]:
    """Describes clips; settings: ``gemini``, ``gemini_service`` and ``dataset`` of AnnotateConfig.

    A clip that got no description still says in its row what was spent on it.
    """
    from pipelines.stages.caption_cache import CaptionCache
    from pipelines.stages.gemini import CaptionError, caption_clips, caption_fields, clip_media
    from pipelines.stages.spending import load_price, spent

    config, service = settings.gemini, settings.gemini_service
    price = load_price(service.prices, config.model)
    cache = CaptionCache(settings.dataset, config.made_with())
    clips = {item.key: clip_media(item.clip) for item in items}
    for key, caption in caption_clips(clips, config, service, cache).items():
        if isinstance(caption, CaptionError):
            caption.row = {"description": {"usage": json.dumps(spent(caption.usage, price))}}
            yield key, caption
        else:
            yield key, {"description": caption_fields(caption, price)}


def gemini_weights(settings: Any) -> str:
    """Which model is asked and at which price. InputError if none could be."""
    from pipelines.stages.spending import load_price

    config, service = settings.gemini, settings.gemini_service
    service.check(config.model)
    price = load_price(service.prices, config.model)
    return f"{config.model} as served, {price.input}/{price.output} {price.currency} per million tokens in/out"
