"""The 21-class segmenter: the whole crop by a small U-Net or by DINOv2 and a head, its details by another U-Net.

Classes such as pupil, lashes and teeth are a few pixels large in a crop of a whole head. So the network sees the crop,
and beside it windows that landmarks place (ears, eyes, and mouth with nostrils; of two the second one mirrored), each
with its own output; ``pipelines/stages/segment_network.py`` cuts the windows and puts the outputs together.

A target is a set of classes, as bits: a label source that cannot tell two classes apart says "one of these", and one
that knows nothing about a pixel says "any". The loss is the negative log of the set's summed probability.

Letters: B pictures, R windows of a picture, H W pixels, S side of a map, C channels, K classes, L blocks of DINOv2.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.dinov2 import MEAN, STD, Dino, DinoConfig
from models.errors import InputError
from models.io import ModelMeta, dataclass_from_dict, fill, load_model, save_model
from models.labels import LABELS_VERSION, NUM_LABELS
from models.layers.folding import fold_space, unfold_space
from models.layers.module import abstract
from models.layers.norms import FrameGroupNorm
from models.signals import CROP_SIZE

KIND = "segmenter"
# Side of the whole picture's logits and of a detail window, in and out.
MAP_SIZE, DETAIL_SIZE = 128, 64
# What each window shows; the second of a pair is mirrored, so both are of one kind.
WINDOWS = ("ear", "ear", "eye", "eye", "mouth")

EMBEDDED = Path(__file__).parent / "embedded" / "segmenter"


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net: ``widths`` channels a level, residual blocks ``down`` and ``up`` a level.

    The deepest level has ``down[-1]`` blocks and no way up, so ``up`` is one shorter. ``patch`` pixels are folded into
    channels at the input and ``unfold`` unfolded at the output: thin layers on many pixels are slow on a CPU.
    """

    widths: tuple[int, ...]
    down: tuple[int, ...]
    up: tuple[int, ...]
    patch: int
    unfold: int
    groups: int = 8


@dataclass(frozen=True)
class CompactConfig:
    """The segmenter that runs on a CPU: two U-Nets."""

    whole: UNetConfig = UNetConfig((32, 64, 96, 160), (1, 2, 2, 1), (1, 1, 1), patch=4, unfold=2)
    details: UNetConfig = UNetConfig((40, 64, 96), (1, 1, 1), (1, 1), patch=2, unfold=2)
    backbone: str = "compact"


@dataclass(frozen=True)
class DinoSegmenterConfig:
    """DINOv2 under a multi-layer head.

    Attributes:
        dino: the backbone.
        layers: the blocks whose features the head reads.
        width: channels of the head.
        picture: side that the crop is resized to for the backbone, a multiple of its patch.
        details: the net of the windows.
    """

    dino: DinoConfig = field(default_factory=DinoConfig.base)
    layers: tuple[int, ...] = (2, 5, 8, 11)
    width: int = 256
    picture: int = 448
    details: UNetConfig = UNetConfig((64, 128, 192), (2, 2, 2), (2, 2), patch=2, unfold=2)
    backbone: str = "dinov2"


CONFIGS = {"compact": CompactConfig, "dinov2": DinoSegmenterConfig}
SegmenterConfig = CompactConfig | DinoSegmenterConfig


