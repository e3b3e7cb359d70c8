"""Norms work within a time step."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.layers.norms import FrameGroupNorm, group_normalise


def test_each_frame_and_group_is_normalised_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5, 6)) * np.array([1, 10, 100])[None, :, None, None, None] + 7
    y = np.asarray(group_normalise(jnp.asarray(x, jnp.float32), 2)).reshape(2, 3, 20, 2, 3)
    np.testing.assert_allclose(y.mean((2, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((2, 4)), 1, atol=1e-2)


def test_a_later_frame_changes_nothing_before_it():
    norm = FrameGroupNorm(6, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 3, 6)).astype(np.float32)
    changed = x.copy()
    changed[:, 3] *= 5
    np.testing.assert_array_equal(norm(jnp.asarray(x))[:, :3], norm(jnp.asarray(changed))[:, :3])
