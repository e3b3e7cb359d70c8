import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from infra.presets.language import PAPER
from infra.training.language_job import model_config
from models.language_model import (
    LanguageModel,
    forget,
    hidden_states,
    init_params,
    loss,
    parameter_axes,
    parameter_shapes,
)
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
from tests.language import language_batch, language_config
from tests.token_records import random_params

CONFIG = language_config()


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


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


def test_the_papers_size_has_a_body_of_one_billion_and_the_papers_vocabulary():
    config = model_config(PAPER, Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1))
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    count = {group: sum(np.prod(a.shape) for a in jax.tree.leaves(tree)) for group, tree in shapes.items()}
    assert count["embedding"] == 546_944 * 2048
    assert count["layers"] == 18 * (2 * 2048 * 2048 + 2 * 2048 * 128 + 3 * 2048 * 8192 + 2 * 2048)
    assert 1.0e9 < count["layers"] < 1.1e9
    assert "projection" not in shapes


def test_the_paper_step_traces_at_8192_tokens():
    config = model_config(PAPER, Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1))
    S, P = PAPER.length, PAPER.block
    R = S // P + len(config.levels) + 2  # blocks of a row
    ints = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)  # noqa: E731
    batch = {
        **{name: ints(1, S) for name in ("tokens", "positions", "segments", "bounds")},
        "head_positions": ints(1, R, P),
        "head_targets": ints(1, R, P),
        "head_weights": jax.ShapeDtypeStruct((1, R, P), jnp.float32),
        "head_starts": ints(1, R),
        "head_ends": ints(1, len(config.classes)),
    }
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    value, grads = jax.eval_shape(jax.value_and_grad(lambda p, b: loss(config, p, b)[0]), shapes, batch)
    assert value.shape == () and jax.tree.map(lambda a: a.shape, grads) == jax.tree.map(lambda a: a.shape, shapes)


def test_initialisation_is_scaled_and_norms_start_at_one():
    params = jax.jit(functools.partial(init_params, CONFIG))(jax.random.key(0))
    one = CONFIG.width**-0.5 / 4
    assert np.std(params["embedding"]["text"]) == pytest.approx(one, rel=0.05)
    assert not np.any(params["final"]["norm"]) and not np.any(params["layers"]["mlp_norm"])


def test_ids_of_a_range_begin_with_half_of_their_vector_in_common():
    levels = np.asarray(init_params(CONFIG, jax.random.key(3))["embedding"]["levels"])
    ranges = np.split(levels, np.cumsum(CONFIG.levels)[:-1])
    means = np.stack([r.mean(0) for r in ranges])
    own = np.concatenate([r - r.mean(0) for r in ranges])
    one = CONFIG.width**-0.5 / 4
    assert np.std(own) == pytest.approx(one, rel=0.05) and np.std(means) == pytest.approx(one, rel=0.1)
    # Which range an id is of can be read off its vector.
    nearest = np.argmin(((levels[:, None] - means[None]) ** 2).sum(2), axis=1)
    assert np.mean(nearest == np.repeat(np.arange(len(ranges)), CONFIG.levels)) > 0.95


def test_a_model_with_a_clock_reads_it_and_takes_no_rows_without(params):
    config = language_config(clock=True)
    batch = language_batch(config, rows=1, length=512, look_at=1)
    assert batch["clock"].any()
    value = jax.jit(functools.partial(loss, config))
    right = float(value(params, batch)[0])
    assert abs(right - float(value(params, batch | {"clock": batch["clock"][:, ::-1]})[0])) > 1e-4
    # A clock that is the place in the row is none.
    plain = {name: array for name, array in batch.items() if name != "clock"}
    none = float(jax.jit(functools.partial(loss, CONFIG))(params, plain)[0])
    assert float(value(params, plain | {"clock": batch["positions"]})[0]) == pytest.approx(none, abs=1e-6)
    with pytest.raises(ValueError, match="clock=True in the model, False in the rows"):
        loss(config, params, plain)
    with pytest.raises(ValueError, match="clock=False in the model, True in the rows"):
        loss(CONFIG, params, batch)


def test_every_declared_array_names_its_axes():
    for arrays in parameter_shapes(CONFIG).values():
        for shape, axes, _ in arrays.values():
            assert len(shape) == len(axes)


def test_the_module_has_the_declared_arrays():
    for config in (CONFIG, language_config(image_width=32)):
        declared = {group: {n: a[0] for n, a in arrays.items()} for group, arrays in parameter_shapes(config).items()}
        found = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda c=config: LanguageModel(c)))[1])
        assert jax.tree.map(lambda a: a.shape, found) == declared
        shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
        assert jax.tree.map(lambda a: a.shape, shapes) == declared
        assert jax.tree.structure(parameter_axes(config), is_leaf=lambda a: isinstance(a, tuple)) == jax.tree.structure(
            shapes
        )


def test_dropout_forgets_in_training_alone(params):
    config = language_config(dropout=0.4)
    batch = language_batch(CONFIG, rows=1, length=512, look_at=1)
    value = jax.jit(functools.partial(loss, config))
    without = jax.jit(functools.partial(loss, CONFIG))(params, batch)[0]
    assert float(value(params, batch)[0]) == pytest.approx(float(without), abs=1e-6)
    noisy = [float(value(params, batch, key=jax.random.key(seed))[0]) for seed in (0, 0, 1)]
    assert noisy[0] == noisy[1] and len({*noisy, float(without)}) == 3
    numbers = forget(jnp.ones((200, 200)), 0.4, jax.random.key(0))
    assert set(np.unique(numbers).tolist()) == {0.0, np.float32(1 / 0.6)}
    assert float(numbers.mean()) == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="dropout=1: expected at least 0, below 1"):
        language_config(dropout=1.0)
