"""A small language model over the made-up token records, for tests."""

import numpy as np

from models.language_model import LanguageModelConfig
from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig, TokenRecords, training_batches
from tasks.mixture import uniform_weights
from tasks.registry import TASKS
from tasks.windows import WindowConfig
from tests.token_records import SMALL, ByteText, record, vocabulary

VOCABULARY = vocabulary()


def language_config(text: int | None = None, **changes) -> LanguageModelConfig:
    sizes = dict(width=32, layers=2, heads=4, kv_heads=2, head_width=8, hidden=48, image_width=16)
    return LanguageModelConfig(
        text or VOCABULARY.sizes[0][0],
        VOCABULARY.sizes[1][0],
        tuple(n for levels in VOCABULARY.sizes[2:] for n in levels),
        **sizes | changes,
    )


def language_batch(config: LanguageModelConfig, *, rows: int, length: int = 1024, look_at: int = 6) -> dict:
    """Of the first batches of a stream, the one in which most classes of ranges occur."""
    loader = LoaderConfig(length=length, rows=rows, block=32, bins=4, window=WindowConfig(3, 3), clock=config.clock)
    records = TokenRecords([record(i, frames=37) for i in range(4)], range(4))
    ids = vocabulary(SMALL | {"text": (config.text,)})
    maker = ExampleMaker(TASKS, uniform_weights(TASKS), loader, ids, ByteText())
    stream = iter(training_batches(records, maker, HeadLayout.of(ids, config), seed=2))
    return max((next(stream) for _ in range(look_at)), key=classes_in_use)


def classes_in_use(batch: dict) -> int:
    return int(np.count_nonzero(np.diff(batch["head_ends"], axis=1, prepend=0).sum(0)))


def all_rows(params: dict):
    """The embedding as one table (V, D), narrow image rows brought to the model's width."""
    import jax.numpy as jnp

    tables = dict(params["embedding"])
    if "projection" in params:
        tables["image"] = tables["image"] @ params["projection"]["image"]
    return jnp.concatenate([tables["text"], tables["image"], tables["levels"]])
