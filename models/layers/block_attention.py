"""Prefix-LM attention over packed rows in plain JAX, block by block: what no query of a block sees is never computed.

A packed row is mostly emptiness to a dense mask: an example sees itself alone. Here each block of queries goes over the
blocks of keys from the start of its first example to its furthest bound, with a running softmax, and the backward pass
makes the weights again from the norms. For processors, where the dense form's (S, S) scores do not fit the caches; on a
TPU prefix_splash.py does the same. ``attention.attend`` is the reference that tests hold it to.

Alphabet: B rows, S positions, N query heads, M key/value heads (N = M * G), H head width, n blocks of T positions.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from models.layers.sharding import FSDP, TENSOR, current_mesh

BLOCK = 64
HIDDEN = -1e30


def segment_starts(segments: jax.Array) -> jax.Array:
    """Returns int32 (B, S): where the segment of each position starts. A query sees keys from there to its bound."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return jax.lax.cummax(jnp.where(begins, index, 0), axis=1)


def block_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, starts: jax.Array, bounds: jax.Array, block: int = BLOCK
) -> jax.Array:
    """Grouped-query attention; what ``attention.attend`` gives with the mask of ``attention.allowed``.

    Args:
        query: (B, S, N, H).
        key, value: (B, S, M, H).
        starts, bounds: int32 (B, S): first and last key of each query; of ``segment_starts`` and ``prefix_bounds``.
        block: positions of a block.

    Returns:
        (B, S, N, H).
    """

    def local(query, key, value, starts, bounds):
        B, S, N, H = query.shape
        M = key.shape[2]
        T = min(block, S)
        over = -S % T
        first, last = (jnp.pad(x, ((0, 0), (0, over)), mode="edge").reshape(B, -1, T) for x in (starts, bounds))
        q, k, v = (jnp.pad(x, ((0, 0), (0, over), (0, 0), (0, 0))) for x in (query * H**-0.5, key, value))
        q = q.reshape(B, -1, T, M, N // M, H).transpose(0, 1, 3, 4, 2, 5)  # (B, n, M, G, T, H)
        k, v = (x.reshape(B, -1, T, M, H).swapaxes(2, 3) for x in (k, v))  # (B, n, M, T, H)
        mixed = _attend(q, k, v, first, last)
        return mixed.transpose(0, 1, 4, 2, 3, 5).reshape(B, S + over, N, H)[:, :S]

    mesh = current_mesh()
    if mesh is None:
        return local(query, key, value, starts, bounds)
    heads, parts = key.shape[2], mesh.shape[TENSOR]
    if heads > 1 and heads % parts:
        raise ValueError(f"{heads} key/value heads do not divide over {parts} devices of the tensor axis")
    rows, split = PartitionSpec(FSDP), PartitionSpec(FSDP, None, TENSOR)
    shared = split if heads > 1 else rows
    return jax.shard_map(
        local, mesh=mesh, in_specs=(split, shared, shared, rows, rows), out_specs=split, check_vma=False
    )(query, key, value, starts, bounds)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, first: jax.Array, last: jax.Array) -> jax.Array:
    return _forward(q, k, v, first, last)[0]


def _range(first: jax.Array, last: jax.Array, T: int) -> tuple[jax.Array, jax.Array]:
    """The blocks of keys [begin, end) that a block of queries sees some of."""
    return jnp.min(first) // T, jnp.max(last) // T + 1


def _scores(q: jax.Array, k: jax.Array, j: jax.Array, first: jax.Array, last: jax.Array) -> jax.Array:
    """float32 (M, G, T, T) of one block of queries and the j-th of keys."""
    keys = j * k.shape[-2] + jnp.arange(k.shape[-2])
    seen = (first[:, None] <= keys) & (keys <= last[:, None])
    return jnp.where(seen, jnp.einsum("MGQH,MKH->MGQK", q, k, preferred_element_type=jnp.float32), HIDDEN)


def _each_block(first: jax.Array, step, carry):
    """Runs ``step(b, i, carry)`` over the blocks of queries of every row."""
    B, n, _ = first.shape
    return jax.lax.fori_loop(0, B * n, lambda at, carry: step(at // n, at % n, carry), carry)


def _forward(q, k, v, first, last):
    B, n, M, G, T, H = q.shape

    def queries(b, i, made):
        out, norms = made

        def keys(j, sofar):
            top, total, mixed = sofar
            scores = _scores(q[b, i], k[b, j], j, first[b, i], last[b, i])
            most = jnp.maximum(top, jnp.max(scores, axis=-1))
            # A query that sees nothing of its first blocks sums up noughts of weight 1: the first real score takes
            # them away, as every query sees itself.
            weights, keep = jnp.exp(scores - most[..., None]), jnp.exp(top - most)
            add = jnp.einsum("MGQK,MKH->MGQH", weights.astype(v.dtype), v[b, j], preferred_element_type=jnp.float32)
            return most, total * keep + jnp.sum(weights, axis=-1), mixed * keep[..., None] + add

        begin, end = _range(first[b, i], last[b, i], T)
        nothing = jnp.full((M, G, T), HIDDEN), jnp.zeros((M, G, T)), jnp.zeros((M, G, T, H))
        top, total, mixed = jax.lax.fori_loop(begin, end, keys, nothing)
        out = out.at[b, i].set((mixed / total[..., None]).astype(out.dtype))
        return out, norms.at[b, i].set(top + jnp.log(total))

    out, norms = _each_block(first, queries, (jnp.zeros_like(q), jnp.zeros((B, n, M, G, T))))
    return out, (q, k, v, first, last, out, norms)


def _backward(saved, cotangent):
    q, k, v, first, last, out, norms = saved
    inner = jnp.sum(out.astype(jnp.float32) * cotangent.astype(jnp.float32), axis=-1)  # (B, n, M, G, T)

    def queries(b, i, made):
        grad_q, grad_k, grad_v = made
        here, slope = q[b, i], cotangent[b, i]

        def keys(j, sofar):
            of_q, grad_k, grad_v = sofar
            weights = jnp.exp(_scores(here, k[b, j], j, first[b, i], last[b, i]) - norms[b, i][..., None])
            toward = jnp.einsum("MGQH,MKH->MGQK", slope, v[b, j], preferred_element_type=jnp.float32)
            scores = (weights * (toward - inner[b, i][..., None])).astype(q.dtype)
            of_q = of_q + jnp.einsum("MGQK,MKH->MGQH", scores, k[b, j], preferred_element_type=jnp.float32)
            grad_k = grad_k.at[b, j].add(jnp.einsum("MGQK,MGQH->MKH", scores, here).astype(jnp.float32))
            weights = weights.astype(q.dtype)
            return of_q, grad_k, grad_v.at[b, j].add(jnp.einsum("MGQK,MGQH->MKH", weights, slope).astype(jnp.float32))

        begin, end = _range(first[b, i], last[b, i], q.shape[4])
        of_q = jnp.zeros(here.shape, jnp.float32)
        of_q, grad_k, grad_v = jax.lax.fori_loop(begin, end, keys, (of_q, grad_k, grad_v))
        return grad_q.at[b, i].set(of_q.astype(q.dtype)), grad_k, grad_v

    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    grad_q, grad_k, grad_v = _each_block(first, queries, (jnp.zeros_like(q), zeros(k.shape), zeros(v.shape)))
    return grad_q, grad_k.astype(k.dtype), grad_v.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)
