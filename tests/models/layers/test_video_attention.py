import jax
import jax.numpy as jnp
import numpy as np

from models.layers.module import abstract
from models.layers.video_attention import BlockPair, attend, from_windows, to_windows
from tests.random_params import random_params


def test_windows_tile_the_video_and_come_back():
    x = jnp.arange(2 * 4 * 6 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 6, 3)
    for side, steps in ((3, 1), (2, 4), (6, 2)):
        windows = to_windows(x, side, steps)
        assert windows.shape == (2, x[0, ..., 0].size // (side * side * steps), side * side * steps, 3)
        np.testing.assert_array_equal(from_windows(windows, x.shape, side, steps), x)
    # The first window of side 3 and one step is the upper left corner of the first step.
    np.testing.assert_array_equal(to_windows(x, 3, 1)[0, 0].reshape(3, 3, 3), x[0, 0, :3, :3])


def test_attention_is_a_softmax_over_the_keys_that_exist():
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (1, 1, 2, 1, 4))
    k, v = (jax.random.normal(key, (1, 1, 3, 1, 4)) for key in keys[1:])
    mask = jnp.array([[True, True, False]])
    scores = np.einsum("nd,md->nm", q[0, 0, :, 0], k[0, 0, :2, 0]) / 2
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(attend(q, k, v, mask)[0, 0, :, 0], weights @ v[0, 0, :2, 0], rtol=1e-5)


@jax.jit
def pair_output(x, condition, mask):
    def build(rngs):
        return BlockPair(16, 2, mlp_ratio=2, rank=2, condition_width=16, rngs=rngs)

    from flax import nnx

    graph, shapes = abstract(build)
    pair = nnx.merge(graph, random_params(shapes))
    vector = jnp.ones((1, 16))
    modulation = 0.5 * jnp.ones((1, 96))
    spatial = pair.spatial(x, vector, modulation, side=2, steps=1, condition=condition, condition_mask=mask)
    return spatial, pair.spatiotemporal(x, vector, modulation, side=2, steps=3)


def test_who_sees_whom():
    x = jax.random.normal(jax.random.key(1), (1, 3, 4, 4, 16))
    condition, mask = jax.random.normal(jax.random.key(2), (1, 5, 16)), jnp.array([[True] * 4 + [False]])
    spatial, temporal = pair_output(x, condition, mask)
    other, other_temporal = pair_output(x.at[0, 2, 0, 0].add(jnp.arange(16) / 8), condition, mask)
    moved = jnp.abs(other - spatial).max(-1)[0] > 1e-5
    assert moved[2, :2, :2].all() and not moved[:2].any() and not moved[2, 2:].any()
    moved = jnp.abs(other_temporal - temporal).max(-1)[0] > 1e-5
    assert moved[:, :2, :2].all() and not moved[:, 2:].any() and not moved[:, :, 2:].any()
    # A token of the condition reaches every place; one that does not exist reaches none.
    assert jnp.abs(pair_output(x, condition.at[0, 0].add(jnp.arange(16) / 8), mask)[0] - spatial).max(-1).min() > 1e-6
    np.testing.assert_array_equal(pair_output(x, condition.at[0, 4].add(1.0), mask)[0], spatial)
