"""How Archon's pipelines run on Apache Beam: shards of work as elements, steps as transforms, files as results.

An element is a small task that names a shard, never frames or video: a shuffled byte costs four bytes of memory on the
local runners and money on Dataflow. A step reads the shard's files, writes its own, and leaves a marker that lists
them. A shard whose marker is there and fits is not done again, so a killed job continues where it was with the same
command, on any runner.
"""

import argparse
import hashlib
import json
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from models.errors import InputError
from pipelines import storage
from pipelines.dataset import ShardInfo, write_json
from pipelines.state import state_path

RUNNERS = ("in-process", "multi-process", "dataflow", "portable")


@dataclass(frozen=True)
class RunnerOptions:
    """Where a pipeline runs. ``beam_args`` are handed to Beam as they are (project, region, job endpoint ...)."""

    runner: str = "multi-process"
    workers: int = 2
    beam_args: tuple[str, ...] = ()
    max_failures: float | None = None  # a count, or below 1 a share of the items; see pipelines/failures.py
    retry_failed: bool = False  # items that failed (not filtered ones) are done again


@dataclass(frozen=True)
class ShardTask:
    """One shard's work: which of how many, and what the steps need to know of it (small and picklable)."""

    index: int
    count: int
    payload: Any = None

    def __str__(self) -> str:
        return f"{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class StepResult:
    """What a step made of one shard: the files it wrote and a summary of plain JSON values."""

    files: tuple[ShardInfo, ...]
    summary: dict


@dataclass(frozen=True)
class Hints:
    """What a worker must have to run a step, for runners that choose machines; a local runner has what it has.

    ``min_ram`` like "8GB", ``accelerator`` like "type:nvidia-l4;count:1;install-nvidia-driver", ``cpu_count`` like "4".
    """

    min_ram: str | None = None
    accelerator: str | None = None
    cpu_count: str | None = None

    def __post_init__(self):
        for name, value in asdict(self).items():
            # Beam takes a number here and fails when it builds the job.
            if value is not None and not isinstance(value, str):
                raise TypeError(f"hint {name}={value!r}: expected a text or None")

    def given(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Step:
    """One transform.

    ``function`` makes a shard's files. The fingerprint says what made them; when it changes, they are made again.
    """

    label: str
    function: Callable[[ShardTask], StepResult]
    fingerprint: str
    hints: Hints = field(default_factory=Hints)


def fingerprint(*parts) -> str:
    """A short hash of configuration: dataclasses, paths, numbers, hashes of weights."""

    def plain(value):
        if is_dataclass(value) and not isinstance(value, type):
            return {"": type(value).__name__, **{key: plain(item) for key, item in asdict(value).items()}}
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
        return value if isinstance(value, str | int | float | bool | None) else str(value)

    return hashlib.sha256(json.dumps([plain(part) for part in parts], sort_keys=True).encode()).hexdigest()[:16]


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it runs")
    group.add_argument("--runner", choices=RUNNERS, default="multi-process", help="default: %(default)s")
    group.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="worker processes (default: %(default)s)"
    )
    group.add_argument(
        "--beam-arg",
        action="append",
        default=[],
        metavar="--NAME=VALUE",
        help="an option for Beam itself; may be repeated",
    )
    group.add_argument(
        "--max-failures",
        type=float,
        metavar="N",
        help="stop early once more items failed than this: a count, or a share like 0.05 (default: never)",
    )
    group.add_argument("--retry-failed", action="store_true", help="do items that failed again; keep everything else")


def runner_options(args: argparse.Namespace) -> RunnerOptions:
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: expected at least 1")
    most = args.max_failures
    if most is not None and not (most >= 0 and (most < 1 or most.is_integer())):
        raise InputError(f"--max-failures {most:g}: expected a whole number, or a share below 1")
    return RunnerOptions(args.runner, args.workers, tuple(args.beam_arg), most, args.retry_failed)


def marker_path(root: str, job: str, label: str, task: ShardTask) -> str:
    return state_path(root, job, label, f"{task}.json")


def read_marker(root: str, job: str, step: Step, task: ShardTask) -> dict | None:
    """Returns the marker if the step has done this shard with this fingerprint and its files are there in full."""
    path = marker_path(root, job, step.label, task)
    if not storage.exists(path):
        return None
    marker = json.loads(storage.read_bytes(path))
    if marker["fingerprint"] != step.fingerprint:
        return None
    for info in marker["files"]:
        file = storage.join(root, info["path"])
        if not storage.exists(file) or storage.size(file) != info["size"]:
            return None
    return marker


