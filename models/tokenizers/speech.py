"""The speech tokenizer: 16 kHz waveform <-> 25 steps a second of 4 residual levels of 1,024 codes (SoundStream).

From SoundStream (arXiv 2107.03312): a causal convolutional encoder of strided stages with dilated residual units, its
mirror as decoder, residual vector quantization, a multi-scale mel loss, optionally waveform discriminators. The hop of
640 samples comes from the product of ``patch`` and ``strides``.

Letters: B batch, N samples, S steps, C channels, L levels, F spectrogram frames, M mel bands.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import ModelMeta, dataclass_from_dict, fill
from models.layers.convolution import CausalConv1d, TimeDown, TimeUp
from models.layers.folding import fold_time, unfold_time
from models.layers.module import abstract
from models.layers.quantizers import RvqConfig, rvq_decode, rvq_encode, rvq_init, rvq_train
from models.signals import AUDIO_RATE, SPEECH_HOP

KIND = "speech"


@dataclass(frozen=True)
class SpeechConfig:
    """The network and its loss weights.

    Attributes:
        patch: samples folded into channels at the input (1 in SoundStream).
        width: channels after the first layer.
        strides: of the stages; ``patch`` times their product is 640.
        multipliers: channels after each stage, in widths.
        dilations: of the residual units of a stage.
        rvq: the codebooks.
        windows: of the multi-scale mel loss, in samples.
        mels: most bands of a scale (a short window has fewer).
        waveform: weight of the L1 distance of the waveforms.
        spectral: weight of the mel loss.
    """

    patch: int
    width: int
    strides: tuple[int, ...]
    multipliers: tuple[int, ...]
    dilations: tuple[int, ...]
    rvq: RvqConfig
    windows: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    mels: int = 64
    waveform: float = 1.0
    spectral: float = 1.0

    def __post_init__(self):
        if self.patch * math.prod(self.strides) != SPEECH_HOP:
            raise InputError(f"speech: patch {self.patch} x strides {self.strides} is not {SPEECH_HOP}")


class Unit(nnx.Module):
    """Residual unit: ELU, dilated convolution of 7, ELU, dense."""

    def __init__(self, width: int, dilation: int, *, rngs: nnx.Rngs):
        self.conv = CausalConv1d(width, width, 7, dilation=dilation, rngs=rngs)
        self.dense = CausalConv1d(width, width, 1, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.dense(jax.nn.elu(self.conv(jax.nn.elu(x))))


class SpeechNet(nnx.Module):
    """``encode``: (B, N) -> (B, S, D); ``decode``: (B, S, D) -> (B, N), N = 640 S."""

    def __init__(self, config: SpeechConfig, *, rngs: nnx.Rngs):
        self.config = config
        widths = [config.width * m for m in (1, *config.multipliers)]

        def units(width: int) -> nnx.List:
            return nnx.List([Unit(width, dilation, rngs=rngs) for dilation in config.dilations])

        pairs = list(zip(widths[:-1], widths[1:], config.strides, strict=True))
        self.stem = CausalConv1d(config.patch, widths[0], 7, rngs=rngs)
        self.encoder_units = nnx.List([units(a) for a, _, _ in pairs])
        self.downs = nnx.List([TimeDown(a, b, s, grid=False, rngs=rngs) for a, b, s in pairs])
        self.to_latent = CausalConv1d(widths[-1], config.rvq.channels, 3, rngs=rngs)
        self.from_latent = CausalConv1d(config.rvq.channels, widths[-1], 7, rngs=rngs)
        self.ups = nnx.List([TimeUp(b, a, s, grid=False, rngs=rngs) for a, b, s in pairs])
        self.decoder_units = nnx.List([units(a) for a, _, _ in pairs])
        self.out = CausalConv1d(widths[0], config.patch, 7, rngs=rngs)

    def encode(self, x: jax.Array) -> jax.Array:
        x = self.stem(fold_time(x[..., None], self.config.patch, grid=False))
        for units, down in zip(self.encoder_units, self.downs, strict=True):
            for unit in units:
                x = unit(x)
            x = down(jax.nn.elu(x))
        return self.to_latent(jax.nn.elu(x))

    def decode(self, z: jax.Array) -> jax.Array:
        x = self.from_latent(z)
        for units, up in zip(reversed(self.decoder_units), reversed(self.ups), strict=True):
            x = up(jax.nn.elu(x))
            for unit in units:
                x = unit(x)
        return unfold_time(self.out(jax.nn.elu(x)), self.config.patch, grid=False)[..., 0]


def build(config: SpeechConfig, rngs: nnx.Rngs) -> SpeechNet:
    return SpeechNet(config, rngs=rngs)


@functools.lru_cache(maxsize=16)
def mel_filters(window: int, mels: int, rate: int = AUDIO_RATE) -> np.ndarray:
    """Triangular filters on the HTK mel scale, each of unit sum: float32 (window // 2 + 1, mels)."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    hertz = np.arange(window // 2 + 1) * rate / window
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rise = (hertz[:, None] - left) / (middle - left)
    fall = (right - hertz[:, None]) / (right - middle)
    weights = np.maximum(0, np.minimum(rise, fall))
    return (weights / np.maximum(weights.sum(0), 1e-8)).astype(np.float32)


def mel_spectrogram(x: jax.Array, window: int, mels: int) -> jax.Array:
    """Magnitude mel spectrogram with a hop of a quarter window: (B, N) -> (B, F, M), M = min(mels, window / 8)."""
    hop = window // 4
    frames = (x.shape[1] - window) // hop + 1
    pieces = x[:, : (frames + 3) * hop].reshape(x.shape[0], frames + 3, hop)
    blocks = jnp.concatenate([pieces[:, i : i + frames] for i in range(4)], -1)  # (B, F, window)
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    spectrum = jnp.fft.rfft(blocks * hann)
    magnitude = jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-8) / math.sqrt(window)
    return magnitude @ mel_filters(window, min(mels, window // 8))


def spectral_loss(real: jax.Array, made: jax.Array, windows: tuple[int, ...], mels: int) -> tuple[jax.Array, jax.Array]:
    """Multi-scale mel loss: per window s the L1 distance of magnitudes plus sqrt(s / 2) times the L2 distance of logs.

    SoundStream's equation 4 with means in place of sums, divided by the sum of the weights so that the choice of scales
    leaves the size alone.

    Returns:
        (loss, mean absolute difference of the natural logs over all scales).
    """
    total, scale, log_l1 = 0.0, 0.0, 0.0
    for window in windows:
        a, b = mel_spectrogram(real, window, mels), mel_spectrogram(made, window, mels)
        difference = jnp.log(a + 1e-4) - jnp.log(b + 1e-4)
        weight = math.sqrt(window / 2)
        l2 = jnp.sqrt(jnp.mean(difference**2, -1) + 1e-8)
        total += jnp.mean(jnp.abs(a - b)) + weight * jnp.mean(l2)
        scale += weight
        log_l1 += jnp.mean(jnp.abs(difference)) / len(windows)
    return total / scale, log_l1


def loss(
    config: SpeechConfig, graph, params: dict, books: dict, batch: dict, key: jax.Array, *, train: bool
) -> tuple[jax.Array, dict, dict, tuple[jax.Array, jax.Array]]:
    """Loss of a batch {"audio": float32 (B, N)}.

    Returns:
        (loss, metrics, codebooks (moved if ``train``), (real, made) waveforms for a discriminator).
    """
    net = nnx.merge(graph, params)
    real = batch["audio"]
    z = net.encode(real)
    if train:
        codes, commitment, books = rvq_train(config.rvq, books, z, key)
    else:
        _, codes = rvq_encode(books["code"], z)
        commitment = config.rvq.commitment * jnp.mean((z - codes) ** 2)
    made = net.decode(codes)
    waveform = jnp.mean(jnp.abs(real - made))
    spectral, log_l1 = spectral_loss(real, made, config.windows, config.mels)
    metrics = {"waveform_l1": waveform, "log_mel_l1": log_l1, "commitment": commitment}
    return config.waveform * waveform + config.spectral * spectral + commitment, metrics, books, (real, made)


class SpeechTokenizer:
    """A trained speech tokenizer; numpy in, numpy out. Causal: padding at the end leaves earlier codes as they are."""

    kind = KIND

    def __init__(self, config: dict, params: dict, meta: ModelMeta, bucket: int = 64):
        self.config = dataclass_from_dict(SpeechConfig, config)
        self.bucket = bucket
        graph, template = abstract(lambda rngs: build(self.config, rngs))
        template = {"params": template, "code": jax.eval_shape(lambda: rvq_init(self.config.rvq)["code"])}
        self.params = jax.device_put(fill(template, params, meta.directory))
        self.codebook_sizes = (self.config.rvq.codes,) * self.config.rvq.levels
        self.weights_sha256 = meta.weights_sha256
        self._encode = jax.jit(lambda p, x: rvq_encode(p["code"], nnx.merge(graph, p["params"]).encode(x[None])[0])[0])
        self._decode = jax.jit(lambda p, i: nnx.merge(graph, p["params"]).decode(rvq_decode(p["code"], i)[None])[0])

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """float32 (N,) in [-1, 1] at 16 kHz -> int32 (4, ceil(N / 640))."""
        audio = np.asarray(audio)
        if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating) or not audio.size:
            raise InputError(f"speech: {audio.dtype}{audio.shape}, expected float32 (N,) in [-1, 1]")
        steps = -(-audio.size // SPEECH_HOP)
        padded = -(-steps // self.bucket) * self.bucket
        audio = np.pad(audio.astype(np.float32), (0, padded * SPEECH_HOP - audio.size))
        return np.asarray(self._encode(self.params, audio)[:, :steps])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int (levels, n) -> float32 (640 n,). Fewer levels than the tokenizer has give a coarser sound."""
        codes = np.asarray(codes, np.int32)
        steps = codes.shape[1]
        padded = -(-steps // self.bucket) * self.bucket
        audio = self._decode(self.params, np.pad(codes, [(0, 0), (0, padded - steps)], mode="edge"))
        return np.asarray(audio[: steps * SPEECH_HOP])
