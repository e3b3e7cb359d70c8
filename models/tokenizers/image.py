"""The image tokenizer: 256x256 pixels <-> 16x16 tokens of 2^18 codes (MAGVIT-v2, lookup-free)."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import ModelMeta, dataclass_from_dict, fill
from models.layers.module import abstract
from models.signals import CROP_SIZE
from models.tokenizers.visual import LfqLoss, VisualConfig, VisualNet, quantizer_loss, to_unit

KIND = "image"


@dataclass(frozen=True)
class ImageConfig:
    """The network, and the quantizer's loss weights. Reconstruction is L2 (weight 1)."""

    net: VisualConfig
    lfq: LfqLoss = field(default_factory=lambda: LfqLoss(groups=2))


def build(config: ImageConfig, rngs: nnx.Rngs) -> VisualNet:
    return VisualNet(config.net, rngs=rngs)


def loss(config: ImageConfig, graph, params: dict, batch: dict) -> tuple[jax.Array, dict, tuple[jax.Array, jax.Array]]:
    """Loss of a batch {"image": uint8 (B, H, W, 3)}.

    Returns:
        (loss, metrics, (real, made) in [-1, 1] as videos of one frame, for a discriminator).
    """
    real = to_unit(batch["image"])[:, None]
    made, z = nnx.merge(graph, params).reconstruct(real)
    squared = jnp.mean((made - real) ** 2)
    quantizer, metrics = quantizer_loss(z, config.lfq)
    metrics = {"l2": squared, "l1_of_255": jnp.mean(jnp.abs(made - real)) * 127.5, **metrics}
    return squared + quantizer, metrics, (real, made)


class ImageTokenizer:
    """A trained image tokenizer; numpy in, numpy out."""

    kind = KIND

    def __init__(self, config: dict, params: dict, meta: ModelMeta):
        self.config = dataclass_from_dict(ImageConfig, config)
        graph, template = abstract(lambda rngs: build(self.config, rngs))
        self.params = jax.device_put(fill(template, params["params"], meta.directory))
        self.codebook_sizes = (2**self.config.net.bits,)
        self.weights_sha256 = meta.weights_sha256
        self._encode = jax.jit(lambda p, x: nnx.merge(graph, p).encode(to_unit(x)[:, None])[:, 0])
        self._decode = jax.jit(lambda p, i: nnx.merge(graph, p).decode(i[:, None])[:, 0])

    def encode(self, image: np.ndarray) -> np.ndarray:
        """uint8 (256, 256, 3) -> int32 (16, 16)."""
        if np.shape(image) != (CROP_SIZE, CROP_SIZE, 3) or np.asarray(image).dtype != np.uint8:
            raise InputError(f"image: {np.asarray(image).dtype}{np.shape(image)}, expected uint8 (256, 256, 3)")
        return np.asarray(self._encode(self.params, np.asarray(image)[None])[0])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int (16, 16) -> uint8 (256, 256, 3)."""
        pixels = np.asarray(self._decode(self.params, np.asarray(codes, np.int32)[None])[0])
        return np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
