"""Prefix-LM attention over packed rows, rotary positions, and attention over a cache.

Alphabet: B rows, S positions (Q queries, K keys), N query heads, M key/value heads (N = M * G), H head width.

Bidirectional over each segment's prefix and causal after it is causal attention with a bound per query:

    allowed[q, k] = k <= bound[q] and segment[k] == segment[q],   bound[q] = max(q, end of q's prefix)

A single vector per row says it all, and a fused kernel that compares a per-query number with the key's index can use it
unchanged.
"""

import jax
import jax.numpy as jnp
import numpy as np


def prefix_bounds(segments: np.ndarray, prefix: np.ndarray) -> np.ndarray:
    """Returns the last position that each position may look at.

    Two segments, the first with a prefix of 3 and 2 target tokens, the second with 2 and 1, then padding (segment 0)::

        segments  1 1 1 1 1 2 2 2 0 0
        prefix    1 1 1 0 0 1 1 0 0 0
        bounds    2 2 2 3 4 6 6 7 8 9

    Args:
        segments: int (B, S), 0 is padding.
        prefix: int (B, S), 1 in the prefix. A segment's prefix is its first tokens.

    Returns:
        int32 (B, S).
    """
    length = segments.shape[-1]
    index = np.broadcast_to(np.arange(length), segments.shape)
    inside = prefix.astype(bool)
    follows = np.zeros_like(inside)  # the next position is in the same prefix
    follows[:, :-1] = inside[:, :-1] & inside[:, 1:] & (segments[:, :-1] == segments[:, 1:])
    ends = np.where(inside & ~follows, index, length)
    nearest = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return np.where(inside, nearest, index).astype(np.int32)


def allowed(segments: jax.Array, bounds: jax.Array) -> jax.Array:
    """Returns bool (B, Q, K): which keys each query sees. Padding sees padding: no row of a softmax is empty."""
    keys = jnp.arange(segments.shape[-1])
    return (keys[None, None, :] <= bounds[:, :, None]) & (segments[:, :, None] == segments[:, None, :])


def rotate(x: jax.Array, positions: jax.Array, clock: jax.Array | None = None, base: float = 10_000.0) -> jax.Array:
    """Rotary position embedding (Su et al. 2021), the two halves of a head as real and imaginary part.

    Args:
        x: (B, S, heads, H).
        positions: int (B, S).
        clock: int (B, S), a second position; with it, every other frequency turns with this one (Wang et al. 2024,
            Qwen2-VL, has three that share the frequencies).
    """
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    turns = positions[..., None]
    if clock is not None:
        turns = jnp.where(jnp.arange(half) % 2, clock[..., None], turns)
    angle = turns.astype(jnp.float32) * frequency  # (B, S, H / 2)
    sin, cos = jnp.sin(angle)[:, :, None], jnp.cos(angle)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention, scores in float32.

    Args:
        query: (B, Q, N, H).
        key: (B, K, M, H).
        value: (B, K, M, H).
        mask: bool (B, Q, K).

    Returns:
        (B, Q, N, H).
    """
    B, Q, N, H = query.shape
    M = key.shape[2]
    grouped = query.reshape(B, Q, M, N // M, H) * H**-0.5
    scores = jnp.einsum("BQMGH,BKMH->BMGQK", grouped, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("BMGQK,BKMH->BQMGH", weights, value).reshape(B, Q, N, H)
