"""The continuous causal video autoencoder that gives the diffusion decoder its latents.

The MAGVIT-v2 encoder family without quantization (WALT: 8 latent channels, /8 in space, /4 in time): causal
convolutions, residual blocks, folding down and unfolding up. Time follows the grid of
``models.signals``: ``T = 4k + 1`` frames are ``k + 1`` latents, and latent ``j`` depends on frames ``0 .. 4j`` alone.
Latents are normalised by stored per-channel statistics.

Choices of ours. Norms are over channels only: a group norm over time would let later frames change earlier latents. The
input is folded by ``patch`` in space and ``time_patch`` in time, so that a small model never convolves at full
resolution (1 and 1 in the paper's size). ``linear_path`` puts a linear autoencoder of whole cells (8 x 8 pixels x 4
frames) beside the network, begun at the principal components of the training data (``principal_cells``); the network
starts at zero and learns what the linear one misses. A model that trains for a minute reconstructs faces with it, and
nothing without it; the paper's size does not use it.

Letters: B batch, T frames, K latent steps, H W pixels (h w latent cells), C channels.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import dataclass_from_dict, fill, load_model
from models.layers.convolution import VideoConv
from models.layers.folding import fold_space, fold_time, unfold_space, unfold_time
from models.layers.module import abstract
from models.signals import TIME_STRIDE, latent_steps

KIND = "video_autoencoder"
SPACE_STRIDE = 8
_STEPS = 16  # latents: lengths are multiples of this
CELL = SPACE_STRIDE**2 * TIME_STRIDE * 3  # numbers in the cell that one latent stands for


@dataclass(frozen=True)
class VideoAutoencoderConfig:
    """Sizes. Stages run from fine to coarse in the encoder and back in the decoder.

    Attributes:
        resolution: side of a frame in pixels.
        patch: space-to-depth factor at the input.
        time_patch: frames folded into channels at the input.
        widths: channels of each stage.
        blocks: residual blocks of each stage.
        time_kernels: temporal kernel of each stage's residual blocks.
        space_down: whether a stage's end halves space; ``patch`` times these must be 8.
        time_down: whether a stage's end halves time; ``time_patch`` times these must be 4.
        edge_kernel: spatial kernel of the first and the last convolution.
        linear_path: whether the linear autoencoder lies beside the network.
        latent_channels: c.
        latent_noise: standard deviation of the noise added to normalised latents in training, so that decoding forgives
            the diffusion model's small errors.
        edge_weight: weight of the L1 loss on differences of neighbouring pixels, beside L1 and L2 on pixels.
    """

    resolution: int = 128
    patch: int = 8
    time_patch: int = 4
    widths: tuple[int, ...] = (96,)
    blocks: tuple[int, ...] = (1,)
    time_kernels: tuple[int, ...] = (1,)
    space_down: tuple[bool, ...] = (False,)
    time_down: tuple[bool, ...] = (False,)
    edge_kernel: int = 1
    linear_path: bool = True
    latent_channels: int = 8
    latent_noise: float = 0.05
    edge_weight: float = 1.0

    def __post_init__(self):
        if self.patch * 2 ** sum(self.space_down) != SPACE_STRIDE:
            raise InputError(
                f"video autoencoder: patch {self.patch} and space_down {self.space_down} do not make {SPACE_STRIDE}"
            )
        if self.time_patch * 2 ** sum(self.time_down) != TIME_STRIDE:
            raise InputError(
                f"video autoencoder: time_patch {self.time_patch} and time_down {self.time_down} "
                f"do not make {TIME_STRIDE}"
            )
        if self.resolution % SPACE_STRIDE:
            raise InputError(f"video autoencoder: resolution {self.resolution} is not a multiple of {SPACE_STRIDE}")

    @property
    def latent_size(self) -> int:
        """Side of the latent grid."""
        return self.resolution // SPACE_STRIDE


def to_cells(frames: jax.Array) -> jax.Array:
    """What each latent stands for, (B, T = 4k + 1, H, W, 3) -> (B, k + 1, h, w, CELL): four frames of 8 x 8 pixels.

    The first latent stands for the first frame alone, which its cell holds four times (a still image is a still video).
    """
    return _fold(frames, SPACE_STRIDE, TIME_STRIDE)


def from_cells(cells: jax.Array) -> jax.Array:
    """The inverse of ``to_cells``."""
    return unfold_space(unfold_time(cells, TIME_STRIDE, True), SPACE_STRIDE)


def _fold(x: jax.Array, space: int, time: int) -> jax.Array:
    """Folds blocks of pixels and frames into channels; the first frame comes as often as a block has frames."""
    x = jnp.concatenate([jnp.repeat(x[:, :1], time - 1, axis=1), x], axis=1)
    return fold_time(fold_space(x, space), time, False)


class Residual(nnx.Module):
    """norm, swish, convolution, twice, beside the identity (a 1x1 projection where the width changes)."""

    def __init__(self, inputs: int, outputs: int, *, time_kernel: int, rngs: nnx.Rngs):
        self.norm1 = nnx.RMSNorm(inputs, rngs=rngs)
        self.conv1 = VideoConv(inputs, outputs, time_kernel=time_kernel, rngs=rngs)
        self.norm2 = nnx.RMSNorm(outputs, rngs=rngs)
        self.conv2 = VideoConv(outputs, outputs, time_kernel=1, zero=True, rngs=rngs)
        if inputs != outputs:
            self.skip = nnx.Linear(inputs, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return y + (self.skip(x) if hasattr(self, "skip") else x)


class Encoder(nnx.Module):
    """Frames (B, T, H, W, 3) in [-1, 1] -> latents before normalisation (B, K, h, w, c)."""

    def __init__(self, config: VideoAutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        inputs, kernel, width = 3 * config.patch**2 * config.time_patch, config.edge_kernel, config.widths[0]
        self.first = VideoConv(inputs, width, time_kernel=1, space_kernel=kernel, rngs=rngs)
        for stage, stage_width in enumerate(config.widths):
            for block in range(config.blocks[stage]):
                layer = Residual(width, stage_width, time_kernel=config.time_kernels[stage], rngs=rngs)
                setattr(self, f"stage{stage}_block{block}", layer)
                width = stage_width
            space, time = config.space_down[stage], config.time_down[stage]
            if space or time:
                inputs = width * (4 if space else 1) * (2 if time else 1)
                setattr(self, f"stage{stage}_down", VideoConv(inputs, width, time_kernel=1, space_kernel=1, rngs=rngs))
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.last = VideoConv(
            width, config.latent_channels, time_kernel=1, space_kernel=1, zero=config.linear_path, rngs=rngs
        )
        if config.linear_path:
            self.linear = nnx.Linear(CELL, config.latent_channels, rngs=rngs)

    def __call__(self, frames: jax.Array) -> jax.Array:
        config = self.config
        x = self.first(_fold(frames, config.patch, config.time_patch))  # (B, T/time_patch, H/patch, W/patch, C)
        for stage in range(len(config.widths)):
            for block in range(config.blocks[stage]):
                x = getattr(self, f"stage{stage}_block{block}")(x)
            space, time = config.space_down[stage], config.time_down[stage]
            if space or time:
                x = fold_time(fold_space(x, 2 if space else 1), 2 if time else 1, True)
                x = getattr(self, f"stage{stage}_down")(x)
        x = self.last(jax.nn.silu(self.norm(x)))  # (B, K, h, w, c)
        return x + self.linear(to_cells(frames)) if config.linear_path else x


class Decoder(nnx.Module):
    """Normalised latents (B, K, h, w, c) -> frames (B, T, H, W, 3), about [-1, 1]."""

    def __init__(self, config: VideoAutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.widths[-1]
        self.first = VideoConv(config.latent_channels, width, time_kernel=1, rngs=rngs)
        for stage in reversed(range(len(config.widths))):
            stage_width = config.widths[stage]
            space, time = config.space_down[stage], config.time_down[stage]
            if space or time:
                outputs = stage_width * (4 if space else 1) * (2 if time else 1)
                setattr(self, f"stage{stage}_up", VideoConv(width, outputs, time_kernel=1, space_kernel=1, rngs=rngs))
                width = stage_width
            for block in range(config.blocks[stage]):
                layer = Residual(width, stage_width, time_kernel=config.time_kernels[stage], rngs=rngs)
                setattr(self, f"stage{stage}_block{block}", layer)
                width = stage_width
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        outputs, kernel = 3 * config.patch**2 * config.time_patch, config.edge_kernel
        self.last = VideoConv(width, outputs, time_kernel=1, space_kernel=kernel, zero=config.linear_path, rngs=rngs)
        if config.linear_path:
            self.linear = nnx.Linear(config.latent_channels, CELL, rngs=rngs)

    def __call__(self, latents: jax.Array) -> jax.Array:
        config = self.config
        x = self.first(latents)
        for stage in reversed(range(len(config.widths))):
            space, time = config.space_down[stage], config.time_down[stage]
            if space or time:
                x = getattr(self, f"stage{stage}_up")(x)
                x = unfold_space(unfold_time(x, 2 if time else 1, True), 2 if space else 1)
            for block in range(config.blocks[stage]):
                x = getattr(self, f"stage{stage}_block{block}")(x)
        x = self.last(jax.nn.silu(self.norm(x)))
        x = unfold_space(unfold_time(x, config.time_patch, True), config.patch)
        return x + from_cells(self.linear(latents)) if config.linear_path else x


class VideoAutoencoder(nnx.Module):
    """Encoder, decoder and the latents' statistics (buffers that training keeps as running averages)."""

    def __init__(self, config: VideoAutoencoderConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.latent_mean = nnx.Param(jnp.zeros(config.latent_channels))
        self.latent_std = nnx.Param(jnp.ones(config.latent_channels))


@lru_cache(maxsize=8)
def _graph(config: VideoAutoencoderConfig):
    return abstract(lambda rngs: VideoAutoencoder(config, rngs=rngs))[0]


def init(config: VideoAutoencoderConfig, key: jax.Array, linear: dict | None = None) -> dict:
    """Returns fresh parameters, nested dicts of arrays; ``linear`` is a start for the linear path
    (``principal_cells``).
    """
    params = nnx.to_pure_dict(nnx.split(VideoAutoencoder(config, rngs=nnx.Rngs(key)))[1])
    if linear is not None:
        for side in ("encoder", "decoder"):
            params[side]["linear"] = {name: jnp.asarray(leaf) for name, leaf in linear[side].items()}
    return params


def principal_cells(frames: np.ndarray, channels: int) -> dict:
    """Returns a start for the linear path: the principal components of cells, scaled so that latents have unit
    variance.

    Args:
        frames: float32 (B, T = 4k + 1, H, W, 3) in [-1, 1].
        channels: c.

    Returns:
        {"encoder": {"kernel" (CELL, c), "bias"}, "decoder": {"kernel" (c, CELL), "bias"}}, float32.
    """
    with jax.ensure_compile_time_eval():  # this is called while an initialisation is traced
        cells = np.asarray(to_cells(frames)).reshape(-1, CELL).astype(np.float64)
    mean = cells.mean(0)
    values, vectors = np.linalg.eigh(np.cov(cells, rowvar=False))
    vectors = vectors[:, ::-1][:, :channels]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(channels)])  # eigh leaves the sign open
    scale = np.sqrt(np.maximum(values[::-1][:channels], 1e-8))
    kernel, inverse = vectors / scale, (vectors * scale).T
    parts = {
        "encoder": {"kernel": kernel, "bias": -mean @ kernel},
        "decoder": {"kernel": inverse, "bias": mean},
    }
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), parts)


