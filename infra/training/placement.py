"""Which device holds what in a training run: the mesh, the state on it, and a process's share of every batch."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from models.errors import InputError
from models.layers.sharding import FSDP, TENSOR, shardings

AXES = (FSDP, TENSOR)


def parse_mesh(text: str) -> dict[str, int]:
    """Reads "fsdp=4,tensor=2"; an axis that is not named is 1.

    >>> parse_mesh("fsdp=4")
    {'fsdp': 4, 'tensor': 1}
    """
    found = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, equals, size = part.strip().partition("=")
        if name not in AXES or not equals or not size.isdigit() or int(size) < 1:
            raise InputError(f"--mesh {text}: {part.strip()!r}, expected {' and '.join(f'{a}=N' for a in AXES)}")
        found[name] = int(size)
    return found


def join_processes(text: str) -> None:
    """Makes this process one of a run's several; before anything else asks JAX for its devices.

    Args:
        text: "HOST:PORT,COUNT,INDEX"; "" finds that out by itself on a TPU slice or in a cluster that JAX knows.
    """
    if not text:
        jax.distributed.initialize()
        return
    address, *numbers = text.split(",")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or len(numbers) != 2 or not all(n.strip().isdigit() for n in numbers):
        raise InputError(f"--distributed {text}: expected HOST:PORT,COUNT,INDEX, such as 10.0.0.1:8476,4,0")
    count, index = map(int, numbers)
    if index >= count:
        raise InputError(f"--distributed {text}: process {index} of {count}; expected 0 to {count - 1}")
    jax.distributed.initialize(address, count, index)


def make_mesh(sizes: dict[str, int], devices: Any = None) -> Mesh:
    """Lays devices out; neighbours share the tensor axis.

    Raises:
        InputError: more or fewer devices than the mesh has places.
    """
    devices = list(jax.devices() if devices is None else devices)
    need = int(np.prod([sizes[name] for name in AXES]))
    if need != len(devices):
        said = ",".join(f"{name}={sizes[name]}" for name in AXES)
        raise InputError(f"--mesh {said}: {need} places for {len(devices)} devices; expected as many")
    grid = np.array(devices).reshape([sizes[name] for name in AXES])
    # Explicit axes, the default of jax.make_mesh, want every product of matrices to say where its result lies.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


class Placement:
    """Lays a run's state and batches on a mesh.

    Without ``axes`` every device holds the whole state: the batch is split over all devices, and the loss is a mean
    over the whole of it, so the steps are the same on any number of devices up to rounding.

    Args:
        mesh: the devices; None is all that there are, split by rows alone.
        axes: the logical axes of every array of the state (layers/sharding.py), or None.
        rows: with ``axes`` and without a mesh: rows that have to go round; devices that they do not reach idle.
    """

    def __init__(self, mesh: Mesh | None = None, axes: Any = None, rows: int = 1):
        devices = jax.devices()
        if mesh is None:
            used = max(n for n in range(1, len(devices) + 1) if axes is None or rows % n == 0)
            mesh = make_mesh({FSDP: used, TENSOR: 1}, devices[:used])
        self.mesh, self._axes = mesh, axes
        self.count = mesh.size
        self._rows = NamedSharding(mesh, PartitionSpec(FSDP))
        self._everywhere = NamedSharding(mesh, PartitionSpec())

    def __repr__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.mesh.shape.items())

    def shardings(self, like: Any) -> Any:
        """Returns where each array of a state lies; ``like`` has its shapes."""
        if self._axes is None:
            return jax.tree.map(lambda _: self._everywhere, like)
        return shardings(self.mesh, like, self._axes)

    def scope(self) -> Any:
        """The context in which steps are traced: a model that knows meshes sees this one."""
        import contextlib

        return contextlib.nullcontext() if self._axes is None else jax.set_mesh(self.mesh)

    def state(self, state: Any) -> Any:
        return jax.tree.map(_put, state, self.shardings(state))

    def batch(self, batch: dict[str, np.ndarray]) -> Any:
        """Puts this process's rows of a batch on its devices.

        Raises:
            InputError: the mesh does not divide the rows, and parameters lie on it: no part of it may idle.
        """
        if self.count == 1:
            return batch
        parts, processes = self.mesh.shape[FSDP], jax.process_count()
        even = all(np.ndim(x) and len(x) * processes % parts == 0 for x in jax.tree.leaves(batch))
        if not even and (self._axes is not None or processes > 1):
            rows = len(next(iter(batch.values()))) * processes
            raise InputError(f"--mesh {self}: {rows} rows of a batch do not divide over fsdp={parts}")
        where = self._rows if even else self._everywhere
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, np.asarray(x)), batch)

    def whole(self, state: Any) -> Any:
        """Returns the state as arrays that this process has whole, for export; all processes have to call it."""
        if jax.process_count() == 1:
            return state
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(state, tiled=True)

    def agreed(self, flag: int) -> int:
        """Returns the largest flag of all processes; all have to call it."""
        if jax.process_count() == 1:
            return flag
        from jax.experimental import multihost_utils

        return int(multihost_utils.process_allgather(np.int32(flag)).max())


def _put(array: Any, where: NamedSharding) -> jax.Array:
    """An array that every process has whole, onto the devices."""
    if jax.process_count() == 1:
        return jax.device_put(array, where)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])
