"""Folding is invertible and keeps the time grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.folding import fold_space, fold_time, unfold_space, unfold_time


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_time_grid_first_step_is_frame_zero(stride):
    x = jnp.arange(1.0, 10).reshape(1, 9, 1)
    y = fold_time(x, stride, grid=True)
    assert y.shape == (1, 8 // stride + 1, stride)
    np.testing.assert_array_equal(y[0, 0], [0] * (stride - 1) + [1])
    np.testing.assert_array_equal(y[0, 1], np.arange(2, 2 + stride))
    np.testing.assert_array_equal(unfold_time(y, stride, grid=True), x)


def test_time_without_grid_and_with_space():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4, 8, 3)))
    y = fold_time(x, 3, grid=False)
    assert y.shape == (2, 2, 4, 8, 9)
    np.testing.assert_array_equal(y[1, 1, 2, 5, 3:6], x[1, 4, 2, 5])
    np.testing.assert_array_equal(unfold_time(y, 3, grid=False), x)
    with pytest.raises(ValueError, match="multiple"):
        fold_time(x, 4, grid=False)


def test_space_blocks():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 8, 3)))
    y = fold_space(x, 2)
    assert y.shape == (2, 5, 2, 4, 12)
    np.testing.assert_array_equal(y[0, 0, 1, 2], x[0, 0, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(unfold_space(y, 2), x)