class Conv(nnx.Module):
    """Convolution of pictures, (B, H, W, I) -> (B, H, W, O)."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, *, gain: float = 1.0, rngs: nnx.Rngs):
        shape = (side, side, inputs, outputs)
        start = rngs.normal(shape) * math.sqrt(gain / math.prod(shape[:-1])) if gain else jnp.zeros(shape)
        self.kernel = nnx.Param(start)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        if kernel.shape[0] == 1:
            return x @ kernel[0, 0] + self.bias[...]
        return (
            jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            + self.bias[...]
        )


class Norm(nnx.Module):
    def __init__(self, width: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = FrameGroupNorm(width, groups, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(x[:, None])[:, 0]


class Block(nnx.Module):
    """Norm, two convolutions, beside the identity."""

    def __init__(self, width: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = Norm(width, groups, rngs=rngs)
        self.conv1 = Conv(width, width, gain=2.0, rngs=rngs)
        self.conv2 = Conv(width, width, gain=0.0, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv2(jax.nn.relu(self.conv1(self.norm(x))))


class UNet(nnx.Module):
    """(B, H, W, 3) in -1..1, and a kind of picture each (B,) -> logits (B, unfold * H / patch, ..., K)."""

    def __init__(self, config: UNetConfig, kinds: int = 1, *, rngs: nnx.Rngs):
        self.config = config
        w, g = config.widths, config.groups
        # Two more planes say where a pixel is.
        self.stem = Conv(3 * config.patch**2 + 2, w[0], gain=2.0, rngs=rngs)
        self.kinds = nnx.Param(jnp.zeros((kinds, w[0])))

        def blocks(width, count):
            return nnx.List([Block(width, g, rngs=rngs) for _ in range(count)])

        self.down = nnx.List([blocks(a, n) for a, n in zip(w, config.down, strict=True)])
        self.shrink = nnx.List([Conv(4 * a, b, 1, rngs=rngs) for a, b in zip(w[:-1], w[1:], strict=True)])
        self.grow = nnx.List([Conv(b, 4 * a, 1, rngs=rngs) for a, b in zip(w[:-1], w[1:], strict=True)])
        self.up = nnx.List([blocks(a, n) for a, n in zip(w[:-1], config.up, strict=True)])
        self.norm = Norm(w[0], g, rngs=rngs)
        self.out = Conv(w[0], NUM_LABELS * config.unfold**2, 1, rngs=rngs)

    def __call__(self, x: jax.Array, kind: jax.Array) -> jax.Array:
        x = _fold(x, self.config.patch)
        B, H, W, _ = x.shape
        rows, columns = (jnp.linspace(-1, 1, n) for n in (H, W))
        place = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1)
        x = jnp.concatenate([x, jnp.broadcast_to(place, (B, H, W, 2))], -1)
        x = self.stem(x) + self.kinds[...][kind][:, None, None]
        kept = []
        for level, blocks in enumerate(self.down):
            if level:
                kept.append(x)
                x = self.shrink[level - 1](_fold(x, 2))
            for block in blocks:
                x = block(x)
        for level in reversed(range(len(self.up))):
            x = kept[level] + _unfold(self.grow[level](x), 2)
            for block in self.up[level]:
                x = block(x)
        return _unfold(self.out(jax.nn.relu(self.norm(x))), self.config.unfold)


def _fold(x: jax.Array, side: int) -> jax.Array:
    return fold_space(x[:, None], side)[:, 0]


def _unfold(x: jax.Array, side: int) -> jax.Array:
    return unfold_space(x[:, None], side)[:, 0]


class DinoHead(nnx.Module):
    """Features of L blocks and the picture itself -> logits (B, S, S, K).

    Each block's features get a projection of their own and a share of the sum (what the shallow blocks know of edges,
    the deep ones of parts); the sum is doubled in size until it has the map's; the pixels are added at the end.
    """

    def __init__(self, config: DinoSegmenterConfig, *, rngs: nnx.Rngs):
        width, groups = config.width, 8
        self.project = nnx.List([Conv(config.dino.width, width, 1, rngs=rngs) for _ in config.layers])
        self.fuse = Block(width, groups, rngs=rngs)
        grid = config.picture // config.dino.patch
        widths = [width]
        while grid < MAP_SIZE:
            grid, widths = 2 * grid, [*widths, max(widths[-1] // 2, 32)]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.grow = nnx.List([Conv(a, 4 * b, 1, rngs=rngs) for a, b in pairs])
        self.blocks = nnx.List([Block(b, groups, rngs=rngs) for _, b in pairs])
        self.pixels = Conv(3 * (CROP_SIZE // MAP_SIZE) ** 2, widths[-1], rngs=rngs)
        self.refine = Block(widths[-1], groups, rngs=rngs)
        self.norm = Norm(widths[-1], groups, rngs=rngs)
        self.out = Conv(widths[-1], NUM_LABELS, 1, rngs=rngs)

    def __call__(self, features: Sequence[jax.Array], pictures: jax.Array) -> jax.Array:
        x = sum(project(f) for project, f in zip(self.project, features, strict=True)) / len(features)
        x = self.fuse(x)
        for grow, block in zip(self.grow, self.blocks, strict=True):
            x = block(_unfold(grow(x), 2))
        if x.shape[1] != MAP_SIZE:
            x = jax.image.resize(x, (x.shape[0], MAP_SIZE, MAP_SIZE, x.shape[3]), "linear")
        x = self.refine(x + self.pixels(_fold(pictures, CROP_SIZE // MAP_SIZE)))
        return self.out(jax.nn.relu(self.norm(x)))


class Segmenter(nnx.Module):
    """The network of either config."""

    def __init__(self, config: SegmenterConfig, *, rngs: nnx.Rngs):
        self.config = config
        if isinstance(config, DinoSegmenterConfig):
            self.backbone = Dino(config.dino, rngs=rngs)
            self.head = DinoHead(config, rngs=rngs)
        else:
            self.whole = UNet(config.whole, rngs=rngs)
        self.details = UNet(config.details, kinds=len(set(WINDOWS)), rngs=rngs)

    def map(self, pictures: jax.Array) -> jax.Array:
        """The whole crop: uint8 (B, 256, 256, 3) -> logits (B, 128, 128, K)."""
        x = _unit(pictures)
        if not isinstance(self.config, DinoSegmenterConfig):
            return self.whole(x, jnp.zeros(len(x), jnp.int32))
        side = self.config.picture
        seen = jax.image.resize(x, (len(x), side, side, 3), "cubic", antialias=True)
        seen = ((seen + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)
        return self.head(self.backbone.features(seen, self.config.layers), x)

    def windows(self, windows: jax.Array) -> jax.Array:
        """The windows of WINDOWS: uint8 (B, R, 64, 64, 3) -> logits (B, R, 64, 64, K)."""
        B, R, H, W, C = windows.shape
        names = sorted(set(WINDOWS))
        kind = jnp.tile(jnp.array([names.index(name) for name in WINDOWS]), B)
        out = self.details(_unit(windows.reshape(B * R, H, W, C)), kind)
        return out.reshape(B, R, *out.shape[1:])

    def __call__(self, pictures: jax.Array, windows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.map(pictures), self.windows(windows)


def _unit(pixels: jax.Array) -> jax.Array:
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1


def build(config: SegmenterConfig, rngs: nnx.Rngs) -> Segmenter:
    return Segmenter(config, rngs=rngs)


# --- Loss -------------------------------------------------------------------------------------------------------------


def _members(sets: jax.Array) -> jax.Array:
    """uint32 (...) -> bool (..., K)."""
    return (sets[..., None] >> jnp.arange(NUM_LABELS, dtype=jnp.uint32)) & 1 > 0


def set_loss(logits: jax.Array, sets: jax.Array, class_weights: jax.Array, dice: float) -> jax.Array:
    """Negative log of each pixel's set's probability, plus a soft Dice term over the pixels whose class is known.

    Args:
        logits: (..., K).
        sets: uint32 (...), the classes that the pixel may be; EVERY_LABEL says nothing and costs nothing.
        class_weights: (K,), of a pixel of a known class; a pixel of several counts 1.
        dice: weight of the Dice term: its mean over the classes that occur makes rare classes count like common ones.
    """
    logits = logits.astype(jnp.float32)
    members = _members(sets)
    count = members.sum(-1)
    logs = jax.nn.log_softmax(logits, -1)
    missing = -jax.nn.logsumexp(jnp.where(members, logs, -1e9), -1)
    known, informed = count == 1, count < NUM_LABELS
    one = members & known[..., None]
    weight = jnp.where(known, (one * class_weights).sum(-1), 1.0) * informed
    loss = (weight * missing).sum() / jnp.maximum(weight.sum(), 1.0)
    if not dice:
        return loss
    share = jnp.exp(logs) * known[..., None]
    axes = tuple(range(logits.ndim - 1))
    both, real, made = (share * one).sum(axes), one.sum(axes), share.sum(axes)
    there = real > 0
    score = 1 - (2 * both + 1) / (real + made + 1)
    return loss + dice * (score * there).sum() / jnp.maximum(there.sum(), 1)


def agreement(logits: jax.Array, sets: jax.Array) -> dict[str, jax.Array]:
    """Over the pixels whose class is known: mean IoU of the classes that occur, and the share of right pixels."""
    members = _members(sets)
    known = (members.sum(-1) == 1).reshape(-1)
    truth, made = members.argmax(-1).reshape(-1), logits.argmax(-1).reshape(-1)
    table = jnp.zeros((NUM_LABELS, NUM_LABELS)).at[truth, made].add(known.astype(jnp.float32))
    both, there = jnp.diagonal(table), table.sum(1) > 0
    iou = both / jnp.maximum(table.sum(0) + table.sum(1) - both, 1)
    return {"miou": (iou * there).sum() / jnp.maximum(there.sum(), 1), "right": both.sum() / table.sum()}


# --- On disk ----------------------------------------------------------------------------------------------------------


def save_segmenter(directory: Path | str, config: SegmenterConfig, params: dict, extra: dict | None = None) -> str:
    """Writes a segmenter, its arrays as float16; returns the weights' sha256."""
    half = jax.tree.map(lambda x: np.asarray(x).astype(np.float16), params)
    return save_model(directory, KIND, config, {"params": half}, {"labels_version": LABELS_VERSION, **(extra or {})})


