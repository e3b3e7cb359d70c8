import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.language_model import LanguageModelConfig, loss
from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig, TokenRecords, heldout_batches
from tasks.perplexity import Hardness, hardness
from tasks.registry import task_named
from tasks.windows import WindowConfig
from tests.token_records import ByteText, random_params, record, vocabulary

VOCABULARY = vocabulary()
CONFIG = LanguageModelConfig(
    VOCABULARY.sizes[0][0],
    VOCABULARY.sizes[1][0],
    tuple(n for levels in VOCABULARY.sizes[2:] for n in levels),
    width=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_width=8,
    hidden=16,
    image_width=8,
)
NAMES = ("image-to-shape", "description-to-script-speech-expression", "past-pose-to-pose", "video-to-script")
TASKS = tuple(task_named(name) for name in NAMES)
RECORDS = TokenRecords([record(i, frames=37) for i in range(3)], range(3))
LAYOUT = HeadLayout.of(VOCABULARY, CONFIG)


def batches(tasks, rows=1):
    config = LoaderConfig(length=768, rows=rows, block=16, bins=2, window=WindowConfig(3, 3))
    maker = ExampleMaker(tasks, np.ones(len(tasks)), config, VOCABULARY, ByteText())
    return heldout_batches(RECORDS, maker, LAYOUT, limit=None)


def test_each_task_is_measured_over_the_tokens_of_all_its_steps():
    params = jax.tree.map(jnp.asarray, random_params(CONFIG))
    found = hardness(CONFIG, params, batches(TASKS), TASKS)
    assert list(found) == list(NAMES)
    assert found["image-to-shape"].tokens == 3 * 8
    assert found["past-pose-to-pose"].tokens == 3 * 6 * 3
    # A whole clip's video is longer than a row: no data.
    assert found["video-to-script"] == Hardness(0, 0) and found["video-to-script"].perplexity is None
    chain = found["description-to-script-speech-expression"]
    assert chain.tokens > 3 * (40 + 24)
    # Batches of one task alone: the mean loss of each, by its tokens.
    mean = jax.jit(lambda batch: loss(CONFIG, params, batch)[0])
    total = sum(float(mean(batch)) * batch["head_weights"].sum() for batch in batches(TASKS[:1]))
    assert found["image-to-shape"].nll == pytest.approx(total, rel=1e-4)


def test_a_model_that_knows_nothing_is_as_lost_as_there_are_codes():
    """Zero embeddings make every id of a range equally likely: the softmax is over the range alone."""
    params = random_params(CONFIG)
    params["embedding"] = {name: np.zeros_like(table) for name, table in params["embedding"].items()}
    found = hardness(CONFIG, params, batches(TASKS), TASKS)
    assert found["image-to-shape"].perplexity == pytest.approx(64, rel=1e-4)
    assert found["past-pose-to-pose"].perplexity == pytest.approx(64, rel=1e-4)


def test_perplexity_stays_a_finite_number_of_at_least_one():
    assert Hardness(-1e-6, 10).perplexity == 1
    assert Hardness(10 * math.log(5), 10).perplexity == pytest.approx(5)
    assert math.isfinite(Hardness(1e9, 10).perplexity)
    assert Hardness(0.0, 0).perplexity is None
