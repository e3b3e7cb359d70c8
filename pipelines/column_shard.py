"""One shard of clips, row by row, into the same shard of one or more columns.

What `archon annotate` and `archon tokenize` share. Rows go through a batch function whose elements carry their key
(pipelines/keyed.py). Each finished row is kept at once as a part (pipelines/parts.py), so a kill costs the rows in
work, and the shard is written from the parts in row order: memory holds one batch. A clip that fails keeps its row with
the reason in it, and has a line in the table of failures. The books of a shard close: clips = good + failed.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from models.errors import InputError
from models.loading import load_once
from pipelines import provenance, storage
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    fingerprint,
    marker_path,
    read_marker,
    run_shards,
)
from pipelines.books import Books
from pipelines.dataset import (
    COLUMN_FIELDS,
    FAILURE_FIELDS,
    ShardInfo,
    ShardReader,
    check_shard,
    row_fields,
    shard_name,
    shard_writer,
    write_json,
)
from pipelines.failures import Failure, Failures, describe_failure
from pipelines.keyed import BatchFunction, Fields, Keyed, run_keyed
from pipelines.ledger import Ledger
from pipelines.parts import Parts
from pipelines.provenance import Producer
from pipelines.records import Record, encode_record
from pipelines.stages.spending import total_spent
from pipelines.state import state_path
from pipelines.tables import text_schema, write_table

MISSING_INPUT = "MissingInput"  # the type of a failure whose cause is a failed row of another column
_SHOWN = 5  # messages that a shard's marker keeps; all of them are in the table of failures

# Threads of a process take turns with what is not safe to run twice at once.
_turns: dict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class ColumnWork:
    """What a job does to a shard.

    Attributes:
        root: the dataset. job, label: the job and its step, which name the parts.
        columns: what is made. requires: the columns that are read beside the clips.
        producer: what makes them. fingerprint: of the producer and all that the shard is made from.
        failures: what all workers see of the failed clips.
        inputs: the name under which the driver has left what the manifest says of the shards that are read.
        batch: rows at a time. concurrent: whether two threads of a process may make rows of this label at once.
    """

    root: str
    job: str
    label: str
    columns: tuple[str, ...]
    requires: tuple[str, ...]
    producer: Producer
    fingerprint: str
    failures: Failures
    inputs: str
    batch: int = 1
    concurrent: bool = False

    def key(self, row: int) -> str:
        """The key of a row's part: a part of other making, or from other clips, has another."""
        return f"{self.fingerprint} {row}"

    def parts(self, task: ShardTask) -> Parts:
        return Parts(self.root, self.job, self.label, task)


def make_shard(work: ColumnWork, task: ShardTask, function: BatchFunction) -> StepResult:
    """Makes one shard of the columns, or what is left of it.

    Returns:
        The files, and the summary: books (pipelines/books.py; kept are the good rows), failed, errors (some messages),
        frames (of the clips that this run went through), spent (what a paid service cost; {} where there is none).

    Raises:
        InputError: a shard that is read is missing, damaged or not aligned with the clips.
        TooManyFailures: the job is to stop.
    """
    readers = _readers(work, task)
    rows, parts = len(readers["clips"]), work.parts(task)
    todo = (row for row in range(rows) if not parts.has(work.key(row)))
    frames = sum(_make_rows(work, batch, readers, parts, function) for batch in _batches(todo, work.batch))
    return _publish(work, task, rows, parts, frames)


def _readers(work: ColumnWork, task: ShardTask) -> dict[str, ShardReader]:
    known, readers = read_inputs(work.root, work.job, work.inputs, task.index), {}
    for column in ("clips", *work.requires):
        info = known.get(column)
        name = info.path if info else shard_name(column, task.index, task.count)
        if info:
            check_shard(work.root, info)
        readers[column] = ShardReader(storage.join(work.root, name), info)
        if len(readers[column]) != len(readers["clips"]):
            raise InputError(
                f"{readers[column].path}: {len(readers[column])} rows, but the clips have {len(readers['clips'])}: "
                "not aligned"
            )
    return readers


