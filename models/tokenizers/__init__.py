"""Tokenizers: each modality's signal <-> integer codes. ``load_tokenizer`` reads a trained one."""

from pathlib import Path
from typing import Any

from models.errors import InputError

KINDS = ("text", "speech", "image", "semantic", "shape", "expression", "pose")


def load_tokenizer(directory: Path | str) -> Any:
    """Reads a trained tokenizer.

    Args:
        directory: holds model.json and model.npz.

    Returns:
        An object with ``kind``, ``codebook_sizes`` (one a level), ``weights_sha256``, ``encode`` and ``decode`` (numpy
        in, numpy out; see the class of its kind for shapes).

    Raises:
        InputError: the directory holds no whole tokenizer.
    """
    from models.io import load_model

    kind, config, params, meta = load_model(directory)
    if kind == "text":
        from models.tokenizers.text import TextTokenizer

        return TextTokenizer(config, params, meta)
    if kind == "speech":
        from models.tokenizers.speech import SpeechTokenizer

        return SpeechTokenizer(config, params, meta)
    if kind == "image":
        from models.tokenizers.image import ImageTokenizer

        return ImageTokenizer(config, params, meta)
    if kind == "semantic":
        from models.tokenizers.semantic import SemanticTokenizer

        return SemanticTokenizer(config, params, meta)
    if kind in ("shape", "expression", "pose"):
        from models.tokenizers.animation import AnimationTokenizer

        return AnimationTokenizer(kind, config, params, meta)
    raise InputError(f"{directory}/model.json: kind {kind!r} is not a tokenizer, expected one of {', '.join(KINDS)}")
