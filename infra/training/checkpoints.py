"""Checkpoints of a training job: state, data position and progress as one atomic step (Orbax v1).

Orbax's v1 interface still renames things between releases, so this is the only file that knows it.
"""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from models.errors import InputError
from models.io import flatten


class Checkpoints:
    """The checkpoints in one directory; the newest ``keep`` are preserved.

    A step holds ``state`` (a pytree of arrays, stored flat under the names of its leaves), ``data`` (a Grain iterator's
    position) and ``progress`` (a flat dict of numbers). A step that was not written to its end is not listed.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self._checkpointer = ocp.training.Checkpointer(
            str(Path(directory).resolve()),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int | None:
        """Returns the newest whole step, or None."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, step: int, state: Any, data: Any, progress: dict[str, float]) -> None:
        """Writes one step and waits until it is whole."""
        self._checkpointer.save_checkpointables(
            step, {"state": flatten(state), "data": data, "progress": progress}, overwrite=True
        )

    def restore(self, step: int, like: Any, data: Any, shardings: Any = None) -> tuple[Any, dict[str, float]]:
        """Reads a step: returns (state with the structure of ``like``, progress) and moves the iterator ``data``.

        Args:
            step: a step that ``latest`` returned.
            like: the state's structure, with ``jax.ShapeDtypeStruct`` or arrays as leaves.
            data: a fresh Grain iterator over the same data; it is moved to the saved position.
            shardings: where each array of the state is put, whatever devices it was saved from; one device if None.
        """
        if shardings is None:
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            shardings = jax.tree.map(lambda _: device, like)
        wanted = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)
            for (name, array), where in zip(flatten(like).items(), jax.tree.leaves(shardings), strict=True)
        }
        try:
            found = self._checkpointer.load_checkpointables(step, {"state": wanted, "data": data, "progress": None})
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{self._checkpointer.directory}: the checkpoint of step {step} does not fit this job: {error}"
            ) from error
        state = jax.tree.unflatten(jax.tree.structure(like), [found["state"][name] for name in wanted])
        return state, {k: float(v) for k, v in found["progress"].items()}

    def close(self) -> None:
        self._checkpointer.close()