def encode_raw(config: VideoAutoencoderConfig, params: dict, frames: jax.Array) -> jax.Array:
    """Frames (B, T = 4k + 1, H, W, 3) in [-1, 1] -> latents before normalisation (B, k + 1, h, w, c)."""
    return nnx.merge(_graph(config), params).encoder(frames)


def encode(config: VideoAutoencoderConfig, params: dict, frames: jax.Array) -> jax.Array:
    """Frames (B, T = 4k + 1, H, W, 3) in [-1, 1] -> normalised latents (B, k + 1, h, w, c), about zero mean and unit
    variance.
    """
    return (encode_raw(config, params, frames) - params["latent_mean"]) / params["latent_std"]


def decode(config: VideoAutoencoderConfig, params: dict, latents: jax.Array) -> jax.Array:
    """Normalised latents (B, k + 1, h, w, c) -> frames (B, 4k + 1, H, W, 3), about [-1, 1]."""
    return nnx.merge(_graph(config), params).decoder(latents)


def training_loss(
    config: VideoAutoencoderConfig, params: dict, frames: jax.Array, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the reconstruction loss and this batch's latent (mean, std) per channel.

    The caller keeps running averages of the statistics in ``latent_mean`` and ``latent_std``; no gradient goes into
    these. (The batch's own statistics would be wrong here: normalised by them, a batch of dark clips and one of bright
    clips look alike.)
    """
    raw = encode_raw(config, params, frames)
    latents = (raw - jax.lax.stop_gradient(params["latent_mean"])) / jax.lax.stop_gradient(params["latent_std"])
    latents = latents + config.latent_noise * jax.random.normal(key, latents.shape)
    loss = reconstruction_loss(config, decode(config, params, latents), frames)
    raw = jax.lax.stop_gradient(raw)
    return loss, (raw.mean((0, 1, 2, 3)), raw.std((0, 1, 2, 3)))


def reconstruction_loss(config: VideoAutoencoderConfig, output: jax.Array, frames: jax.Array) -> jax.Array:
    """L1 + L2 on pixels in [-1, 1] and weighted L1 on the differences of neighbours (edges stay sharp)."""
    error = output - frames
    loss = jnp.abs(error).mean() + jnp.square(error).mean()
    down, right = error[:, :, 1:] - error[:, :, :-1], error[:, :, :, 1:] - error[:, :, :, :-1]
    return loss + config.edge_weight * (jnp.abs(down).mean() + jnp.abs(right).mean())


def pixels_to_unit(frames: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1]."""
    return frames.astype(np.float32) / 127.5 - 1


def unit_to_pixels(frames: np.ndarray) -> np.ndarray:
    """About [-1, 1] -> uint8."""
    return np.clip(np.rint((np.asarray(frames) + 1) * 127.5), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A loaded autoencoder; numpy in, numpy out, jitted inside."""

    config: VideoAutoencoderConfig
    params: dict
    weights_sha256: str

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T = 4k + 1, H, W, 3) -> normalised latents float32 (k + 1, h, w, c)."""
        size = self.config.resolution
        if frames.dtype != np.uint8 or frames.shape[1:] != (size, size, 3) or frames.shape[0] % TIME_STRIDE != 1:
            raise InputError(
                f"video autoencoder: frames are {frames.dtype}{frames.shape}, expected uint8 (4k+1, {size}, {size}, 3)"
            )
        steps = latent_steps(len(frames))
        frames = _lengthen(frames, (_bucket(steps) - 1) * TIME_STRIDE + 1)
        return np.asarray(_encode(self.config, self.params, pixels_to_unit(frames)[None])[0, :steps])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Normalised latents (k + 1, h, w, c) -> uint8 (4k + 1, H, W, 3)."""
        latents, steps = np.asarray(latents, np.float32), len(latents)
        frames = _decode(self.config, self.params, _lengthen(latents, _bucket(steps))[None])[0]
        return unit_to_pixels(frames[: (steps - 1) * TIME_STRIDE + 1])


def _bucket(steps: int) -> int:
    """Rounds a length up, so that few lengths are compiled; what follows a causal model's input changes nothing."""
    return 1 if steps == 1 else -(-steps // _STEPS) * _STEPS


def _lengthen(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([x, np.repeat(x[-1:], length - len(x), axis=0)])


_encode = jax.jit(encode, static_argnums=0)
_decode = jax.jit(decode, static_argnums=0)


def load_autoencoder(directory: Path | str) -> TrainedAutoencoder:
    """Reads a trained autoencoder's directory.

    Raises:
        InputError: it is none, or its arrays do not fit its config.
    """
    kind, config, params, meta = load_model(directory)
    if kind != KIND:
        raise InputError(f"{directory}: a model of kind {kind!r}, expected {KIND!r}")
    config = dataclass_from_dict(VideoAutoencoderConfig, config)
    template = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    return TrainedAutoencoder(config, fill(template, params, directory), meta.weights_sha256)
