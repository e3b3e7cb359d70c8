"""Run by test_placement as each of two processes: a run that one is asked to stop and that goes on, and one whole."""

import dataclasses
import sys
from pathlib import Path

import jax

from infra.training.loop import train
from infra.training.placement import join_processes
from tests.infra.training.resume_on_another_mesh import StopsItself
from tests.infra.training.test_language_job import small_job


def main(folder: Path, distributed: str) -> None:
    join_processes(distributed)
    job = small_job(rows=2, steps=4, tasks="image-to-shape", heldout_batches=1, layers=1)
    stops = dataclasses.replace(job, train_batches=lambda: StopsItself(job.train_batches()))
    options = {"save_every": 0, "log_every": 1}
    try:
        # Only the second is told; both have to stop.
        train(stops if jax.process_index() else job, folder / "stopped", **options)
    except SystemExit as stopped:
        assert stopped.code == 143
    result = train(job, folder / "stopped", **options)
    assert result.resumed_from == 3, result
    train(job, folder / "whole", **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
