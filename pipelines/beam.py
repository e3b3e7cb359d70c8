"""How Archon's pipelines run on Apache Beam: shards of work as elements, steps as transforms, files as results.

An element is a small task that names a shard, never frames or video: a shuffled byte costs four bytes of memory on the
local runners and money on Dataflow. A step reads the shard's files, writes its own, and leaves a marker that lists
them. A shard whose marker is there and fits is not done again, so a killed job continues where it was with the same
command, on any runner. A ledger (pipelines/ledger.py) says at once which shards have fitting markers; at the end of
the job all markers and files are looked at, and what is missing or damaged is made again.

What a job keeps below ``_state/`` is listed in pipelines/state.py.
"""

import argparse
import functools
import hashlib
import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from models.errors import InputError
from pipelines import storage
from pipelines.dataset import ShardInfo, write_json
from pipelines.dry_run import DryRun
from pipelines.failures import Failures
from pipelines.ledger import Ledger, intervals
from pipelines.local_runner import local_runner
from pipelines.parts import Parts
from pipelines.scratch import remove_scratch, scratch, scratch_folder
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
    dry_run: bool = False  # run_shards raises DryRun (pipelines/dry_run.py)

    @property
    def is_local(self) -> bool:
        """Whether the workers are processes of this machine."""
        return self.runner in ("in-process", "multi-process")


@dataclass(frozen=True)
class ShardTask:
    """One shard's work: which of how many, and what the steps need to know of it (small and picklable)."""

    index: int
    count: int
    payload: Any = None
    cost: float = 0.0  # an estimate in any unit: the costliest shards are begun first

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

    ``function`` makes a shard's files. The fingerprint says what made them; when it changes, they are made again. Where
    a shard does not depend on all that the fingerprint counts, ``of_shard`` says what it does depend on: then the
    fingerprint is that of all shards together, and a shard whose own mark stays is left alone.
    """

    label: str
    function: Callable[[ShardTask], StepResult]
    fingerprint: str
    hints: Hints = field(default_factory=Hints)
    of_shard: Callable[[ShardTask], str] | None = None

    def mark(self, task: ShardTask) -> str:
        """What a shard's marker says that it was made from."""
        return self.fingerprint if self.of_shard is None else self.of_shard(task)


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
    dry_run = getattr(args, "dry_run", False)
    return RunnerOptions(args.runner, args.workers, tuple(args.beam_arg), most, args.retry_failed, dry_run)


def marker_path(root: str, job: str, label: str, task: ShardTask) -> str:
    return state_path(root, job, label, f"{task}.json")


