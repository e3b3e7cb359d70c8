"""Lookup-free quantization (MAGVIT-v2) and residual vector quantization (SoundStream), as pure functions.

Letters: B batch, N vectors, K bits (LFQ) or codes a codebook (RVQ), D channels, L levels.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

# --- Lookup-free quantization -----------------------------------------------------------------------------------------


def lfq(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signs of z, float (..., K): returns (codes in {-1, +1} (..., K), index = sum_k 2^k [z_k > 0], int32 (...)).

    The gradient of the codes passes straight to z (MAGVIT-v2, section 3.1; no activation before the sign).
    """
    bits = z > 0
    codes = jnp.where(bits, 1.0, -1.0).astype(z.dtype)
    index = jnp.einsum("...k,k->...", bits.astype(jnp.int32), 2 ** jnp.arange(z.shape[-1], dtype=jnp.int32))
    return z + jax.lax.stop_gradient(codes - z), index


def lfq_codes(index: jax.Array, bits: int) -> jax.Array:
    """Inverse of ``lfq``'s index: int (...) -> float32 (..., K) in {-1, +1}."""
    return ((index[..., None] >> jnp.arange(bits)) & 1).astype(jnp.float32) * 2 - 1


def lfq_commitment(z: jax.Array) -> jax.Array:
    """Mean squared distance of z to its code (the encoder's side of the VQ-VAE loss)."""
    return jnp.mean((z - jax.lax.stop_gradient(jnp.where(z > 0, 1.0, -1.0))) ** 2)


