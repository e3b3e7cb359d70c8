"""The language model's output: each target's softmax goes over the one range of ids that it can come from.

Alphabet: B rows, S positions, D width, R blocks of a row, P positions of a block, V ids of a range.

The head works on blocks of positions that share a range and reads no row of another. On a mesh every device works on
the blocks of its own rows; the rows of the large tables are split over the tensor axis, and each device says what its
share of a range comes to. All collectives stand outside the loops over blocks, so devices may have different numbers of
them.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from models.layers.sharding import FSDP, TENSOR, current_mesh, partition_of

Tables = dict[str, jax.Array]


@dataclass(frozen=True)
class HeadPlan:
    """What is fixed about the head.

    Attributes:
        classes: (table, range size) that a block can have; blocks of a row are sorted by their index here.
        reads: table -> which hidden states it takes: those of the model's width, or narrower ones of its own.
        gathered: tables whose width is split over the fsdp axis, to be gathered.
        split: tables whose rows are split over the tensor axis. Their classes' ranges are whole tables.
    """

    classes: tuple[tuple[str, int], ...]
    reads: tuple[tuple[str, str], ...]
    gathered: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    def read(self, table: str) -> str:
        return dict(self.reads)[table]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def range_cross_entropy(
    plan: HeadPlan,
    tables: Tables,
    hidden: Tables,
    positions: jax.Array,
    targets: jax.Array,
    starts: jax.Array,
    ends: jax.Array,
) -> jax.Array:
    """Negative log-likelihood of targets under the softmax of their own ranges.

    Each class has its loop, as long as a row has blocks of it: a batch without image targets runs no image block. The
    backward pass adds each block's gradient to its slice of the table in place; plain differentiation of the loop would
    write a gradient as large as the table for every block.

    Args:
        plan: see ``HeadPlan``.
        tables: the embedding, {name: (rows, D of the table)}.
        hidden: {name in plan.reads: (B, S, D of the tables that read it)}.
        positions: int32 (B, R, P), which position of its row predicts.
        targets: int32 (B, R, P), relative to the block's range.
        starts: int32 (B, R), the range's first row in its table.
        ends: int32 (B, classes), where the blocks of each class end; blocks after the last are empty.

    Returns:
        float32 (B, R, P); of no meaning in empty blocks.
    """
    return _forward(plan, tables, hidden, positions, targets, starts, ends)[0]


def _gather(plan: HeadPlan, tables: Tables, dtype) -> Tables:
    return {
        name: jax.lax.all_gather(table.astype(dtype), FSDP, axis=1, tiled=True)
        if name in plan.gathered
        else table.astype(dtype)
        for name, table in tables.items()
    }


def _over_blocks(plan: HeadPlan, ends: jax.Array, block, carry: dict, parts):
    """Runs ``block(table name, rows of a range here, row, index, part)`` over the blocks of every row.

    A loop carries the part of ``carry`` that its table needs, and no other: ``parts(table name)`` are its keys.
    """

    def row(b, carry):
        begin = jnp.int32(0)
        for c, (name, size) in enumerate(plan.classes):
            here = size // jax.lax.axis_size(TENSOR) if name in plan.split else size
            keys = parts(name)
            body = functools.partial(block, name, here, b)
            done = jax.lax.fori_loop(begin, ends[b, c], body, tuple(carry[key] for key in keys))
            carry = carry | dict(zip(keys, done, strict=True))
            begin = ends[b, c]
        return carry

    return jax.lax.fori_loop(0, ends.shape[0], row, carry)


def _block_is_split(plan: HeadPlan, ends: jax.Array, blocks: int) -> jax.Array:
    """bool (B, R, 1): which blocks' ranges are split over the tensor axis."""
    which = jnp.sum(jnp.arange(blocks)[None, :, None] >= ends[:, None, :], axis=-1)  # its class; past the last: empty
    split = jnp.array([*(name in plan.split for name, _ in plan.classes), False])
    return split[which][..., None]


def _first_id(plan: HeadPlan, name: str, here: int):
    """Which id of a range the first one on this device is."""
    return jax.lax.axis_index(TENSOR) * here if name in plan.split else 0


def _logits(table: jax.Array, hidden: jax.Array, here: int, start, at):
    """Returns (rows of the range (V, D), hidden states (P, D), float32 logits (P, V))."""
    rows = jax.lax.dynamic_slice_in_dim(table, start, here)
    x = hidden[at]
    return rows, x, jnp.einsum("PD,VD->PV", x, rows, preferred_element_type=jnp.float32)


