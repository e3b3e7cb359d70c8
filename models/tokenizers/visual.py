"""The network of the image and the semantic-video tokenizers: MAGVIT-v2's causal convolutions around LFQ.

From MAGVIT-v2 (arXiv 2310.05737, section 3.2, figure 2) and WALT's table 8: residual blocks of GroupNorm, swish and
causal convolutions; stages that halve space, some of them time; frame 0 alone in the first step; a normalisation
without parameters before the sign. An image is a video of one frame.

Letters: B batch, T frames, S = k + 1 token steps, H W pixels, h w token grid, C channels, K bits.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.convolution import VideoConv
from models.layers.folding import fold_space, fold_time, unfold_space, unfold_time
from models.layers.norms import FrameGroupNorm, group_normalise
from models.layers.quantizers import lfq, lfq_codes, lfq_commitment, lfq_entropy


@dataclass(frozen=True)
class VisualConfig:
    """Shape of the network.

    Attributes:
        bits: K, log2 of the codebook.
        patch: (time, space) folded into channels at the input and unfolded at the output.
        widths: channels of each stage, from the pixels inwards.
        strides: (time, space) between stages, one fewer than stages.
        blocks: residual blocks a stage, in the encoder and in the decoder.
        time_kernel: 3 for video, 1 for images.
        groups: of GroupNorm.
        pixel_channels: channels a pixel has before the last layer; 0 unfolds the outputs themselves.
        inputs: channels of a pixel given, outputs: of a pixel made.
        grid: (h, w) of tokens that the decoder learns a place embedding for, (0, 0) for none. Faces in crops are
            aligned, and a small network learns where things usually are much sooner than codes that say so.
        prior: side of a learned map that is added to every frame made, 0 for none. It can start at the training data's
            mean, so that the network begins with the difference.
    """

    bits: int
    patch: tuple[int, int]
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]
    blocks: int
    time_kernel: int = 3
    groups: int = 8
    pixel_channels: int = 16
    inputs: int = 3
    outputs: int = 3
    grid: tuple[int, int] = (0, 0)
    prior: int = 0


@dataclass(frozen=True)
class LfqLoss:
    """Weights of the quantizer's losses (MAGVIT-v2's author: commitment 0.25, entropy 0.1, temperature 0.01).

    ``groups``: the K bits' entropy is computed over this many joint sub-codebooks.
    """

    commitment: float = 0.25
    entropy: float = 0.1
    temperature: float = 0.01
    groups: int = 1


class Block(nnx.Module):
    """norm, swish, convolution, twice, beside the identity."""

    def __init__(self, width: int, config: VisualConfig, *, rngs: nnx.Rngs):
        self.norm1 = FrameGroupNorm(width, config.groups, rngs=rngs)
        self.conv1 = VideoConv(width, width, time_kernel=config.time_kernel, rngs=rngs)
        self.norm2 = FrameGroupNorm(width, config.groups, rngs=rngs)
        self.conv2 = VideoConv(width, width, time_kernel=config.time_kernel, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        return x + self.conv2(jax.nn.silu(self.norm2(y)))


class Encoder(nnx.Module):
    """(B, T, H, W, inputs) -> (B, S, h, w, K), before the quantizer."""

    def __init__(self, config: VisualConfig, *, rngs: nnx.Rngs):
        self.config = config
        time, space = config.patch
        dense = {"time_kernel": 1, "space_kernel": 1, "rngs": rngs}
        self.stem = VideoConv(config.inputs * time * space**2, config.widths[0], **dense)
        self.stages = nnx.List(
            [nnx.List([Block(w, config, rngs=rngs) for _ in range(config.blocks)]) for w in config.widths]
        )
        self.downs = nnx.List(
            [
                VideoConv(a * t * s**2, b, **dense)
                for a, b, (t, s) in zip(config.widths[:-1], config.widths[1:], config.strides, strict=True)
            ]
        )
        self.norm = FrameGroupNorm(config.widths[-1], config.groups, rngs=rngs)
        self.out = VideoConv(config.widths[-1], config.bits, **dense)

    def __call__(self, x: jax.Array) -> jax.Array:
        time, space = self.config.patch
        x = self.stem(fold_space(fold_time(x, time, grid=True), space))
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if index < len(self.downs):
                t, s = self.config.strides[index]
                x = self.downs[index](fold_space(fold_time(x, t, grid=True), s))
        return group_normalise(self.out(jax.nn.silu(self.norm(x))), 1)


class Decoder(nnx.Module):
    """Codes (B, S, h, w, K) -> (B, T, H, W, outputs)."""

    def __init__(self, config: VisualConfig, *, rngs: nnx.Rngs):
        self.config = config
        time, space = config.patch
        dense = {"time_kernel": 1, "space_kernel": 1, "rngs": rngs}
        self.stem = VideoConv(config.bits, config.widths[-1], time_kernel=config.time_kernel, rngs=rngs)
        if config.grid[0]:
            # As large as what it is added to: at zero it would be learnt too late to help.
            self.place = nnx.Param(rngs.normal((*config.grid, config.widths[-1])))
        self.stages = nnx.List(
            [nnx.List([Block(w, config, rngs=rngs) for _ in range(config.blocks)]) for w in config.widths]
        )
        self.ups = nnx.List(
            [
                VideoConv(b, a * t * s**2, **dense)
                for a, b, (t, s) in zip(config.widths[:-1], config.widths[1:], config.strides, strict=True)
            ]
        )
        self.norm = FrameGroupNorm(config.widths[0], config.groups, rngs=rngs)
        unfolded = config.pixel_channels or config.outputs
        self.pixels = VideoConv(config.widths[0], unfolded * time * space**2, zero=not config.pixel_channels, **dense)
        if config.pixel_channels:
            self.out = VideoConv(config.pixel_channels, config.outputs, **dense)
        if config.prior:
            self.prior = nnx.Param(jnp.zeros((config.prior, config.prior, config.outputs)))

    def features(self, codes: jax.Array) -> jax.Array:
        """Codes -> what ``head`` reads: (B, steps of the patch, H / patch, W / patch, C)."""
        x = self.stem(codes)
        if self.config.grid[0]:
            x = x + self.place[...]
        for index in reversed(range(len(self.stages))):
            for block in self.stages[index]:
                x = block(x)
            if index:
                t, s = self.config.strides[index - 1]
                x = unfold_time(unfold_space(self.ups[index - 1](x), s), t, grid=True)
        return self.pixels(jax.nn.silu(self.norm(x)))

    def head(self, x: jax.Array, grid: bool = True, sample: tuple | None = None) -> jax.Array:
        """Features of any number of steps -> pixels.

        Args:
            grid: the first step gives one frame.
            sample: (step, row, column): only every ``step``-th row and column, from the given ones on.
        """
        time, space = self.config.patch
        x = unfold_time(unfold_space(x, space), time, grid=grid)
        prior = self.prior[...][None, None] if self.config.prior else 0.0
        if sample is not None:
            x = every(x, *sample)
            prior = every(prior, *sample) if self.config.prior else prior
        return (self.out(jax.nn.silu(x)) if self.config.pixel_channels else x) + prior

    def __call__(self, codes: jax.Array) -> jax.Array:
        return self.head(self.features(codes))


class VisualNet(nnx.Module):
    def __init__(self, config: VisualConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)

    def reconstruct(self, x: jax.Array, sample: tuple | None = None) -> tuple[jax.Array, jax.Array]:
        """Returns (pixels made, of which ``sample`` takes some as in ``head``; encoder output before the sign)."""
        z = self.encoder(x)
        return self.decoder.head(self.decoder.features(lfq(z)[0]), sample=sample), z

    def encode(self, x: jax.Array) -> jax.Array:
        """(B, T, H, W, inputs) -> int32 (B, S, h, w)."""
        return lfq(self.encoder(x))[1]

    def decode(self, index: jax.Array) -> jax.Array:
        """int32 (B, S, h, w) -> (B, T, H, W, outputs)."""
        return self.decoder(lfq_codes(index, self.decoder.config.bits))


def every(x: jax.Array, step: int, row: jax.Array, column: jax.Array) -> jax.Array:
    """(B, T, H, W, ...) -> every ``step``-th row and column, from the given ones (below ``step``) on."""
    if step == 1:
        return x
    b, t, h, w, *rest = x.shape
    x = x.reshape(b, t, h // step, step, w // step, step, *rest)
    return jnp.take(jnp.take(x, row, axis=3), column, axis=4)


def quantizer_loss(z: jax.Array, weights: LfqLoss) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Commitment and entropy losses of encoder outputs (..., K)."""
    commitment = lfq_commitment(z)
    single, together = lfq_entropy(z, weights.groups, weights.temperature)
    loss = weights.commitment * commitment + weights.entropy * (single - together)
    return loss, {"commitment": commitment, "entropy_single": single, "entropy_mean": together}


def to_unit(pixels: jax.Array) -> jax.Array:
    """uint8 0..255 -> float32 -1..1."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1
