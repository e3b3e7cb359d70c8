import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.presets.language import PAPER
from infra.training.language_job import model_config
from models.language_model import (
    LanguageModelConfig,
    decode,
    head_loss,
    hidden_states,
    init_params,
    loss,
    nucleus,
    parameter_shapes,
)
from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig, TokenRecords, training_batches
from tasks.mixture import uniform_weights
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
from tasks.registry import TASKS
from tasks.windows import WindowConfig
from tests.token_records import ByteText, random_params, record, vocabulary

VOCABULARY = vocabulary()
CONFIG = LanguageModelConfig(
    VOCABULARY.sizes[0][0],
    VOCABULARY.sizes[1][0],
    tuple(n for levels in VOCABULARY.sizes[2:] for n in levels),
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=8,
    hidden=48,
    image_width=16,
)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def batch():
    loader = LoaderConfig(length=1024, rows=1, block=32, bins=4, window=WindowConfig(3, 3))
    records = TokenRecords([record(i, frames=37) for i in range(4)], range(4))
    maker = ExampleMaker(TASKS, uniform_weights(TASKS), loader, VOCABULARY, ByteText())
    stream = iter(training_batches(records, maker, HeadLayout.of(VOCABULARY, CONFIG), seed=2))
    # The batch with most classes in it.
    return max((next(stream) for _ in range(6)), key=lambda b: np.count_nonzero(np.diff(b["head_ends"], prepend=0)))


def all_rows(params: dict) -> jax.Array:
    """The embedding as one table (V, D), narrow image rows brought to the model's width."""
    tables = dict(params["embedding"])
    if "image" in params["projection"]:
        tables["image"] = tables["image"] @ params["projection"]["image"]
    return jnp.concatenate([tables["text"], tables["image"], tables["levels"]])


def reference_targets(batch) -> dict[str, np.ndarray]:
    """Positions that predict, the ids that they predict, and which of all ids are in the range of each."""
    starts = np.array([r.start for r in VOCABULARY.ranges])
    ends = starts + np.array([r.size for r in VOCABULARY.ranges])
    positions = batch["head_positions"][batch["head_weights"] > 0]
    ids = batch["tokens"].reshape(-1)[positions + 1]
    which = np.searchsorted(starts, ids, side="right") - 1
    index = np.arange(VOCABULARY.total)[None]
    return {
        "positions": positions,
        "ids": ids,
        "mask": (index >= starts[which][:, None]) & (index < ends[which][:, None]),
    }


def masked_full_softmax_loss(params, x, targets):
    """The reference: logits over the whole vocabulary, everything outside the target's range at -inf."""
    logits = x[0, targets["positions"]] @ all_rows(params).T
    masked = jnp.where(targets["mask"], logits, -jnp.inf)
    return -jnp.take_along_axis(jax.nn.log_softmax(masked, -1), targets["ids"][:, None], -1).mean()


@pytest.mark.parametrize("image_width", [16, 32])
def test_the_head_equals_the_masked_full_softmax_gradient_included(batch, image_width):
    config = dataclasses.replace(CONFIG, image_width=image_width)
    params = random_params(config, 1)
    x = np.random.default_rng(0).normal(size=(1, batch["tokens"].size, config.width)).astype(np.float32)
    classes_in_use = np.count_nonzero(np.diff(batch["head_ends"], prepend=0))
    assert classes_in_use >= 2
    ours = jax.jit(jax.value_and_grad(lambda p, x, b: head_loss(config, p, x, b)[0], (0, 1)))(params, x, batch)
    reference = jax.jit(jax.value_and_grad(masked_full_softmax_loss, (0, 1)))(params, x, reference_targets(batch))
    assert float(ours[0]) == pytest.approx(float(reference[0]), abs=1e-5)
    assert jax.tree.structure(ours[1]) == jax.tree.structure(reference[1])
    for left, right in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(reference[1]), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_ranges_without_targets_get_no_output_gradient(batch):
    params = random_params(CONFIG, 1)
    x = np.random.default_rng(0).normal(size=(1, batch["tokens"].size, CONFIG.width)).astype(np.float32)
    grad = jax.jit(jax.grad(lambda p, x, b: head_loss(CONFIG, p, x, b)[0]))(params, x, batch)["embedding"]
    rows = np.concatenate([np.abs(grad[name]).sum(1) for name in CONFIG.tables])
    targets = batch["tokens"].reshape(-1)[batch["head_positions"][batch["head_weights"] > 0] + 1]
    hit = [bool(np.any((targets >= r.start) & (targets < r.start + r.size))) for r in VOCABULARY.ranges]
    assert [bool(np.any(rows[r.start : r.start + r.size])) for r in VOCABULARY.ranges] == hit
    assert 1 < sum(hit) < len(hit)


