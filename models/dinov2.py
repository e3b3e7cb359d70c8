"""DINOv2 (Oquab et al. 2023; with registers: Darcet et al. 2023): the vision transformer, and its official weights.

Pre-norm blocks with layer scale, patches of 14 pixels, position embeddings that are interpolated to the picture's grid;
a SwiGLU feed-forward in the giant model, GELU elsewhere.

Letters: B pictures, H W pixels, h w grid of patches, S tokens (class, registers, then h*w patches), N heads, K head
width, D width, F hidden width.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.errors import InputError
from models.io import fill, flatten
from models.layers.module import abstract
from models.state_dicts import read_state_dict

# ImageNet's mean and deviation, which the weights expect pixels in 0..1 to be normalised with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DinoConfig:
    """Shape of the network.

    Attributes:
        width, depth, heads: D, number of blocks, N.
        patch: side of a patch in pixels.
        image: side of the pictures that the position embeddings were trained on; their grid is image / patch.
        registers: tokens between the class token and the patches.
        swiglu: the giant model's feed-forward.
        mlp_ratio: F / D before SwiGLU's two thirds.
        antialias: position embeddings are interpolated with an antialiased kernel (the models with registers).
        offset: added to the wanted grid when the interpolation's scale is computed. Meta's hub code uses 0.1 for the
            models without registers, `transformers` none.
        epsilon: of the layer norms.
    """

    width: int
    depth: int
    heads: int
    patch: int = 14
    image: int = 518
    registers: int = 0
    swiglu: bool = False
    mlp_ratio: int = 4
    antialias: bool = False
    offset: float = 0.0
    epsilon: float = 1e-6

    def __post_init__(self):
        if self.width % self.heads or self.image % self.patch:
            raise ValueError(
                f"width {self.width} must divide by {self.heads} heads, image {self.image} by {self.patch}"
            )

    @classmethod
    def small(cls) -> "DinoConfig":
        return cls(384, 12, 6)

    @classmethod
    def base(cls) -> "DinoConfig":
        return cls(768, 12, 12)

    @classmethod
    def large(cls) -> "DinoConfig":
        return cls(1024, 24, 16)

    @classmethod
    def giant(cls) -> "DinoConfig":
        return cls(1536, 40, 24, swiglu=True)

    @property
    def grid(self) -> int:
        return self.image // self.patch

    @property
    def hidden(self) -> int:
        """F: SwiGLU takes two thirds, rounded up to a multiple of 8, so that the parameters stay the same."""
        wide = self.width * self.mlp_ratio
        return (int(wide * 2 / 3) + 7) // 8 * 8 if self.swiglu else wide


def _dense(rngs: nnx.Rngs, inputs: int, outputs: int) -> nnx.Param:
    return nnx.Param(0.02 * jax.random.truncated_normal(rngs.params(), -2, 2, (inputs, outputs)))


class LayerNorm(nnx.Module):
    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...] + self.bias[...]


class Attention(nnx.Module):
    def __init__(self, config: DinoConfig, *, rngs: nnx.Rngs):
        self.heads, width = config.heads, config.width
        self.qkv_kernel, self.qkv_bias = _dense(rngs, width, 3 * width), nnx.Param(jnp.zeros(3 * width))
        self.out_kernel, self.out_bias = _dense(rngs, width, width), nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        B, S, D = x.shape
        qkv = (x @ self.qkv_kernel[...] + self.qkv_bias[...]).reshape(B, S, 3, self.heads, D // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("BQNK,BSNK->BNQS", query * (D // self.heads) ** -0.5, key)
        mixed = jnp.einsum("BNQS,BSNK->BQNK", jax.nn.softmax(scores, -1), value)
        return mixed.reshape(B, S, D) @ self.out_kernel[...] + self.out_bias[...]


class FeedForward(nnx.Module):
    def __init__(self, config: DinoConfig, *, rngs: nnx.Rngs):
        self.swiglu = config.swiglu
        inner = config.hidden * (2 if config.swiglu else 1)
        self.in_kernel, self.in_bias = _dense(rngs, config.width, inner), nnx.Param(jnp.zeros(inner))
        self.out_kernel = _dense(rngs, config.hidden, config.width)
        self.out_bias = nnx.Param(jnp.zeros(config.width))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x @ self.in_kernel[...] + self.in_bias[...]
        if self.swiglu:
            gate, up = jnp.split(x, 2, -1)
            x = jax.nn.silu(gate) * up
        else:
            x = jax.nn.gelu(x, approximate=False)
        return x @ self.out_kernel[...] + self.out_bias[...]


class Block(nnx.Module):
    def __init__(self, config: DinoConfig, *, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (LayerNorm(config.width, config.epsilon) for _ in range(2))
        self.attention, self.mlp = Attention(config, rngs=rngs), FeedForward(config, rngs=rngs)
        self.scale1, self.scale2 = nnx.Param(jnp.ones(config.width)), nnx.Param(jnp.ones(config.width))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.scale1[...] * self.attention(self.norm1(x))
        return x + self.scale2[...] * self.mlp(self.norm2(x))


class Dino(nnx.Module):
    """Pictures float32 (B, H, W, 3), normalised with MEAN and STD, H and W multiples of the patch -> tokens."""

    def __init__(self, config: DinoConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.width

        def normal(*shape):
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))

        self.patch_kernel = _dense(rngs, config.patch**2 * 3, width)
        self.patch_bias = nnx.Param(jnp.zeros(width))
        self.class_token = normal(width)
        if config.registers:
            self.register_tokens = normal(config.registers, width)
        self.positions = normal(1 + config.grid**2, width)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = LayerNorm(width, config.epsilon)

    def embed(self, pictures: jax.Array) -> jax.Array:
        config = self.config
        B, H, W, _ = pictures.shape
        p = config.patch
        if H % p or W % p:
            raise ValueError(f"a picture of {H} x {W}: expected multiples of the patch, {p}")
        h, w = H // p, W // p
        x = pictures.reshape(B, h, p, w, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, h * w, p * p * 3)
        x = x @ self.patch_kernel[...] + self.patch_bias[...]
        positions = self.positions[...]
        x = x + self._placed(positions[1:], h, w)
        first = jnp.broadcast_to(self.class_token[...] + positions[0], (B, 1, config.width))
        if config.registers:
            registers = jnp.broadcast_to(self.register_tokens[...], (B, config.registers, config.width))
            first = jnp.concatenate([first, registers], 1)
        return jnp.concatenate([first, x], 1)

    def _placed(self, positions: jax.Array, h: int, w: int) -> jax.Array:
        config, grid = self.config, self.config.grid
        if (h, w) == (grid, grid):
            return positions
        rows = bicubic_weights(grid, h, config.antialias, config.offset)
        columns = bicubic_weights(grid, w, config.antialias, config.offset)
        table = positions.reshape(grid, grid, -1)
        return jnp.einsum("yi,ijD,xj->yxD", rows, table, columns).reshape(h * w, -1)

    def features(self, pictures: jax.Array, layers: Sequence[int]) -> list[jax.Array]:
        """Returns the patch tokens after the named blocks (from 0), through the last norm: (B, h, w, D) each."""
        B, H, W, _ = pictures.shape
        x, found = self.embed(pictures), {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in layers:
                found[index] = self.norm(x)[:, 1 + self.config.registers :]
        shape = (B, H // self.config.patch, W // self.config.patch, self.config.width)
        return [found[index].reshape(shape) for index in layers]

    def __call__(self, pictures: jax.Array) -> jax.Array:
        """Returns all tokens after the last norm: (B, S, D)."""
        x = self.embed(pictures)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@functools.lru_cache(maxsize=32)
def bicubic_weights(source: int, target: int, antialias: bool = False, offset: float = 0.0) -> np.ndarray:
    """Returns the matrix (target, source) of PyTorch's bicubic interpolation along one axis, pixel centres aligned.

    Without antialiasing the kernel is Keys' with a = -0.75 and borders repeat; with it a = -0.5, the kernel widens
    where the picture shrinks, and taps beyond the border are left out.
    """
    scale = source / (target + offset)
    a, width = (-0.5, max(scale, 1.0)) if antialias else (-0.75, 1.0)

    def kernel(x):
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        return np.where(x < 1, near, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0))

    weights = np.zeros((target, source))
    for out in range(target):
        centre = (out + 0.5) * scale - 0.5
        taps = np.arange(math.floor(centre - 2 * width), math.ceil(centre + 2 * width) + 1)
        values = kernel((taps - centre) / width)
        if antialias:
            inside = (taps >= 0) & (taps < source)
            taps, values = taps[inside], values[inside] / values[inside].sum()
        np.add.at(weights[out], np.clip(taps, 0, source - 1), values)
    return weights.astype(np.float32)


# --- Official weights ---

# Name in a file -> name in Meta's files, for the two namings of `transformers`: as its hub's files have it, and as
# later versions call their modules. Queries, keys and values are joined afterwards.
_TRANSFORMERS = (
    (r"^(dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.w3."),
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    (r"\.mlp\.up_proj\.", ".mlp.w2."),
    (r"^layernorm\.", "norm."),
)
_JOINED = (("qkv", ("query", "key", "value")), ("w12", ("w1", "w2")))


def load_dino(path: str | Path, config: DinoConfig) -> dict:
    """Reads official weights into parameters of ``Dino(config)`` (nested dicts, float32).

    Args:
        path: Meta's ``dinov2_vit*_pretrain.pth``, or ``model.safetensors`` / ``pytorch_model.bin`` of `transformers`'
            Dinov2Model or Dinov2WithRegistersModel, alone or under a classifier.

    Raises:
        InputError: naming the first tensor (as the official files call it) that is missing or of another shape.
    """
    tensors = official_names(read_state_dict(path))
    _, template = abstract(lambda rngs: Dino(config, rngs=rngs))
    params = {}
    for name, leaf in flatten(template).items():
        official, layout = _official(name, config)
        shape, to_ours = _LAYOUTS[layout](tuple(leaf.shape), config)
        if official not in tensors:
            raise InputError(f"{path}: tensor {official!r} is missing, expected shape {shape}")
        value = np.asarray(tensors[official], np.float32)
        if value.shape != shape:
            raise InputError(f"{path}: tensor {official!r} has shape {value.shape}, expected {shape}")
        params[name] = np.ascontiguousarray(to_ours(value)).reshape(leaf.shape)
    return fill(template, params, path)


def official_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a `transformers` state dict to Meta's names, joins what Meta keeps joined; Meta's own stays as it is."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, replacement in _TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    for joined, parts in _JOINED:
        for name in [n for n in renamed if f".{parts[0]}." in n]:
            names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
            if all(n in renamed for n in names):
                renamed[name.replace(f".{parts[0]}.", f".{joined}.")] = np.concatenate([renamed.pop(n) for n in names])
    return renamed


_WHOLE = {
    "class_token": ("cls_token", "token"),
    "register_tokens": ("register_tokens", "batched"),
    "positions": ("pos_embed", "batched"),
    "patch_kernel": ("patch_embed.proj.weight", "patch"),
    "patch_bias": ("patch_embed.proj.bias", "same"),
    "norm.scale": ("norm.weight", "same"),
    "norm.bias": ("norm.bias", "same"),
}
_IN_BLOCK = {
    "norm1.scale": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.scale": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "scale1": "ls1.gamma",
    "scale2": "ls2.gamma",
    "attention.qkv_kernel": "attn.qkv.weight",
    "attention.qkv_bias": "attn.qkv.bias",
    "attention.out_kernel": "attn.proj.weight",
    "attention.out_bias": "attn.proj.bias",
}
# Layout -> (our shape, config) -> (the file's shape, how a value of it becomes ours).
_LAYOUTS = {
    "same": lambda shape, config: (shape, lambda x: x),
    "token": lambda shape, config: ((1, 1, *shape), lambda x: x),
    "batched": lambda shape, config: ((1, *shape), lambda x: x),
    "kernel": lambda shape, config: (shape[::-1], lambda x: x.T),
    "patch": lambda shape, config: (
        (config.width, 3, config.patch, config.patch),
        lambda x: x.transpose(2, 3, 1, 0),
    ),
}


def _official(name: str, config: DinoConfig) -> tuple[str, str]:
    """Returns the official name of a parameter of ours, and the layout that the file has it in."""
    if name in _WHOLE:
        return _WHOLE[name]
    _, index, part = name.split(".", 2)
    layer, _, kind = part.rpartition("_")
    if layer.startswith("mlp."):
        names = {"mlp.in": "w12", "mlp.out": "w3"} if config.swiglu else {"mlp.in": "fc1", "mlp.out": "fc2"}
        official = f"mlp.{names[layer]}.{'weight' if kind == 'kernel' else 'bias'}"
    else:
        official = _IN_BLOCK[part]
    return f"blocks.{index}.{official}", "kernel" if kind == "kernel" else "same"