def run_step(root: str, job: str, step: Step, task: ShardTask) -> ShardTask:
    """Runs one step on one shard unless it is done already."""
    if read_marker(root, job, step, task) is None:
        start = time.monotonic()
        result = step.function(task)
        marker = {
            "fingerprint": step.fingerprint,
            "files": [asdict(info) for info in result.files],
            "summary": result.summary,
            "seconds": round(time.monotonic() - start, 3),
        }
        write_json(marker_path(root, job, step.label, task), marker)
    return task


def run_shards(
    job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], options: RunnerOptions
) -> dict[str, list[dict]]:
    """Runs every step on every shard, in Beam, and returns step label -> one marker a shard (files, summary, seconds),
    in order.
    """
    storage.remove_temporary_files(root)
    todo = [task for task in tasks if any(read_marker(root, job, step, task) is None for step in steps)]
    left = sum(read_marker(root, job, step, task) is None for step in steps for task in tasks)
    total = len(steps) * len(tasks)
    print(f"{job}: {total - left} of {total} shard steps are done, {left} to do; runner {options.runner}", flush=True)
    if todo:
        with _Progress(job, root, steps, todo, left):
            _run_pipeline(job, root, steps, todo, options)
    markers = {step.label: [read_marker(root, job, step, task) for task in tasks] for step in steps}
    missing = [f"{label} {tasks[i]}" for label, rows in markers.items() for i, row in enumerate(rows) if row is None]
    if missing:
        raise RuntimeError(f"{job}: the pipeline ended but left undone: {', '.join(missing[:5])}")
    return markers


def marker_files(markers: Sequence[dict]) -> list[ShardInfo]:
    return [ShardInfo(**info) for marker in markers for info in marker["files"]]


def _run_pipeline(
    job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], options: RunnerOptions
) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    args = list(options.beam_args)
    environment = nullcontext()
    if options.runner in ("in-process", "multi-process"):
        runner = _local_runner()
        workers = min(options.workers, len(tasks))
        if options.runner == "multi-process" and workers > 1:
            args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
            environment = one_thread_a_worker()
        else:
            args += ["--direct_running_mode=in_memory"]
    else:
        runner = {"dataflow": "DataflowRunner", "portable": "PortableRunner"}[options.runner]
    # A worker process does not see this process's command line: everything a step needs is in the step.
    with environment, beam.Pipeline(runner=runner, options=PipelineOptions(args)) as pipeline:
        shards = pipeline | "Shards" >> beam.Create(list(tasks))
        for step in steps:
            work = beam.Map(_StepFn(root, job, step)).with_resource_hints(**step.hints.given())
            shards = shards | f"{step.label}: spread" >> beam.Reshuffle() | step.label >> work


# One worker a core: threads inside a worker only wait for each other (the fit took four times the processor time).
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


@contextmanager
def one_thread_a_worker() -> Iterator[None]:
    """Worker processes that start within inherit an environment in which BLAS and XLA use one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    for name, value in _ONE_THREAD.items():
        joined = f"{before[name] or ''} {value}".strip() if name == "XLA_FLAGS" else before[name] or value
        os.environ[name] = joined
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _local_runner():
    """Beam's own in-process runner, by name: DirectRunner is a switch that first tries to download another one."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from google.protobuf import struct_pb2

    # Worker processes take their log level from here alone; below ERROR they tell of every channel they close.
    options = struct_pb2.Struct()
    options["beam:option:default_sdk_harness_log_level:v1"] = "ERROR"
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=options)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(info))


class _StepFn:
    """A step as a function that Beam can send to a worker.

    Pickled by reference to this module, so a worker runs the installed code.
    """

    def __init__(self, root: str, job: str, step: Step):
        self.data = pickle.dumps((root, job, step))

    def __call__(self, task: ShardTask) -> ShardTask:
        root, job, step = pickle.loads(self.data)
        return run_step(root, job, step, task)


class _Progress:
    """Prints, while a pipeline runs, how many shard steps are done and how long the rest may take."""

    def __init__(
        self, job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], left: int, every: float = 10.0
    ):
        self.job, self.root, self.steps, self.tasks, self.left, self.every = job, root, steps, tasks, left, every
        self.stop, self.start = threading.Event(), time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stop.wait(self.every):
            still = sum(read_marker(self.root, self.job, s, t) is None for s in self.steps for t in self.tasks)
            done, seconds = self.left - still, time.monotonic() - self.start
            rest = f"about {seconds / done * still:.0f} s left" if done else "no estimate yet"
            print(f"{self.job}: {done}/{self.left} shard steps in {seconds:.0f} s, {rest}", flush=True, file=sys.stdout)
