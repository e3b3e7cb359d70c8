"""The semantic-video tokenizer: T x 128 x 128 labels <-> (k+1) x 8 x 8 tokens of 2^10 codes, T = 4k + 1.

Labels become colours (models/labels.py), the colours go through the MAGVIT-v2 family's network with one more spatial
halving, and what comes out is read back in two ways: as RGB, which the L2 loss holds to the colours, and as logits
over the 21 classes, which the segmentation loss (cross-entropy, weight 3) trains. ``decode`` returns the class of the
largest logit: a colour between two others would else be read as a third class at every border.

Letters: B batch, T frames, H W pixels, C classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import ModelMeta, dataclass_from_dict, fill
from models.labels import COLORS, NUM_LABELS
from models.layers.module import abstract
from models.layers.quantizers import lfq_codes
from models.signals import SEMANTIC_SIZE, TIME_STRIDE
from models.tokenizers.visual import LfqLoss, VisualConfig, VisualNet, every, quantizer_loss, to_unit

KIND = "semantic"
OUTPUTS = 3 + NUM_LABELS


@dataclass(frozen=True)
class SemanticConfig:
    """The network and its loss weights.

    Attributes:
        net: ``outputs`` is RGB and a logit a class.
        segmentation: weight of the cross-entropy (3.0 in the paper).
        balance: a class with a share p of the batch's pixels weighs p^-balance, so that eyes and lips survive beside
            background and hair; 0 is plain cross-entropy.
        pixel_step: the losses look at every such row and column, from a random one on; a discriminator needs 1.
    """

    net: VisualConfig
    lfq: LfqLoss = field(default_factory=LfqLoss)
    segmentation: float = 3.0
    balance: float = 0.5
    pixel_step: int = 1


def build(config: SemanticConfig, rngs: nnx.Rngs) -> VisualNet:
    return VisualNet(config.net, rngs=rngs)


def colors(labels: jax.Array) -> jax.Array:
    """uint8 (...) -> float32 (..., 3) in [-1, 1]."""
    return to_unit(COLORS)[jnp.asarray(labels, jnp.int32)]


def loss(
    config: SemanticConfig, graph, params: dict, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict, tuple[jax.Array, jax.Array]]:
    """Loss of a batch {"labels": uint8 (B, T, H, W)}.

    Returns:
        (loss, metrics, (real, made) colours in [-1, 1], for a discriminator).
    """
    labels = jnp.asarray(batch["labels"], jnp.int32)
    real = colors(labels)
    step = config.pixel_step
    sample = (step, *jax.random.randint(key, (2,), 0, step))
    made, z = nnx.merge(graph, params).reconstruct(real, sample)
    real, truth = every(real, *sample), every(labels, *sample)
    squared = jnp.mean((made[..., :3] - real) ** 2)
    logits = made[..., 3:]
    one_hot = jax.nn.one_hot(truth, NUM_LABELS)
    share = one_hot.mean((0, 1, 2, 3))
    weight = one_hot @ jnp.where(share > 0, (share + 1e-6) ** -config.balance, 0.0)
    log_p = jnp.sum(jax.nn.log_softmax(logits) * one_hot, -1)
    segmentation = -jnp.sum(weight * log_p) / jnp.sum(weight)
    quantizer, metrics = quantizer_loss(z, config.lfq)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == truth)
    metrics = {"l2": squared, "cross_entropy": segmentation, "pixel_accuracy": accuracy, **metrics}
    return squared + config.segmentation * segmentation + quantizer, metrics, (real, made[..., :3])


def prior(clips: Iterable[np.ndarray], shift: int) -> np.ndarray:
    """Returns the start of the network's prior map: mean colours and log class frequencies, float32 (H, W, outputs).

    Args:
        clips: labels, each uint8 (T, H, W).
        shift: most pixels by which training moves an example; the frequencies are averaged over such moves.
    """
    share = np.mean([np.eye(NUM_LABELS, dtype=np.float32)[clip[::4]].mean(0) for clip in clips], 0)
    moves = [(y, x) for y in (-shift, 0, shift) for x in (-shift, 0, shift)] if shift else [(0, 0)]
    share = np.mean([np.roll(share, move, (0, 1)) for move in moves], 0)
    share = (share + share[:, ::-1]) / 2
    mean_color = share @ (COLORS.astype(np.float32) / 127.5 - 1)
    return np.concatenate([mean_color, np.log(share + 1e-3)], -1).astype(np.float32)


class SemanticTokenizer:
    """A trained semantic tokenizer; numpy in, numpy out.

    The network is causal, so a clip is padded at its end to a multiple of ``bucket`` token steps and the codes are cut:
    the same codes, and few lengths to compile.
    """

    kind = KIND

    def __init__(self, config: dict, params: dict, meta: ModelMeta, bucket: int = 16):
        self.config = dataclass_from_dict(SemanticConfig, config)
        self.bucket = bucket
        graph, template = abstract(lambda rngs: build(self.config, rngs))
        self.params = jax.device_put(fill(template, params["params"], meta.directory))
        self.codebook_sizes = (2**self.config.net.bits,)
        self.weights_sha256 = meta.weights_sha256

        def decode(params: dict, index: jax.Array) -> jax.Array:
            decoder = nnx.merge(graph, params).decoder
            features = decoder.features(lfq_codes(index[None], self.config.net.bits))

            # A step at a time: the logits of a whole clip would be gigabytes.
            def read(step: jax.Array) -> jax.Array:
                return jnp.argmax(decoder.head(step[None, None], grid=False)[0, ..., 3:], -1).astype(jnp.uint8)

            labels = jax.lax.map(read, features[0])
            return labels.reshape(-1, *labels.shape[2:])[self.config.net.patch[0] - 1 :]

        self._encode = jax.jit(lambda p, x: nnx.merge(graph, p).encode(colors(x)[None])[0])
        self._decode = jax.jit(decode)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels uint8 (T, 128, 128), T = 4k + 1 -> int32 (k+1, 8, 8)."""
        labels = np.asarray(labels)
        frames = labels.shape[0] if labels.ndim else 0
        if labels.shape[1:] != (SEMANTIC_SIZE, SEMANTIC_SIZE) or labels.dtype != np.uint8 or frames % TIME_STRIDE != 1:
            raise InputError(f"semantics: {labels.dtype}{labels.shape}, expected uint8 (4k + 1, 128, 128)")
        if labels.max() >= NUM_LABELS:
            raise InputError(f"semantics: label {labels.max()}, expected 0..{NUM_LABELS - 1}")
        steps = (frames - 1) // TIME_STRIDE + 1
        padded = -(-steps // self.bucket) * self.bucket
        labels = np.pad(labels, [(0, (padded - steps) * TIME_STRIDE), (0, 0), (0, 0)], mode="edge")
        return np.asarray(self._encode(self.params, labels)[:steps])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int (k+1, 8, 8) -> labels uint8 (4k + 1, 128, 128)."""
        codes = np.asarray(codes, np.int32)
        steps = codes.shape[0]
        padded = -(-steps // self.bucket) * self.bucket
        labels = self._decode(self.params, np.pad(codes, [(0, padded - steps), (0, 0), (0, 0)], mode="edge"))
        return np.asarray(labels[: (steps - 1) * TIME_STRIDE + 1])
