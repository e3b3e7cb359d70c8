"""Normalisation that does not look along time, so that causal models stay causal.

Letters: B batch, T time, ... space, C channels, G groups.
"""

import jax
import jax.numpy as jnp
from flax import nnx


def group_normalise(x: jax.Array, groups: int, epsilon: float = 1e-6) -> jax.Array:
    """Subtracts the mean and divides by the deviation of each group of channels over space, one time step at a time.

    (B, T, ..., C) -> the same shape; no parameters.
    """
    b, t, *space, c = x.shape
    y = x.reshape(b, t, -1, groups, c // groups)
    mean = y.mean((2, 4), keepdims=True)
    variance = ((y - mean) ** 2).mean((2, 4), keepdims=True)
    return ((y - mean) * jax.lax.rsqrt(variance + epsilon)).reshape(x.shape)


class FrameGroupNorm(nnx.Module):
    """GroupNorm per time step with a scale and a shift a channel (MAGVIT-v2's GroupNorm, kept causal)."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        del rngs
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.scale = nnx.Param(jnp.ones(channels))
        self.shift = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        return group_normalise(x, self.groups) * self.scale[...] + self.shift[...]
