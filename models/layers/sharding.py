"""Where arrays lie on a mesh of devices: one table of rules, from what an axis of an array is to an axis of the mesh.

The mesh has two axes. ``fsdp``: every device has its own rows of the batch, and a share of every parameter, which is
gathered where it is used. ``tensor``: devices share rows of the batch, and split heads, hidden units and the
vocabulary. The code of a model is the same on one device and on many: it looks whether a mesh is set
(``jax.set_mesh``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

FSDP, TENSOR = "fsdp", "tensor"

# Logical axis -> axis of the mesh; None is on every device whole.
RULES: Mapping[str, str | None] = {
    "batch": FSDP,
    "length": None,
    "features": None,  # the width of an activation; a parameter's is "width"
    "width": FSDP,
    "image_width": None,
    "vocabulary": TENSOR,
    "levels": None,  # rows of the levels' table: a range of it has to be whole
    "heads": TENSOR,
    "kv_heads": None,
    "head_width": None,
    "hidden": TENSOR,
    "layer": None,
}


def partition(axes: Sequence[str], rules: Mapping[str, str | None] = RULES) -> PartitionSpec:
    """Returns where an array with these logical axes lies.

    >>> partition(("layer", "width", "hidden"))
    PartitionSpec(None, 'fsdp', 'tensor')

    Raises:
        ValueError: an axis that no rule names, or two that one axis of the mesh would have to split.
    """
    for axis in axes:
        if axis not in rules:
            raise ValueError(f"axis {axis!r} of {tuple(axes)}: no rule; expected one of {', '.join(rules)}")
    found = [rules[axis] for axis in axes]
    for name in set(found) - {None}:
        if found.count(name) > 1:
            clash = [axis for axis in axes if rules[axis] == name]
            raise ValueError(f"axes {' and '.join(clash)} of {tuple(axes)} collide: both would be split over {name!r}")
    return PartitionSpec(*found)


def partition_of(
    mesh: Any, shape: Sequence[int], axes: Sequence[str], rules: Mapping[str, str | None] = RULES
) -> PartitionSpec:
    """Returns ``partition`` for an array of a known shape; an axis that the mesh does not divide stays whole."""
    spec = partition(axes, rules)
    return PartitionSpec(
        *(
            name if name in mesh.shape and size % mesh.shape[name] == 0 else None
            for size, name in zip(shape, spec, strict=True)
        )
    )


def current_mesh() -> Any | None:
    """Returns the mesh that is set, or None; a mesh of one device is none."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def constrain(x: jax.Array, *axes: str) -> jax.Array:
    """Asks for an activation to lie where the rules say; no change without a mesh."""
    mesh = current_mesh()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, partition_of(mesh, x.shape, axes))


def shardings(mesh: jax.sharding.Mesh, shapes: Any, axes: Any) -> Any:
    """Returns a NamedSharding for every array of a tree.

    Args:
        mesh: the devices.
        shapes: a tree of anything with ``shape``.
        axes: the same tree of tuples of logical axes.
    """
    return jax.tree.map(lambda array, names: NamedSharding(mesh, partition_of(mesh, array.shape, names)), shapes, axes)
