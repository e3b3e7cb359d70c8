"""Prefix-LM attention over packed rows by JAX's splash kernel (a flash attention for TPUs that skips empty blocks).

The kernel knows causal masks: key k is seen where k <= q_sequence[q]. With ``attention.prefix_bounds`` in place of the
query's own index it is the prefix-LM mask, and the kernel itself compares the segments. What it may skip is computed
here from the bounds and segments of each row, once a batch and outside the layers. ``attention.attend`` is the
reference that tests hold it to, in Pallas's interpret mode; the kernel has not run on a TPU here.

Alphabet: B rows, S positions, N query heads, M key/value heads (N = M * G), H head width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo
from jax.sharding import PartitionSpec

from models.layers.sharding import FSDP, TENSOR, current_mesh

SKIP, PARTIAL, FULL = 0, 1, 2  # what the kernel calls a block of queries and keys


def _seen(query: jax.Array, key: jax.Array) -> jax.Array:
    """The kernel's mask: the bound of a query against the index of a key."""
    return query >= key


def block_kinds(bounds: jax.Array, segments: jax.Array, block: int) -> jax.Array:
    """Says of each block of queries and keys of one row whether the kernel may skip it.

    Args:
        bounds, segments: int32 (S,).
        block: positions of a block.

    Returns:
        int32 (S / block, S / block): SKIP, PARTIAL or FULL. FULL says that the bounds hide nothing; the segments are
        compared anyway.
    """
    count = bounds.size // block
    # Segments ascend along a row; padding, segment 0, comes last.
    order = jnp.where(segments > 0, segments, jnp.iinfo(jnp.int32).max).reshape(count, block)
    low, high = order.min(1), order.max(1)
    meet = (low[:, None] <= high[None]) & (low[None] <= high[:, None])
    bound = bounds.reshape(count, block)
    first = jnp.arange(count) * block
    some = meet & (bound.max(1)[:, None] >= first[None])
    full = bound.min(1)[:, None] >= first[None] + block - 1
    return jnp.where(some, jnp.where(full, FULL, PARTIAL), SKIP)


def _next_used(kinds: jax.Array) -> jax.Array:
    """(rows, columns) -> the column of this block or, where it is skipped, of the next used one in row order."""
    count = kinds.size
    used = jnp.where(kinds.reshape(-1) != SKIP, jnp.arange(count), count)
    following = jax.lax.cummin(used, reverse=True)
    return jnp.where(following < count, following % kinds.shape[1], 0).reshape(kinds.shape)


def prefix_kernel(bounds: jax.Array, segments: jax.Array, block: int, interpret: bool = False) -> Any:
    """Builds the kernel of one row, a pytree: ``jax.vmap`` of it over (B, S) gives the kernels of a batch."""
    kinds = block_kinds(bounds, segments, block)

    def info(following: jax.Array) -> MaskInfo:
        # The three arrays lie in scarce memory.
        kind = jnp.int8 if kinds.shape[0] < 128 else jnp.int32
        return MaskInfo(following.astype(kind)[None], None, kinds.astype(kind)[None], None, bounds)

    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    return splash.SplashAttentionKernel(
        info(_next_used(kinds)),
        None,
        info(_next_used(kinds.T).T),  # the backward pass goes through the queries of one block of keys
        block_sizes=sizes,
        is_mqa=True,
        save_residuals=False,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=_seen,
        interpret=interpret,
    )


def kernels(bounds: jax.Array, segments: jax.Array, block: int, interpret: bool = False) -> Any:
    """Returns the kernels of a batch, from int32 (B, S) each.

    Args:
        block: positions that are worked on at once: a multiple of 128 that divides the row.
        interpret: run anywhere, at the speed of a test.

    Raises:
        ValueError: rows that blocks do not divide.
    """
    if bounds.shape[1] % block or block % 128:
        raise ValueError(
            f"rows of {bounds.shape[1]} positions: expected a multiple of the splash kernel's block, {block}, "
            "and that to be a multiple of 128"
        )

    def make(bounds, segments):
        return jax.vmap(lambda b, s: prefix_kernel(b, s, block, interpret))(bounds, segments)

    mesh = current_mesh()
    if mesh is None:
        return make(bounds, segments)
    rows = PartitionSpec(FSDP)
    return jax.shard_map(make, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)(bounds, segments)


def splash_attend(made: Any, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array) -> jax.Array:
    """Grouped-query attention; what ``attention.attend`` gives with the mask of ``attention.allowed``.

    On a mesh each device has its rows and its query heads. A single key/value head is on all of them; several have to
    divide among them as the query heads do.

    Args:
        made: of ``kernels``.
        query: (B, S, N, H).
        key, value: (B, S, M, H).
        segments: int32 (B, S).

    Returns:
        (B, S, N, H).
    """

    def local(made, query, key, value, segments):
        B, S, N, H = query.shape
        M = key.shape[2]
        grouped = query.reshape(B, S, M, N // M, H).transpose(0, 2, 3, 1, 4) * H**-0.5  # (B, M, G, S, H)
        key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)  # (B, M, S, H)

        def row(kernel, q, k, v, s):
            return jax.vmap(lambda q, k, v: kernel(q, k, v, splash.SegmentIds(s, s)))(q, k, v)

        mixed = jax.vmap(row)(made, grouped.astype(query.dtype), key, value, segments)
        return mixed.transpose(0, 3, 1, 2, 4).reshape(B, S, N, H)

    mesh = current_mesh()
    if mesh is None:
        return local(made, query, key, value, segments)
    parts, heads = mesh.shape[TENSOR], key.shape[2]
    if heads > 1 and heads % parts:
        raise ValueError(f"{heads} key/value heads do not divide over {parts} devices of the tensor axis")
    rows = PartitionSpec(FSDP)
    split = PartitionSpec(FSDP, None, TENSOR)
    shared = split if heads > 1 else rows
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, split, shared, shared, rows),
        out_specs=split,
        check_vma=False,
    )(made, query, key, value, segments)
