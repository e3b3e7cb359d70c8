"""Discriminators and losses: patches of video (MAGVIT, Open-MAGVIT2), waveforms at several scales (SoundStream).

Letters: B batch, T time, H W space, C channels, N samples.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.convolution import CausalConv1d, VideoConv
from models.layers.folding import fold_space, fold_time

Judgement = list[list[jax.Array]]  # a discriminator: its layers' features, the last one the logits of patches


@dataclass(frozen=True)
class AdversarialConfig:
    """Weights and size of the adversarial part.

    Attributes:
        weight: of the generator's loss (0.3 for semantic video in the paper, 0.1 MAGVIT image, 1 SoundStream).
        feature_weight: of the distance between the features of the real and the made (100 in SoundStream, else 0).
        width: channels of the first layer.
        layers: strided layers.
        start: the generator's step at which its adversarial loss begins; the discriminator learns from the start.
        peak: learning rate of the discriminator.
    """

    weight: float
    feature_weight: float = 0.0
    width: int = 32
    layers: int = 3
    start: int = 0
    peak: float = 1e-4


class PatchDiscriminator(nnx.Module):
    """Patch logits of a video (B, T, H, W, C), each from a few frames: the temporal patch discriminator."""

    def __init__(self, config: AdversarialConfig, channels: int, time_kernel: int, *, rngs: nnx.Rngs):
        widths = [config.width * min(2**i, 8) for i in range(config.layers)]
        inputs = [channels, *widths[:-1]]
        self.layers = nnx.List(
            [VideoConv(4 * a, b, time_kernel=time_kernel, rngs=rngs) for a, b in zip(inputs, widths, strict=True)]
        )
        self.out = VideoConv(widths[-1], 1, time_kernel=1, rngs=rngs)

    def __call__(self, x: jax.Array) -> Judgement:
        features = []
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(fold_space(x, 2)), 0.2)
            features.append(x)
        return [[*features, self.out(x)]]


class WaveDiscriminator(nnx.Module):
    """Logits of a waveform (B, N) at the rates 1, 1/2 and 1/4 (SoundStream, section III-D)."""

    def __init__(self, config: AdversarialConfig, *, rngs: nnx.Rngs):
        widths = [config.width * min(2**i, 16) for i in range(config.layers)]
        inputs = [config.width, *widths[:-1]]
        self.scales = nnx.List(
            [
                nnx.List(
                    [CausalConv1d(1, config.width, 15, rngs=rngs)]
                    + [CausalConv1d(4 * a, b, 11, rngs=rngs) for a, b in zip(inputs, widths, strict=True)]
                    + [CausalConv1d(widths[-1], 1, 3, rngs=rngs)]
                )
                for _ in range(3)
            ]
        )

    def __call__(self, x: jax.Array) -> Judgement:
        judgements = []
        for power, scale in enumerate(self.scales):
            rate = 2**power
            y = x[:, : x.shape[1] // rate * rate].reshape(x.shape[0], -1, rate).mean(-1)[..., None]
            features = []
            for number, layer in enumerate(scale):
                if 0 < number < len(scale) - 1:
                    y = fold_time(y[:, : y.shape[1] // 4 * 4], 4, grid=False)
                y = layer(y)
                if number < len(scale) - 1:
                    y = jax.nn.leaky_relu(y, 0.2)
                features.append(y)
            judgements.append(features)
        return judgements


def generator_loss(real: Judgement, fake: Judgement) -> tuple[jax.Array, jax.Array]:
    """Returns (hinge loss of the generator, mean L1 distance of features; SoundStream, equations 2 and 3)."""
    hinge = jnp.mean(jnp.stack([jnp.mean(jax.nn.relu(1 - scale[-1])) for scale in fake]))
    distances = [
        jnp.mean(jnp.abs(jax.lax.stop_gradient(a) - b))
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r[:-1], f[:-1], strict=True)
    ]
    return hinge, jnp.mean(jnp.stack(distances))


def discriminator_loss(real: Judgement, fake: Judgement) -> jax.Array:
    """Hinge loss of the discriminator."""
    return jnp.mean(
        jnp.stack(
            [
                jnp.mean(jax.nn.relu(1 - r[-1])) + jnp.mean(jax.nn.relu(1 + f[-1]))
                for r, f in zip(real, fake, strict=True)
            ]
        )
    )