def load_segmenter(directory: Path | str) -> tuple[SegmenterConfig, dict, ModelMeta]:
    """Reads a segmenter: its config, parameters as float32 and meta.

    Raises:
        InputError: the directory holds no segmenter, a damaged one, or one of another label table.
    """
    kind, values, params, meta = load_model(directory)
    if kind != KIND:
        raise InputError(f"{directory}: a model of kind {kind!r}, expected {KIND!r}")
    if meta.extra.get("labels_version") != LABELS_VERSION:
        raise InputError(
            f"{directory}: labels_version {meta.extra.get('labels_version')}, expected {LABELS_VERSION}: train it again"
        )
    if values.get("backbone") not in CONFIGS:
        raise InputError(f"{directory}: backbone {values.get('backbone')!r}, expected one of {', '.join(CONFIGS)}")
    config = dataclass_from_dict(CONFIGS[values["backbone"]], values)
    _, template = abstract(functools.partial(build, config))
    params = fill(template, params.get("params", {}), directory)
    return config, jax.tree.map(lambda x: np.asarray(x, np.float32), params), meta


def segmenter_sha256(directory: Path | str | None = None) -> str:
    """Returns the checksum of a segmenter's weights (None: the embedded one's), without loading them.

    Raises:
        InputError: the directory holds no model.
    """
    path = Path(directory or EMBEDDED) / "model.json"
    try:
        return json.loads(path.read_text())["weights_sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected a segmenter that `archon train segmenter` left ({error!r})") from error