def _forward(plan, tables, hidden, positions, targets, starts, ends):
    whole = _gather(plan, tables, jax.tree.leaves(hidden)[0].dtype)

    def block(name, here, b, i, carry):
        top, total, picked = carry
        _, _, logits = _logits(whole[name], hidden[plan.read(name)], here, starts[b, i], (b, positions[b, i]))
        most = jnp.max(logits, axis=-1)
        mine = targets[b, i] - _first_id(plan, name, here)
        found = jnp.take_along_axis(logits, jnp.clip(mine, 0, here - 1)[:, None], axis=-1)[:, 0]
        return (
            top.at[b, i].set(most),
            total.at[b, i].set(jnp.sum(jnp.exp(logits - most[:, None]), axis=-1)),
            picked.at[b, i].set(jnp.where((mine >= 0) & (mine < here), found, 0)),
        )

    zeros = jnp.zeros(targets.shape, jnp.float32)
    names = ("top", "total", "picked")
    made = _over_blocks(plan, ends, block, {"top": zeros, "total": zeros + 1, "picked": zeros}, lambda _: names)
    top, total, picked = (made[name] for name in names)
    if plan.split:
        split = _block_is_split(plan, ends, targets.shape[1])
        most = jnp.where(split, jax.lax.pmax(top, TENSOR), top)
        total = total * jnp.exp(top - most)
        total = jnp.where(split, jax.lax.psum(total, TENSOR), total)
        picked = jnp.where(split, jax.lax.psum(picked, TENSOR), picked)
        top = most
    norm = top + jnp.log(total)
    return norm - picked, (tables, hidden, positions, targets, starts, ends, norm)


def _backward(plan, saved, cotangent):
    tables, hidden, positions, targets, starts, ends, norm = saved
    dtype = jax.tree.leaves(hidden)[0].dtype
    whole = _gather(plan, tables, dtype)
    if plan.split:
        # Every device of the tensor axis gets its share of the cotangent, and what they return is summed. Of a split
        # range each has a part, and needs all of it; of any other all have the same.
        split = _block_is_split(plan, ends, targets.shape[1])
        cotangent = jnp.where(split, jax.lax.psum(cotangent, TENSOR), cotangent)

    def block(name, here, b, i, carry):
        grad_hidden, grad_table = carry
        at = (b, positions[b, i])
        rows, x, logits = _logits(whole[name], hidden[plan.read(name)], here, starts[b, i], at)
        slope = jnp.exp(logits - norm[b, i][:, None]) * cotangent[b, i][:, None]
        mine = targets[b, i] - _first_id(plan, name, here)
        mine = jnp.where((mine >= 0) & (mine < here), mine, here)  # out of bounds: dropped
        slope = slope.at[jnp.arange(slope.shape[0]), mine].add(-cotangent[b, i], mode="drop").astype(dtype)
        # A position predicts once; the empty places of a block point to position 0 and add nothing.
        grad_hidden = grad_hidden.at[at].add(jnp.einsum("PV,VD->PD", slope, rows))
        add = jnp.einsum("PV,PD->VD", slope, x, preferred_element_type=jnp.float32)
        old = jax.lax.dynamic_slice_in_dim(grad_table, starts[b, i], here)
        return grad_hidden, jax.lax.dynamic_update_slice_in_dim(grad_table, old + add, starts[b, i], 0)

    grads = {("hidden", name): jnp.zeros_like(x) for name, x in hidden.items()}
    grads |= {("table", name): jnp.zeros(table.shape, jnp.float32) for name, table in whole.items()}
    grads = _over_blocks(plan, ends, block, grads, lambda name: (("hidden", plan.read(name)), ("table", name)))
    grad_tables = {name: grads["table", name] for name in tables}
    for name in plan.gathered:
        grad_tables[name] = jax.lax.psum_scatter(grad_tables[name], FSDP, scatter_dimension=1, tiled=True)
    grad_tables = {name: grad.astype(tables[name].dtype) for name, grad in grad_tables.items()}
    return grad_tables, {name: grads["hidden", name] for name in hidden}, None, None, None, None


range_cross_entropy.defvjp(_forward, _backward)


def target_nll(
    classes: tuple[tuple[str, int], ...],
    tables: Tables,
    axes: dict[str, tuple[str, ...]],
    hidden: Tables,
    batch: dict[str, jax.Array],
) -> jax.Array:
    """``range_cross_entropy`` where the arrays lie, on one device or on a mesh.

    Args:
        classes: of ``HeadPlan``.
        tables: the embedding.
        axes: the logical axes of each table.
        hidden: "width": (B, S, D), and for a table of its own width its name: (B, S, its width).
        batch: ``head_positions``, ``head_targets``, ``head_starts``, ``head_ends``.
    """
    blocks = tuple(batch[f"head_{name}"] for name in ("positions", "targets", "starts", "ends"))
    reads = tuple((name, name if name in hidden else "width") for name in tables)
    mesh = current_mesh()
    if mesh is None:
        return range_cross_entropy(HeadPlan(classes, reads), tables, hidden, *blocks)
    lie = {name: partition_of(mesh, table.shape, axes[name]) for name, table in tables.items()}
    plan = HeadPlan(
        classes,
        reads,
        gathered=tuple(name for name, spec in lie.items() if spec[1] == FSDP),
        split=tuple(name for name, spec in lie.items() if spec[0] == TENSOR),
    )
    rows = PartitionSpec(FSDP)
    return jax.shard_map(
        lambda tables, hidden, *blocks: range_cross_entropy(plan, tables, hidden, *blocks),
        mesh=mesh,
        in_specs=(lie, dict.fromkeys(hidden, rows), rows, rows, rows, rows),
        out_specs=rows,
        check_vma=False,
    )(tables, hidden, *blocks)
