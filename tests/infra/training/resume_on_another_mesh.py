"""Run by test_placement in a process of eight devices: a run that is stopped on one mesh and goes on on another."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax

from infra.training.loop import train
from infra.training.placement import make_mesh, parse_mesh
from tests.infra.training.test_language_job import small_job


def mesh(text: str):
    sizes = parse_mesh(text)
    return make_mesh(sizes, jax.devices()[: sizes["fsdp"] * sizes["tensor"]])


class StopsItself:
    """Batches of a run that asks itself to stop when it takes the third."""

    def __init__(self, batches):
        self._batches, self._taken = iter(batches), 0

    def __iter__(self):
        return self

    def __next__(self):
        self._taken += 1
        if self._taken == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self._batches)

    def __getattr__(self, name):
        return getattr(self._batches, name)


def main(folder: Path) -> None:
    job = small_job(rows=4, steps=4, tasks="image-to-shape", heldout_batches=1, layers=1)
    stops = dataclasses.replace(job, train_batches=lambda: StopsItself(job.train_batches()))
    options = {"save_every": 0, "log_every": 1}
    try:
        train(stops, folder / "moved", mesh=mesh("fsdp=4,tensor=2"), **options)
    except SystemExit as stopped:
        assert stopped.code == 143
    result = train(job, folder / "moved", mesh=mesh("tensor=2"), **options)
    assert result.resumed_from == 3
    train(job, folder / "alone", mesh=mesh("fsdp=1"), **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