def _batches(rows: Iterator[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _make_rows(
    work: ColumnWork,
    rows: Sequence[int],
    readers: dict[str, ShardReader],
    parts: Parts,
    function: BatchFunction,
) -> int:
    """Makes the rows of a batch and keeps each as a part; returns how many frames of clips that were."""
    records = {row: {column: reader[row] for column, reader in readers.items()} for row in rows}
    outcomes: dict[int, Fields | Failure] = {}
    beside: dict[int, Fields] = {}
    items: dict[str, int] = {}
    asked: list[Keyed] = []
    with ExitStack() as stack:
        for row, read in records.items():
            clip = read["clips"]
            name = f"{work.label} {clip['clip_id']}"
            stack.enter_context(work.failures.working_on(name))
            failure = _missing_input(work, read) or work.failures.given_up(name)
            if failure is not None:
                outcomes[row] = failure
                continue
            key = f"{row}/{clip['clip_id']}"
            items[key] = row
            asked.append(Keyed(key, clip, {column: read[column] for column in work.requires}))
        if not work.concurrent:
            stack.enter_context(_turns[work.label])
        for key, outcome in run_keyed(function, asked).items():
            failed = isinstance(outcome, Exception)
            # What a failure leaves in its row beside the error, such as what was paid for nothing.
            beside[items[key]] = getattr(outcome, "row", {}) if failed else {}
            outcomes[items[key]] = describe_failure(work.label, outcome) if failed else outcome
    for row, outcome in outcomes.items():
        _keep(work, row, records[row], outcome, beside.get(row, {}), parts)
    return sum(int(item.clip["num_frames"]) for item in asked)


def _missing_input(work: ColumnWork, read: dict[str, Record]) -> Failure | None:
    """The failure of a row for which something that it needs is not there, or is of another clip."""
    clip_id = read["clips"]["clip_id"]
    for column, record in read.items():
        if record["clip_id"] != clip_id:
            text = f"column {column} has clip {record['clip_id']} in the row of {clip_id}: not aligned"
            return describe_failure(work.label, InputError(text))
    for column, record in read.items():
        if record["error"]:
            return Failure(work.label, MISSING_INPUT, f"needs {column}: {record['error']}", "", "")
    return None


def _keep(
    work: ColumnWork, row: int, read: dict[str, Record], outcome: Fields | Failure, beside: Fields, parts: Parts
) -> None:
    """Writes a row's part: a record per column, and after them the failure if there is one.

    ``beside``: fields of the row of a clip that failed, by column.
    """
    clip = read["clips"]
    upstream = [json.loads(record["made_by"]) for record in read.values()]

    def record(column: str, fields: Record, error: str = "") -> Record:
        made = provenance.to_text(provenance.made_by([column], work.producer, upstream))
        return {**row_fields(clip, made, error), **fields}

    if not isinstance(outcome, Failure):
        try:
            records = [
                record(column, {name: outcome[column][name] for name in COLUMN_FIELDS[column]})
                for column in work.columns
            ]
            for each in records:
                encode_record(each)
        except (KeyError, TypeError, ValueError) as error:
            outcome = describe_failure(work.label, error)
    if isinstance(outcome, Failure):
        text = f"{outcome.stage}: {outcome.type}: {outcome.message}"
        records = [
            *(record(column, beside.get(column, {}), text) for column in work.columns),
            {"failure": json.dumps(asdict(outcome))},
        ]
        if outcome.type != MISSING_INPUT:
            work.failures.note(f"{work.label} {clip['clip_id']}", outcome)
    with parts.writer(work.key(row)) as writer:
        for each in records:
            writer.write(each)


def _publish(work: ColumnWork, task: ShardTask, rows: int, parts: Parts, frames: int) -> StepResult:
    """Writes the shards from the parts, in row order, and the table of failures."""
    failed: list[dict] = []
    paid: list[dict] = []
    with ExitStack() as stack:
        names = [shard_name(column, task.index, task.count) for column in work.columns]
        writers = [stack.enter_context(shard_writer(storage.join(work.root, name))) for name in names]
        for row in range(rows):
            with parts.open(work.key(row)) as part:
                if part is None:
                    raise OSError(f"{parts.path(work.key(row))}: damaged since it was written; run the command again")
                for writer, record in zip(writers, part, strict=False):
                    writer.write(record)
                    if record.get("usage"):
                        paid.append(json.loads(record["usage"]))
                if len(part) > len(writers):
                    failure = json.loads(part[len(writers)]["failure"])
                    failed.append({"column": work.label, "clip_id": part[0]["clip_id"], **failure})
    files = [
        ShardInfo(name, writer.count, writer.size, writer.sha256) for name, writer in zip(names, writers, strict=True)
    ]
    files += _write_failures(work, task, failed)
    books = Books(work.job, "clips", rows)
    books.keep(rows - len(failed))
    for row in failed:
        books.fail(row["stage"], row["type"], row["traceback_hash"])
    errors = [f"{row['clip_id']}: {row['stage']}: {row['type']}: {row['message']}" for row in failed[:_SHOWN]]
    summary = {
        "books": books.close().as_dict(),
        "failed": len(failed),
        "errors": errors,
        "frames": frames,
        "spent": total_spent(paid),
    }
    return StepResult(tuple(files), summary)


def _write_failures(work: ColumnWork, task: ShardTask, rows: list[dict]) -> list[ShardInfo]:
    """The shard's table of failures; no file if there are none."""
    name = f"failures/{work.label}-{task}.parquet"
    if not rows:
        storage.remove(storage.join(work.root, name))
        return []
    fields = [{key: row[key] or None for key in FAILURE_FIELDS} for row in rows]
    return [write_table(work.root, name, fields, text_schema(FAILURE_FIELDS))]


# --- What the shards are made from ---

# A task is a number, so that a job over many shards has a small graph; what the manifest says of its shards lies in
# files of this many tasks, which a worker reads as it needs them.
_PIECE = 1000


def write_inputs(root: str, job: str, columns: Mapping[str, Sequence[ShardInfo]]) -> str:
    """Leaves what the manifest says of the shards of some columns for the workers; returns its name."""
    name = fingerprint({column: [info.sha256 for info in infos] for column, infos in columns.items()}, *columns)
    count = len(next(iter(columns.values())))
    for first in range(0, count, _PIECE):
        piece = {column: [asdict(info) for info in infos[first : first + _PIECE]] for column, infos in columns.items()}
        write_json(state_path(root, job, "inputs", f"{name}-{first // _PIECE}.json"), piece)
    return name


def read_inputs(root: str, job: str, name: str, index: int) -> dict[str, ShardInfo]:
    """Column -> what the manifest says of its shard of this number, as the driver left it."""
    piece = _piece(state_path(root, job, "inputs", f"{name}-{index // _PIECE}.json"))
    return {column: ShardInfo(**infos[index % _PIECE]) for column, infos in piece.items()}


@load_once(4)
def _piece(path: str) -> dict:
    return json.loads(storage.read_bytes(path))


# --- A job over all shards ---


def run_columns(
    job: str, works: Sequence[tuple[ColumnWork, Step]], tasks: Sequence[ShardTask], options: RunnerOptions
) -> dict[str, list[dict]]:
    """Runs the steps of a job over all shards; returns label -> one marker a shard, in order.

    With ``options.retry_failed`` the failed rows of finished shards are made again, and no others.

    Raises:
        TooManyFailures: more clips failed than ``options.max_failures`` allows. What is finished is kept.
    """
    root, failures = works[0][0].root, works[0][0].failures
    if options.retry_failed:
        for work, step in works:
            for task in tasks:
                _reopen(work, step, task)
    markers = run_shards(job, root, [step for _, step in works], tasks, options, failures)
    storage.remove_tree(state_path(root, job, "inputs"))
    return markers


def _reopen(work: ColumnWork, step: Step, task: ShardTask) -> None:
    """Makes a finished shard with failed rows an unfinished one: its good rows are parts again, the others to do."""
    marker = read_marker(work.root, work.job, step, task)
    if marker is None or not marker["summary"]["failed"]:
        return
    readers = [
        ShardReader(storage.join(work.root, shard_name(column, task.index, task.count))) for column in work.columns
    ]
    for row in range(len(readers[0])):
        records = [reader[row] for reader in readers]
        if any(record["error"] for record in records):
            continue
        with work.parts(task).writer(work.key(row)) as writer:
            for record in records:
                writer.write(record)
    ledger = Ledger.read(work.root, work.job)
    ledger.forget(step.label, [task.index])
    ledger.write()
    storage.remove(marker_path(work.root, work.job, step.label, task))
