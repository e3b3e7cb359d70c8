"""Windowed attention over a latent video, modulated by a condition vector: the blocks of the diffusion decoder (WALT).

A block pair is a spatial block (windows of one step; the keys are the window's tokens and the condition's tokens) and a
spatiotemporal block (windows of all steps and a smaller square). Queries and keys are normalised. The modulation is
AdaLN-LoRA: one projection of the condition vector for all blocks, and a low-rank correction for each.

Letters: B batch, K steps, h w token grid, S condition tokens, N tokens of a window, M keys, D width, H heads, E width
of a head.
"""

import jax
import jax.numpy as jnp
from flax import nnx

MODULATIONS = 6  # shift, scale and gate, for the attention and for the MLP


def to_windows(x: jax.Array, side: int, steps: int) -> jax.Array:
    """(B, K, h, w, D) -> (B, windows, N = steps * side * side, D); windows tile the video."""
    b, k, h, w, d = x.shape
    x = x.reshape(b, k // steps, steps, h // side, side, w // side, side, d)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, steps * side * side, d)


def from_windows(x: jax.Array, shape: tuple[int, ...], side: int, steps: int) -> jax.Array:
    """The inverse of ``to_windows``; ``shape`` is (B, K, h, w, D)."""
    b, k, h, w, d = shape
    x = x.reshape(b, k // steps, h // side, w // side, steps, side, side, d)
    return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Scaled dot-product attention.

    Args:
        q: (B, W, N, H, E) queries, normalised.
        k: (B, W, M, H, E) keys, normalised.
        v: (B, W, M, H, E) values.
        mask: bool (B, M), which keys exist; None for all.

    Returns:
        (B, W, N, H, E).
    """
    scores = jnp.einsum("bwnhe,bwmhe->bwhnm", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None, None, :], scores, -1e9)
    return jnp.einsum("bwhnm,bwmhe->bwnhe", jax.nn.softmax(scores, axis=-1), v)


class WindowBlock(nnx.Module):
    """Attention within windows (and to the condition's tokens, if ``condition_width`` is given), then an MLP."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: int,
        rank: int,
        condition_width: int | None = None,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.norm1 = nnx.LayerNorm(width, use_bias=False, use_scale=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, use_bias=False, use_scale=False, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.query_norm = nnx.RMSNorm(width // heads, rngs=rngs)
        self.key_norm = nnx.RMSNorm(width // heads, rngs=rngs)
        self.up = nnx.Linear(width, mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(mlp_ratio * width, width, rngs=rngs)
        self.lora_in = nnx.Linear(width, rank, use_bias=False, rngs=rngs)
        self.lora_out = nnx.Linear(rank, MODULATIONS * width, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        if condition_width is not None:
            self.condition_kv = nnx.Linear(condition_width, 2 * width, use_bias=False, rngs=rngs)
            self.condition_norm = nnx.RMSNorm(width // heads, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        vector: jax.Array,
        modulation: jax.Array,
        *,
        side: int,
        steps: int,
        condition: jax.Array | None = None,
        condition_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the block's output.

        Args:
            x: (B, K, h, w, D).
            vector: (B, D) condition vector (time step and pooled conditions), after its nonlinearity.
            modulation: (B, MODULATIONS * D) of all blocks; this one adds its own correction.
            side, steps: the windows' size.
            condition: (B, S, C) tokens to attend to beside the window's.
            condition_mask: bool (B, S), which of them exist.
        """
        modulation = modulation + self.lora_out(self.lora_in(vector))
        parts = jnp.split(modulation[:, None, None, None, :], MODULATIONS, axis=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        h = to_windows(self.norm1(x) * (1 + scale1) + shift1, side, steps)
        b, windows, n, d = h.shape
        q, k, v = jnp.split(self.qkv(h).reshape(b, windows, n, 3 * self.heads, d // self.heads), 3, axis=3)
        q, k, mask = self.query_norm(q), self.key_norm(k), None
        if condition is not None:
            s = condition.shape[1]
            ck, cv = jnp.split(self.condition_kv(condition).reshape(b, 1, s, 2 * self.heads, -1), 2, axis=3)
            spread = (b, windows, *ck.shape[2:])
            k = jnp.concatenate([k, jnp.broadcast_to(self.condition_norm(ck), spread)], axis=2)
            v = jnp.concatenate([v, jnp.broadcast_to(cv, spread)], axis=2)
            mask = jnp.concatenate([jnp.ones((b, n), bool), condition_mask], axis=1)
        h = self.out(attend(q, k, v, mask).reshape(b, windows, n, d))
        x = x + gate1 * from_windows(h, x.shape, side, steps)
        h = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(jax.nn.gelu(self.up(h)))


class BlockPair(nnx.Module):
    """A spatial block with the condition's tokens, then a spatiotemporal block."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: int, rank: int, condition_width: int, rngs: nnx.Rngs):
        sizes = {"mlp_ratio": mlp_ratio, "rank": rank, "rngs": rngs}
        self.spatial = WindowBlock(width, heads, condition_width=condition_width, **sizes)
        self.spatiotemporal = WindowBlock(width, heads, **sizes)
