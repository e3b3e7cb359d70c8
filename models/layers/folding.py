"""Folding time and space into channels and back: the exact, cheap form of strided and transposed convolutions.

A convolution whose kernel is a multiple of its stride is a dense layer on folded blocks, and a transposed one is a
dense layer followed by unfolding; both are matrix products on every backend, and so are their gradients.

Letters: B batch, T time, H W space, C channels, s stride.
"""

import jax
import jax.numpy as jnp


def fold_time(x: jax.Array, stride: int, grid: bool) -> jax.Array:
    """(B, T, ..., C) -> (B, steps, ..., s C): each step holds the frames that it is the first to see.

    Args:
        x: T is a multiple of s, or with ``grid`` a multiple of s plus one.
        stride: s.
        grid: the first step sees frame 0 alone (models/signals.py); the frames before it are zeros::

            frames   . . . 0 | 1 2 3 4 | 5 6 7 8
            step         0   |    1    |    2
    """
    if stride == 1:
        return x
    if grid:
        x = jnp.pad(x, [(0, 0), (stride - 1, 0)] + [(0, 0)] * (x.ndim - 2))
    b, t, *space, c = x.shape
    if t % stride:
        raise ValueError(f"{t} time steps are not a multiple of {stride}")
    x = x.reshape(b, t // stride, stride, *space, c)
    return jnp.moveaxis(x, 2, -2).reshape(b, t // stride, *space, stride * c)


def unfold_time(x: jax.Array, stride: int, grid: bool) -> jax.Array:
    """Inverse of ``fold_time``, (B, steps, ..., s C) -> (B, T, ..., C); ``grid`` drops the s - 1 leading frames."""
    if stride == 1:
        return x
    b, t, *space, c = x.shape
    x = jnp.moveaxis(x.reshape(b, t, *space, stride, c // stride), -2, 2)
    x = x.reshape(b, t * stride, *space, c // stride)
    return x[:, stride - 1 :] if grid else x


def fold_space(x: jax.Array, stride: int) -> jax.Array:
    """(..., H, W, C) -> (..., H/s, W/s, s s C)."""
    if stride == 1:
        return x
    *lead, h, w, c = x.shape
    x = x.reshape(*lead, h // stride, stride, w // stride, stride, c)
    return jnp.moveaxis(x, -4, -3).reshape(*lead, h // stride, w // stride, stride * stride * c)


def unfold_space(x: jax.Array, stride: int) -> jax.Array:
    """Inverse of ``fold_space``."""
    if stride == 1:
        return x
    *lead, h, w, c = x.shape
    x = x.reshape(*lead, h, w, stride, stride, c // (stride * stride))
    return jnp.moveaxis(x, -3, -4).reshape(*lead, h * stride, w * stride, c // (stride * stride))
