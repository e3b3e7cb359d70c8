"""Tokenizers of the 3DMM's shape, expression and pose (causal 1-D convolutions around residual VQ, /4 in time).

Shape is one vector a clip and has no time axis: its "clip" is one frame, and all layers see that alone. Values are
normalised by the training data's mean and deviation, which are stored in the model.

Letters: B batch, T = 4k + 1 frames, S = k + 1 steps, D channels of the signal, L levels.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import ModelMeta, dataclass_from_dict, fill
from models.layers.convolution import CausalConv1d, TimeDown, TimeUp
from models.layers.module import abstract
from models.layers.quantizers import RvqConfig, rvq_decode, rvq_encode, rvq_init, rvq_train
from models.signals import TIME_STRIDE

KINDS = ("shape", "expression", "pose")


@dataclass(frozen=True)
class AnimationConfig:
    """The network and its loss weights.

    Attributes:
        channels: D; 0 in a preset, where the data says.
        width: channels of the convolutions.
        blocks: residual blocks before and after each change of rate.
        strides: of time; their product is 4, or () for shape.
        rvq: the codebooks.
        velocity: weight of the distance of frame-to-frame differences.
        std_floor: least deviation that a channel is divided by, in its own unit.
        scale: "" in a preset, where the data says. "deviation": channels are scaled to count alike; "landmarks": each
            counts as much as its deviation moves the face's landmarks.
    """

    channels: int
    width: int
    blocks: int
    strides: tuple[int, ...]
    rvq: RvqConfig
    velocity: float = 0.5
    std_floor: float = 0.02
    scale: str = ""


class Unit(nnx.Module):
    """Residual unit over time: swish, causal convolution, swish, dense."""

    def __init__(self, width: int, kernel: int, dilation: int, *, rngs: nnx.Rngs):
        self.conv = CausalConv1d(width, width, kernel, dilation=dilation, rngs=rngs)
        self.dense = CausalConv1d(width, width, 1, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.dense(jax.nn.silu(self.conv(jax.nn.silu(x))))


class AnimationNet(nnx.Module):
    """``encode``: (B, T, D) -> (B, S, rvq.channels); ``decode``: back."""

    def __init__(self, config: AnimationConfig, *, rngs: nnx.Rngs):
        width, kernel = config.width, 3 if config.strides else 1

        def units() -> nnx.List:
            return nnx.List([Unit(width, kernel, 3**i if kernel > 1 else 1, rngs=rngs) for i in range(config.blocks)])

        stages = len(config.strides) + 1
        self.stem = CausalConv1d(config.channels, width, kernel, rngs=rngs)
        self.encoder_units = nnx.List([units() for _ in range(stages)])
        self.downs = nnx.List([TimeDown(width, width, s, grid=True, rngs=rngs) for s in config.strides])
        self.to_latent = CausalConv1d(width, config.rvq.channels, 1, rngs=rngs)
        self.from_latent = CausalConv1d(config.rvq.channels, width, kernel, rngs=rngs)
        self.ups = nnx.List([TimeUp(width, width, s, grid=True, rngs=rngs) for s in config.strides])
        self.decoder_units = nnx.List([units() for _ in range(stages)])
        self.out = CausalConv1d(width, config.channels, 1, rngs=rngs)

    def encode(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for index, units in enumerate(self.encoder_units):
            for unit in units:
                x = unit(x)
            if index < len(self.downs):
                x = self.downs[index](x)
        return self.to_latent(x)

    def decode(self, z: jax.Array) -> jax.Array:
        x = self.from_latent(z)
        for index in reversed(range(len(self.decoder_units))):
            for unit in self.decoder_units[index]:
                x = unit(x)
            if index:
                x = self.ups[index - 1](x)
        return self.out(x)


def build(config: AnimationConfig, rngs: nnx.Rngs) -> AnimationNet:
    return AnimationNet(config, rngs=rngs)


def loss(
    config: AnimationConfig, graph, params: dict, books: dict, batch: dict, key: jax.Array, *, train: bool
) -> tuple[jax.Array, dict, dict]:
    """Loss of a batch {"signal": float32 (B, T, D), normalised}.

    Returns:
        (loss, metrics, codebooks (moved if ``train``)).
    """
    net = nnx.merge(graph, params)
    real = batch["signal"]
    z = net.encode(real)
    if train:
        codes, commitment, books = rvq_train(config.rvq, books, z, key)
    else:
        _, codes = rvq_encode(books["code"], z)
        commitment = config.rvq.commitment * jnp.mean((z - codes) ** 2)
    made = net.decode(codes)
    squared = jnp.mean((made - real) ** 2)
    total = squared + commitment
    if real.shape[1] > 1:
        total += config.velocity * jnp.mean((jnp.diff(made, axis=1) - jnp.diff(real, axis=1)) ** 2)
    return total, {"l2": squared, "rms": jnp.sqrt(squared), "commitment": commitment}, books


class AnimationTokenizer:
    """A trained shape, expression or pose tokenizer; numpy in, numpy out, in the signals' own units."""

    def __init__(self, kind: str, config: dict, params: dict, meta: ModelMeta, bucket: int = 32):
        self.kind = kind
        self.config = dataclass_from_dict(AnimationConfig, config)
        self.bucket = bucket
        graph, template = abstract(lambda rngs: build(self.config, rngs))
        signal = jax.ShapeDtypeStruct((self.config.channels,), jnp.float32)
        code = jax.eval_shape(lambda: rvq_init(self.config.rvq)["code"])
        template = {"params": template, "code": code, "mean": signal, "std": signal}
        self.params = jax.device_put(fill(template, params, meta.directory))
        self.codebook_sizes = (self.config.rvq.codes,) * self.config.rvq.levels
        self.weights_sha256 = meta.weights_sha256

        def encode(p: dict, x: jax.Array) -> jax.Array:
            z = nnx.merge(graph, p["params"]).encode(((x - p["mean"]) / p["std"])[None])
            return rvq_encode(p["code"], z[0])[0]

        def decode(p: dict, index: jax.Array) -> jax.Array:
            x = nnx.merge(graph, p["params"]).decode(rvq_decode(p["code"], index)[None])
            return x[0] * p["std"] + p["mean"]

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)

    def encode(self, signal: np.ndarray) -> np.ndarray:
        """float32 (T, D), T = 4k + 1 -> int32 (levels, k+1); shape: float32 (D,) -> int32 (levels,)."""
        signal = np.asarray(signal, np.float32)
        still = self.kind == "shape"
        good = signal.ndim == (1 if still else 2) and signal.shape[-1] == self.config.channels
        if not good or (not still and signal.shape[0] % TIME_STRIDE != 1):
            axes = f"({self.config.channels},)" if still else f"(4k + 1, {self.config.channels})"
            raise InputError(f"{self.kind}: {signal.shape}, expected float32 {axes}")
        if still:
            return np.asarray(self._encode(self.params, signal[None])[:, 0])
        steps = (len(signal) - 1) // TIME_STRIDE + 1
        padded = -(-steps // self.bucket) * self.bucket
        signal = np.pad(signal, [(0, (padded - steps) * TIME_STRIDE), (0, 0)], mode="edge")
        return np.asarray(self._encode(self.params, signal)[:, :steps])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Inverse of ``encode``."""
        codes = np.asarray(codes, np.int32)
        if self.kind == "shape":
            return np.asarray(self._decode(self.params, codes[:, None])[0])
        steps = codes.shape[1]
        padded = -(-steps // self.bucket) * self.bucket
        signal = self._decode(self.params, np.pad(codes, [(0, 0), (0, padded - steps)], mode="edge"))
        return np.asarray(signal[: (steps - 1) * TIME_STRIDE + 1])