class SegmenterModel:
    """A trained segmenter, ready to run: ``map`` and ``windows`` give probabilities, one plane a class (what is
    done with them afterwards is many times faster on planes), numpy in and out.

    Args:
        directory: a model that ``archon train segmenter`` left; None is the embedded one.
    """

    def __init__(self, directory: Path | str | None = None):
        self.directory = Path(directory) if directory is not None else EMBEDDED
        self.config, params, meta = load_segmenter(self.directory)
        self.meta = meta
        graph, _ = abstract(functools.partial(build, self.config))
        self._params = jax.tree.map(jnp.asarray, params)

        @jax.jit
        def whole(params, pictures):
            return jnp.moveaxis(jax.nn.softmax(nnx.merge(graph, params).map(pictures), -1), -1, 1)

        @jax.jit
        def windows(params, pictures):
            return jnp.moveaxis(jax.nn.softmax(nnx.merge(graph, params).windows(pictures), -1), -1, 2)

        self._whole, self._windows = whole, windows

    def facts(self) -> dict:
        """What a model card says of it: what, weights_sha256, parameters, and what training noted."""
        what = {
            "compact": "two small U-Nets, one for the crop and one for windows on ears, eyes and mouth",
            "dinov2": "DINOv2 under a multi-layer head, and a U-Net for windows on ears, eyes and mouth",
        }[self.config.backbone]
        count = sum(leaf.size for leaf in jax.tree.leaves(self._params))
        return {"what": what, "weights_sha256": self.meta.weights_sha256, "parameters": count, **self.meta.extra}

    def map(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (B, 256, 256, 3) -> float32 (B, K, 128, 128)."""
        return np.asarray(self._whole(self._params, pictures))

    def windows(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (B, R, 64, 64, 3) -> float32 (B, R, K, 64, 64)."""
        return np.asarray(self._windows(self._params, windows))