def test_packed_segments_do_not_see_each_other(params):
    one, two = np.array([5, 6, 7, 8]), np.array([9, 10, 11])
    run = jax.jit(functools.partial(hidden_states, CONFIG))
    ones = np.ones((1, 4), np.int32)
    alone = run(params, one[None], np.arange(4)[None], ones, np.array([[1, 1, 2, 3]]))
    packed = run(
        params,
        np.concatenate([one, two])[None],
        np.array([[0, 1, 2, 3, 0, 1, 2]]),
        np.array([[1, 1, 1, 1, 2, 2, 2]]),
        np.array([[1, 1, 2, 3, 5, 5, 6]]),
    )
    np.testing.assert_allclose(packed[:, :4], alone, atol=1e-5)


def test_the_prefix_is_read_both_ways_and_targets_only_backwards(params):
    run = jax.jit(functools.partial(hidden_states, CONFIG))
    tokens = np.array([[5, 6, 7, 8, 9]])
    rest = (np.arange(5)[None], np.ones((1, 5), np.int32), np.array([[2, 2, 2, 3, 4]]))
    base = run(params, tokens, *rest)
    prefix_end, last = tokens.copy(), tokens.copy()
    prefix_end[0, 2], last[0, 4] = 50, 50
    assert np.abs(run(params, prefix_end, *rest) - base)[0, 0].max() > 1e-4
    np.testing.assert_allclose(run(params, last, *rest)[:, :4], base[:, :4], atol=1e-6)


def greedy_by_full_forward(config, params, prefix, ranges):
    run = jax.jit(functools.partial(hidden_states, config))
    tokens = np.zeros(64, np.int64)
    tokens[: len(prefix)] = prefix
    table = np.asarray(all_rows(params))
    out = []
    for i, r in enumerate(ranges):
        n = len(prefix) + i
        bounds = np.maximum(np.arange(64), len(prefix) - 1)
        segments = (np.arange(64) < n).astype(np.int32)
        x = run(params, tokens[None], np.arange(64)[None], segments[None], bounds[None])[0, n - 1]
        out.append(int(np.argmax(table[r.start : r.start + r.size] @ np.asarray(x))))
        tokens[n] = r.start + out[-1]
    return out


def run_decode(params, prefix, ranges, *, stop=-1, seed=0, temperature=0.0, top_p=1.0, rows=1, count=None):
    heads = np.zeros((2, 64), np.int32)
    heads[:, : len(ranges)] = np.array([CONFIG.head_range(r.start, r.size) for r in ranges]).T
    padded = np.zeros((rows, 64), np.int32)
    padded[:, : len(prefix)] = prefix
    out, written = decode(
        CONFIG, params, padded, np.int32(len(prefix)), heads[0], heads[1], np.int32(count or len(ranges)),
        np.int32(stop), jax.random.key(seed), np.float32(temperature), np.float32(top_p),
    )  # fmt: skip
    return np.asarray(out), np.asarray(written)