def read_marker(root: str, job: str, step: Step, task: ShardTask) -> dict | None:
    """Returns the marker if the step has done this shard as it would now and its files are there in full."""
    try:
        marker = json.loads(storage.read_bytes(marker_path(root, job, step.label, task)))
        if marker["fingerprint"] != step.mark(task):
            return None
        whole = all(storage.size(storage.join(root, info["path"])) == info["size"] for info in marker["files"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return marker if whole else None


def run_step(root: str, job: str, step: Step, task: ShardTask) -> ShardTask:
    """Runs one step on one shard unless it is done already."""
    if read_marker(root, job, step, task) is None:
        start, spent = time.monotonic(), sum(os.times()[:4])
        result = step.function(task)
        marker = {
            "fingerprint": step.mark(task),
            "files": [asdict(info) for info in result.files],
            "summary": result.summary,
            "seconds": round(time.monotonic() - start, 3),
            # Of this process and of those it waited for (ffmpeg): what other work on the machine does not change.
            "cpu_seconds": round(sum(os.times()[:4]) - spent, 3),
        }
        write_json(marker_path(root, job, step.label, task), marker)
        Parts(root, job, step.label, task).remove()
    return task


def run_shards(
    job: str,
    root: str,
    steps: Sequence[Step],
    tasks: Sequence[ShardTask],
    options: RunnerOptions,
    failures: Failures | None = None,
) -> dict[str, list[dict]]:
    """Runs every step on every shard, in Beam, and returns step label -> one marker a shard (files, summary, seconds),
    in order. ``failures``: where the steps note failed items; it stops the job when they are too many.

    Raises:
        TooManyFailures: see ``failures``. What is finished is kept.
    """
    if options.dry_run:
        raise DryRun(job, root, steps, tasks)
    failures = failures or Failures(root, job, fingerprint([step.fingerprint for step in steps]))
    remove_scratch(root, job)
    failures.begin(options.retry_failed)
    done = {step.label: _begin(job, root, step, tasks) for step in steps}
    for _ in range(_ROUNDS):
        todo = [task for task in tasks if any(task.index not in done[step.label] for step in steps)]
        total = len(steps) * len(tasks)
        left = total - sum(len(numbers) for numbers in done.values())
        print(
            f"{job}: {total - left} of {total} shard steps are done, {left} to do; runner {options.runner}", flush=True
        )
        if todo:
            _run(job, root, steps, todo, options, failures, len(tasks), left)
        markers, missing = {}, []
        for step in steps:
            look = functools.partial(read_marker, root, job, step)
            markers[step.label] = storage.map_requests(root, look, tasks)
            lost = [task for task, marker in zip(tasks, markers[step.label], strict=True) if marker is None]
            missing += [f"{step.label} {task}" for task in lost]
            done[step.label] = {task.index for task in tasks} - {task.index for task in lost}
        _write_ledger(job, root, steps, len(tasks), done)
        if not missing:
            failures.end()
            for step in steps:  # not those of steps that another run has left unfinished
                storage.remove_tree(state_path(root, job, "parts", step.label))
            with suppress(OSError):
                os.rmdir(state_path(root, job, "parts"))
            remove_scratch(root, job)
            storage.remove_temporary_files(root)
            return markers
    raise RuntimeError(f"{job}: the pipeline ended but left undone: {', '.join(missing[:5])}")


_ROUNDS = 3  # of making again what turns out to be missing at the end


def marker_files(markers: Sequence[dict]) -> list[ShardInfo]:
    return [ShardInfo(**info) for marker in markers for info in marker["files"]]


# --- What is done already ---


def _begin(job: str, root: str, step: Step, tasks: Sequence[ShardTask]) -> set[int]:
    """Returns the indices of the shards that need not be looked at or are found to be done; drops outdated markers.

    Only markers that the ledger does not speak of are read, so this takes as long with ten shards done as with all.
    """
    done = Ledger.read(root, job).of(step.label, step.fingerprint, len(tasks))
    by_name = {f"{task}.json": task for task in tasks}
    for name in storage.list_names(state_path(root, job, step.label)):
        task = by_name.get(name)
        if task is not None and task.index in done:
            continue
        if task is not None and read_marker(root, job, step, task) is not None:
            done.add(task.index)
        else:
            # From here on a marker in this folder is one of this making: they are counted by name.
            storage.remove(state_path(root, job, step.label, name))
    return done


def _marked(job: str, root: str, step: Step, tasks: Sequence[ShardTask]) -> set[int]:
    names = set(storage.list_names(state_path(root, job, step.label)))
    return {task.index for task in tasks if f"{task}.json" in names}


def _write_ledger(job: str, root: str, steps: Sequence[Step], shards: int, done: Mapping[str, set[int]]) -> None:
    ledger = Ledger.read(root, job)
    before = {label: (mark, count, set(numbers)) for label, (mark, count, numbers) in ledger.done.items()}
    for step in steps:
        ledger.set(step.label, step.fingerprint, shards, set(done[step.label]))
    if ledger.done != before:
        ledger.write()


class _Watch:
    """While a pipeline runs: keeps the ledger, and prints how many shard steps are done and how long the rest may take.

    It lists each step's folder of markers, and reads none.
    """

    def __init__(self, job: str, root: str, steps: Sequence[Step], todo: Sequence[ShardTask], shards: int, left: int):
        self.job, self.root, self.steps, self.todo, self.shards, self.left = job, root, steps, todo, shards, left
        self.every = 30.0 if storage.is_remote(root) else 3.0
        self.stop, self.start, self.told = threading.Event(), time.monotonic(), 0.0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        named = {task.index for task in todo}
        # Shards that are not in this run were found done before it.
        self.others = set(range(shards)) - named

    def __enter__(self):
        self._look()
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()
        self._look()

    def _look(self) -> int:
        done = {step.label: _marked(self.job, self.root, step, self.todo) | self.others for step in self.steps}
        _write_ledger(self.job, self.root, self.steps, self.shards, done)
        return self.shards * len(self.steps) - sum(len(numbers) for numbers in done.values())

    def _watch(self) -> None:
        while not self.stop.wait(self.every):
            still = self._look()
            seconds = time.monotonic() - self.start
            if seconds - self.told < 10:
                continue
            self.told, done = seconds, self.left - still
            rest = f"about {seconds / done * still:.0f} s left" if done else "no estimate yet"
            print(f"{self.job}: {done}/{self.left} shard steps in {seconds:.0f} s, {rest}", flush=True)


# --- Running it ---


def _run(
    job: str,
    root: str,
    steps: Sequence[Step],
    todo: Sequence[ShardTask],
    options: RunnerOptions,
    failures: Failures,
    shards: int,
    left: int,
) -> None:
    from pipelines import attempts

    try:
        with _Watch(job, root, steps, todo, shards, left):
            if options.runner == "multi-process":
                attempts.run_supervised(attempts.Work(job, root, tuple(steps), tuple(todo), options))
            else:
                with scratch(root, job):
                    run_pipeline(job, root, steps, todo, options)
    except Exception:
        # Beam wraps what a worker raised; the flag says why it was.
        failures.check()
        raise


def run_pipeline(
    job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], options: RunnerOptions
) -> None:
    """Builds the job's pipeline for the runner and runs it to its end in this process (and its workers)."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    args = list(options.beam_args)
    if options.runner in ("dataflow", "portable"):
        runner = {"dataflow": "DataflowRunner", "portable": "PortableRunner"}[options.runner]
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(args))
        build_pipeline(pipeline, job, root, steps, tasks)
        result = pipeline.run()
        if any(arg.startswith("--template_location") for arg in args):
            # The launcher of a template hands the graph over; there is no job to wait for yet.
            raise DryRun(job, root, steps, tasks)
        result.wait_until_finish()
        return
    workers = min(options.workers, len(tasks)) if options.runner == "multi-process" else 1
    if workers > 1:
        args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    else:
        args += ["--direct_running_mode=in_memory"]
    with beam.Pipeline(runner=local_runner(), options=PipelineOptions(args)) as pipeline:
        _build_local(pipeline, job, root, steps, tasks, workers)


def build_pipeline(pipeline, job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask]):
    """Adds the job to a Beam pipeline (without running it) and returns its last PCollection, the tasks.

    For runners that hand out elements to workers as these become free. Tasks without a payload enter as intervals of
    shard numbers, so that the graph of a job of a million shards is small; a reshuffle of the tasks before each step
    lets every worker have its share.
    """
    import apache_beam as beam

    count = tasks[0].count if tasks else 0
    if any(task.payload is not None or task.count != count for task in tasks):
        shards = pipeline | "Shards" >> beam.Create(list(tasks))
    else:
        pieces = [
            (start, min(start + 1000, end), count)
            for first, end in intervals(task.index for task in tasks)
            for start in range(first, end, 1000)
        ]
        shards = pipeline | "Shard numbers" >> beam.Create(pieces) | "Shards" >> beam.FlatMap(_tasks_of)
    for step in steps:
        work = beam.Map(_StepFn(root, job, step)).with_resource_hints(**step.hints.given())
        shards = shards | f"{step.label}: spread" >> beam.Reshuffle() | step.label >> work
    return shards


def _tasks_of(piece: tuple[int, int, int]) -> list[ShardTask]:
    first, end, count = piece
    return [ShardTask(index, count) for index in range(first, end)]


def _build_local(
    pipeline, job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], workers: int
) -> None:
    """The same steps for Beam's local runner, which deals out elements evenly before it starts, whatever they cost.

    Here an element is a worker's slot, with the slot as its key. A slot takes shards, the costliest first, until none
    is left, so two workers end at about the same time.
    """
    import apache_beam as beam

    order = sorted(tasks, key=lambda task: (-task.cost, task.index))
    queue = os.path.join(scratch_folder(root, job), f"queue-{os.getpid()}")
    slots = pipeline | "Slots" >> beam.Create([(slot, 0) for slot in range(workers)])
    for step in steps:
        work = _SlotFn(root, job, step, order, queue, os.getpid() if workers > 1 else None)
        slots = slots | f"{step.label}: spread" >> beam.GroupByKey() | step.label >> beam.Map(work)


class _StepFn:
    """A step as a function that Beam can send to a worker.

    Pickled by reference to this module, so a worker runs the installed code.
    """

    def __init__(self, root: str, job: str, step: Step):
        self.data = pickle.dumps((root, job, step))

    def __call__(self, task: ShardTask) -> ShardTask:
        root, job, step = pickle.loads(self.data)
        with scratch(root, job):
            return run_step(root, job, step, task)


class _SlotFn:
    """A step over a queue of shards that worker processes of one machine share.

    A shard is taken by making a file of its name: only one process can. ``parent``: the process to die with.
    """

    def __init__(self, root: str, job: str, step: Step, order: Sequence[ShardTask], queue: str, parent: int | None):
        self.data = pickle.dumps((root, job, step, list(order), queue, parent))

    def __call__(self, item: tuple[int, Any]) -> tuple[int, int]:
        root, job, step, order, queue, parent = pickle.loads(self.data)
        if parent is not None:
            from pipelines.attempts import die_with

            die_with(parent)
        with scratch(root, job):
            os.makedirs(queue, exist_ok=True)
            for task in order:
                try:
                    os.close(os.open(os.path.join(queue, f"{step.label}-{task}"), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                run_step(root, job, step, task)
        return item[0], 0
