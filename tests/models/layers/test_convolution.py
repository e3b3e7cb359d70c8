"""Convolutions equal their definitions, and no output looks ahead."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.layers.convolution import CausalConv1d, TimeDown, TimeUp, VideoConv


def random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_causal_convolution_is_its_sum():
    conv = CausalConv1d(3, 5, 4, dilation=2, rngs=nnx.Rngs(0))
    x, kernel = random(2, 11, 3), np.asarray(conv.kernel[...])
    y = np.asarray(conv(x))
    padded = np.pad(np.asarray(x), [(0, 0), (6, 0), (0, 0)])
    expected = sum(padded[:, 2 * tap : 2 * tap + 11] @ kernel[tap] for tap in range(4))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_video_convolution_equals_a_3d_convolution():
    conv = VideoConv(2, 4, rngs=nnx.Rngs(0))
    x = random(1, 5, 6, 7, 2)
    kernel = jnp.moveaxis(conv.kernel[...].reshape(3, 3, 3, 2, 4), 2, 0)  # space, space, time taps -> time first
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), [(2, 0), (1, 1), (1, 1)], dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    np.testing.assert_allclose(conv(x), expected, rtol=1e-4, atol=1e-5)


def last_input_seen(function, frames: int, make) -> list[int]:
    """For every output step the last input frame that changes it."""
    base = np.asarray(function(make()))
    last = [-1] * base.shape[1]
    for frame in range(frames):
        x = np.asarray(make()).copy()
        x[:, frame] += 1
        for step in np.flatnonzero(
            np.abs(np.asarray(function(jnp.asarray(x))) - base).max((0, *range(2, base.ndim))) > 1e-6
        ):
            last[step] = frame
    return last


def test_time_grid_of_strided_layers():
    rngs = nnx.Rngs(0)
    down = [TimeDown(2, 3, 2, grid=True, rngs=rngs), TimeDown(3, 3, 2, grid=True, rngs=rngs)]
    up = [TimeUp(3, 3, 2, grid=True, rngs=rngs), TimeUp(3, 2, 2, grid=True, rngs=rngs)]
    assert last_input_seen(lambda x: down[1](down[0](x)), 13, lambda: random(1, 13, 2)) == [0, 4, 8, 12]
    last = last_input_seen(lambda z: up[1](up[0](z)), 4, lambda: random(1, 4, 3))
    assert last == [0, *[1] * 4, *[2] * 4, *[3] * 4]


def test_time_down_without_grid_is_a_strided_convolution():
    layer = TimeDown(2, 3, 4, grid=False, rngs=nnx.Rngs(0))
    x = random(1, 12, 2)
    kernel = layer.mix.kernel[...].reshape(8, 2, 3)
    expected = jax.lax.conv_general_dilated(x, kernel, (4,), [(4, 0)], dimension_numbers=("NWC", "WIO", "NWC"))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