def lfq_entropy(z: jax.Array, groups: int, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Entropies of softmax(-|z - c|^2 / temperature) over the joint codebook of each group of bits, in nats a group.

    Args:
        z: float (..., K).
        groups: K splits into this many groups (2 x 9 bits for the image tokenizer, as Open-MAGVIT2 does).
        temperature: 0.01 in MAGVIT.

    Returns:
        (mean entropy of one vector, entropy of the mean distribution); the loss is their difference.
    """
    bits = z.shape[-1] // groups
    if bits * groups != z.shape[-1]:
        raise ValueError(f"{z.shape[-1]} bits do not divide into {groups} groups")
    z = z.reshape(-1, groups, bits)  # (N, G, k)
    codes = lfq_codes(jnp.arange(2**bits), bits)  # (2^k, k)
    # |z - c|^2 = |z|^2 + k - 2 z.c, and the first two are the same for every code.
    logits = 2 * jnp.einsum("ngk,ck->ngc", z, codes) / temperature
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    single = -jnp.sum(p * log_p, -1).mean()
    mean = p.mean(0)
    together = -jnp.sum(mean * jnp.log(mean + 1e-9), -1).mean()
    return single, together


# --- Residual vector quantization -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RvqConfig:
    """Codebooks learned as moving averages (SoundStream, section III-C).

    Attributes:
        levels: L.
        codes: codes a level.
        channels: D.
        decay: of the moving averages.
        dead_below: a code whose average count a step is lower is replaced by a vector of the batch.
        commitment: weight of the encoder's pull to its code.
        used: most codes of a level that are learned; 0 is all. A small data set has fewer vectors than a large codebook
            has codes, and where nearly every vector has a code of its own, a model of the codes has nothing to count.
            The rest are copies of these: never chosen, as the first of equal codes is, and harmless where drawn.
    """

    levels: int
    codes: int
    channels: int
    decay: float = 0.99
    dead_below: float = 2.0
    commitment: float = 0.25
    used: int = 0

    @property
    def learned(self) -> int:
        """How many codes of a level are."""
        return min(self.used, self.codes) or self.codes


def rvq_init(config: RvqConfig) -> dict[str, jax.Array]:
    """Returns codebooks that wait for the first batch: code (L, K, D), count (L, K), total (L, K, D), ready ()."""
    shape = (config.levels, config.codes)
    return {
        "code": jnp.zeros((*shape, config.channels)),
        "count": jnp.zeros(shape),
        "total": jnp.zeros((*shape, config.channels)),
        "ready": jnp.zeros((), jnp.int32),
    }


def rvq_encode(code: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quantizes level by level, each what the levels before left.

    Args:
        code: float (L, K, D).
        z: float (..., D).

    Returns:
        (index int32 (L, ...), sum of the chosen codes (..., D)).
    """
    flat = z.reshape(-1, z.shape[-1])

    def one_level(residual: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = nearest(level, residual)
        return residual - level[index], index

    residual, indices = jax.lax.scan(one_level, flat, code)
    return indices.reshape(code.shape[0], *z.shape[:-1]), (flat - residual).reshape(z.shape)


def rvq_decode(code: jax.Array, index: jax.Array) -> jax.Array:
    """Sums codes: index int (L, ...) -> float (..., D). Fewer levels than the codebook has are a coarser decoding."""
    return sum(code[level][index[level]] for level in range(index.shape[0]))


def nearest(code: jax.Array, x: jax.Array) -> jax.Array:
    """Index of the nearest code, (K, D), (N, D) -> int32 (N,)."""
    distance = jnp.sum(code**2, -1) - 2 * jnp.einsum("nd,kd->nk", x, code)
    return jnp.argmin(distance, -1).astype(jnp.int32)


def rvq_train(
    config: RvqConfig, books: dict[str, jax.Array], z: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Quantizes a training batch and moves the codebooks.

    On the first batch every code starts at a vector that the level has to quantize (as k-means is seeded), and after it
    a code that is hardly used is moved to one again, so no level collapses.

    Args:
        books: from ``rvq_init`` or an earlier call.
        z: float (..., D).

    Returns:
        (codes with the gradient passed straight to z (..., D), commitment loss, the moved codebooks).
    """
    flat = z.reshape(-1, z.shape[-1])
    fixed = jax.lax.stop_gradient(flat)
    fresh = books["ready"] == 0
    used = config.learned
    average = fixed.shape[0] / used
    shape = (config.levels, used)
    picks = jax.random.randint(jax.random.fold_in(key, 0), shape, 0, fixed.shape[0])
    noise = jax.random.normal(jax.random.fold_in(key, 1), (*shape, config.channels))

    # Every level is the same computation, so it is compiled once.
    def one_level(carry: tuple, level: dict) -> tuple[tuple, dict]:
        residual, quantized = carry
        # Codes that start at one vector would tie for ever, hence the noise.
        spread = 1e-2 * jnp.std(residual) + 1e-6
        spare = residual[level["pick"]] + spread * level["noise"]
        code = jnp.where(fresh, spare, level["code"])
        count = jnp.where(fresh, average, level["count"])
        total = jnp.where(fresh, spare * average, level["total"])
        index = nearest(code, residual)
        chosen_by = jnp.zeros(used).at[index].add(1.0)
        sums = jnp.zeros_like(total).at[index].add(residual)
        count = config.decay * count + (1 - config.decay) * chosen_by
        total = config.decay * total + (1 - config.decay) * sums
        dead = count < config.dead_below
        count = jnp.where(dead, jnp.maximum(average, config.dead_below), count)
        total = jnp.where(dead[:, None], spare * count[:, None], total)
        chosen = code[index]
        moved = {"code": total / count[:, None], "count": count, "total": total}
        return (residual - chosen, quantized + chosen), moved

    levels = {name: books[name][:, :used] for name in ("code", "count", "total")} | {"pick": picks, "noise": noise}
    (_, quantized), moved = jax.lax.scan(one_level, (fixed, jnp.zeros_like(fixed)), levels)
    if used < config.codes:
        moved = {name: array[:, jnp.arange(config.codes) % used] for name, array in moved.items()}
    commitment = config.commitment * jnp.mean((flat - quantized) ** 2)
    out = flat + jax.lax.stop_gradient(quantized - flat)
    return out.reshape(z.shape), commitment, {**moved, "ready": jnp.ones((), jnp.int32)}


def perplexity(index: np.ndarray, codes: int) -> float:
    """Exponential of the entropy of the used codes: how many are in use, were they used alike."""
    p = np.bincount(np.asarray(index).ravel(), minlength=codes) / np.size(index)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))