def test_decoding_with_the_cache_equals_the_full_forward(params):
    text, image = VOCABULARY.stream_ranges("text")[0], VOCABULARY.stream_ranges("image")[0]
    ranges = [*VOCABULARY.stream_ranges("speech"), *VOCABULARY.stream_ranges("expression")[:3], text, image, image]
    ranges += [*VOCABULARY.stream_ranges("semantics")] * 3
    prefix = [11, 12, 13, VOCABULARY.ranges[1].start + 7, 14]
    out, written = run_decode(params, prefix, ranges)
    assert out[0, : len(ranges)].tolist() == greedy_by_full_forward(CONFIG, params, prefix, ranges)
    assert written.tolist() == [len(ranges)]


def test_sampled_tokens_stay_in_their_ranges_and_follow_the_seed(params):
    ranges = list(VOCABULARY.ranges)
    draws = [run_decode(params, [5, 6], ranges, seed=s, temperature=3.0)[0][0, : len(ranges)] for s in (0, 0, 1)]
    assert np.all(draws[0] < [r.size for r in ranges]) and np.all(draws[0] >= 0)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


def test_a_row_stops_at_the_stop_id(params):
    text = [VOCABULARY.stream_ranges("text")[0]] * 20
    free, _ = run_decode(params, [5, 6, 7], text)
    stop = int(free[0, 3])
    out, written = run_decode(params, [5, 6, 7], text, stop=stop)
    first = free[0].tolist().index(stop)
    assert written.tolist() == [first]
    np.testing.assert_array_equal(out[0, :first], free[0, :first])


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_with_that_much_mass(top_p):
    logits = jax.random.normal(jax.random.key(0), (4, 300)) * 2
    kept = np.isfinite(np.asarray(nucleus(logits, top_p)))
    p = np.asarray(jax.nn.softmax(logits, -1), np.float64)
    for row in range(4):
        order = np.argsort(-p[row])
        needed = int(np.searchsorted(np.cumsum(p[row][order]), min(top_p, 1 - 1e-6))) + 1
        if top_p == 1.0:
            assert kept[row].sum() >= needed - 1
        else:
            assert set(np.flatnonzero(kept[row])) == set(order[:needed])


def test_the_papers_size_has_a_body_of_one_billion_and_the_papers_vocabulary():
    config = model_config(PAPER, Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1))
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    count = {group: sum(np.prod(a.shape) for a in jax.tree.leaves(tree)) for group, tree in shapes.items()}
    assert count["embedding"] == 546_944 * 2048
    assert count["layers"] == 18 * (2 * 2048 * 2048 + 2 * 2048 * 128 + 3 * 2048 * 8192 + 2 * 2048)
    assert 1.0e9 < count["layers"] < 1.1e9
    assert shapes["projection"] == {}


def test_the_paper_step_traces_at_8192_tokens():
    config = model_config(PAPER, Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1))
    S, P = PAPER.length, PAPER.block
    R = S // P + len(config.levels) + 2
    ints = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)  # noqa: E731
    batch = {
        **{name: ints(1, S) for name in ("tokens", "positions", "segments", "bounds")},
        "head_positions": ints(R, P),
        "head_targets": ints(R, P),
        "head_weights": jax.ShapeDtypeStruct((R, P), jnp.float32),
        "head_starts": ints(R),
        "head_ends": ints(len(config.classes)),
    }
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    value, grads = jax.eval_shape(jax.value_and_grad(lambda p, b: loss(config, p, b)[0]), shapes, batch)
    assert value.shape == () and jax.tree.map(lambda a: a.shape, grads) == jax.tree.map(lambda a: a.shape, shapes)


def test_initialisation_is_scaled_and_norms_start_at_one():
    params = jax.jit(functools.partial(init_params, CONFIG))(jax.random.key(0))
    assert np.std(params["embedding"]["levels"]) == pytest.approx(CONFIG.width**-0.5 / 4, rel=0.05)
    assert not np.any(params["final"]["norm"]) and not np.any(params["layers"]["mlp_norm"])


def test_every_declared_array_names_its_axes():
    for arrays in parameter_shapes(CONFIG).values():
        for shape, axes, _ in arrays.values():
            assert len(shape) == len(axes)
