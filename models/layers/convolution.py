"""Causal convolutions over time (1-D) and over video (time causal, space centred).

Padding in front is zeros, so that step ``t`` depends on inputs up to ``t`` alone and a longer input does not change the
outputs of its beginning: encoders and decoders of this project run on any length.

Letters: B batch, T time, H W space, C channels (I in, O out), k kernel, d dilation, s stride.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.folding import fold_time, unfold_time


def _kernel(shape: tuple[int, ...], zero: bool, rngs: nnx.Rngs) -> jax.Array:
    """Normal with variance 1 / fan-in, or zeros."""
    return jnp.zeros(shape) if zero else rngs.normal(shape) / math.sqrt(math.prod(shape[:-1]))


class CausalConv1d(nnx.Module):
    """Convolution over time, (B, T, I) -> (B, T, O)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, zero: bool = False, rngs: nnx.Rngs
    ):
        self.dilation = dilation
        self.kernel = nnx.Param(_kernel((kernel, inputs, outputs), zero, rngs))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        if kernel.shape[0] == 1:
            return jnp.einsum("bti,io->bto", x, kernel[0]) + self.bias[...]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            [((kernel.shape[0] - 1) * self.dilation, 0)],
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return y + self.bias[...]


class TimeDown(nnx.Module):
    """Strided causal convolution with kernel 2s, (B, T, I) -> (B, steps, O); ``grid`` as in ``fold_time``."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, grid: bool, rngs: nnx.Rngs):
        self.stride, self.grid = stride, grid
        self.mix = CausalConv1d(stride * inputs, outputs, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mix(fold_time(x, self.stride, self.grid))


class TimeUp(nnx.Module):
    """Transposed causal convolution with kernel 2s, (B, steps, I) -> (B, T, O)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, grid: bool, rngs: nnx.Rngs):
        self.stride, self.grid = stride, grid
        self.mix = CausalConv1d(inputs, stride * outputs, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return unfold_time(self.mix(x), self.stride, self.grid)


class VideoConv(nnx.Module):
    """Convolution over video, (B, T, H, W, I) -> (B, T, H, W, O), with a causal time kernel and a centred space kernel.

    The time taps are laid side by side on the channel axis and convolved in 2-D: the sums of a 3-D kernel, and on a CPU
    several times faster. With ``time_kernel`` 1 it is an image convolution applied to every frame.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        time_kernel: int = 3,
        space_kernel: int = 3,
        zero: bool = False,
        rngs: nnx.Rngs,
    ):
        self.time_kernel = time_kernel
        self.kernel = nnx.Param(_kernel((space_kernel, space_kernel, time_kernel * inputs, outputs), zero, rngs))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        frames = x.shape[1]
        if self.time_kernel > 1:
            x = jnp.pad(x, [(0, 0), (self.time_kernel - 1, 0), (0, 0), (0, 0), (0, 0)])
            x = jnp.concatenate([x[:, tap : tap + frames] for tap in range(self.time_kernel)], axis=-1)
        if kernel.shape[0] == 1:
            return jnp.einsum("bthwi,io->bthwo", x, kernel[0, 0]) + self.bias[...]
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[2:]), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.reshape(*x.shape[:-1], -1) + self.bias[...]
