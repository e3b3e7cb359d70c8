"""One shard of clips, row by row, into the same shard of one or more columns.

What `archon annotate` and `archon tokenize` share. Rows go through a batch function whose elements carry their key
(pipelines/keyed.py). Each finished row is kept at once as a part (pipelines/parts.py), so a kill costs the rows in
work, and the shard is written from the parts in row order: memory holds one batch. A clip that fails keeps its row with
the reason in it, and has a line in the table of failures. The books of a shard close: clips = good + failed.

A row has a key: a hash of its clip's record, of what makes it and of the records that it builds on. A row that is
there with the same key is not made again, in whatever shard it was (pipelines/kept_rows.py). Beside each column's shard
goes a table of figures (pipelines/column_scores.py), which also says the keys.
"""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
    run_shards,
)
from pipelines.books import Books
from pipelines.column_scores import scores_row, write_scores
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
from pipelines.kept_rows import KeptRow, find_rows, forget_kept, kept_part, kept_part_names, set_aside, take_whole
from pipelines.keyed import BatchFunction, Fields, Keyed, run_keyed
from pipelines.manifest import SCORES
from pipelines.parts import Part, Parts, open_part
from pipelines.provenance import Producer
from pipelines.records import Record, decode_record, encode_record
from pipelines.stages.spending import total_spent
from pipelines.state import safe_name, state_path
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
        producer: what makes them. fingerprint: of the producer and all that the shards are made from.
        failures: what all workers see of the failed clips.
        inputs: the name under which the driver has left what the shards are made from.
        batch: rows at a time. concurrent: whether two threads of a process may make rows of this label at once.
        settle: record -> fields of it that follow from the whole dataset and not from the clip: they are set when the
            shard is written, so a change of them makes no row again.
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
    settle: Callable[[Record], dict] | None = None

    def key(self, records: Sequence[bytes]) -> str:
        """The key of a row: one of other making, or from other records (the clip's first), has another."""
        made = fingerprint(self.label, self.columns, self.producer)
        digests = [hashlib.sha256(data).digest() for data in (made.encode(), *records)]
        return hashlib.sha256(b"".join(digests)).hexdigest()[:32]

    def mark(self, task: ShardTask) -> str:
        """What a whole shard is made from, as the driver left it."""
        return read_mark(self.root, self.job, self.inputs, self.label, task.index)


class Rows:
    """The rows of a shard by number: their keys, and where those are that are there already."""

    def __init__(self, work: ColumnWork, task: ShardTask, readers: Mapping[str, ShardReader]):
        self.work, self.parts = work, Parts(work.root, work.job, work.label, task)
        count = len(readers["clips"])
        self.keys = [work.key([reader.read_bytes(row) for reader in readers.values()]) for row in range(count)]
        self.kept = find_rows(work.root, work.job, work.label, work.columns, self.keys)
        self.moved = kept_part_names(work.root, work.job, work.label)

    def __len__(self) -> int:
        return len(self.keys)

    def todo(self) -> Iterator[int]:
        for row, key in enumerate(self.keys):
            if key not in self.kept:
                with self.part(row) as part:
                    missing = part is None
                if missing:
                    yield row

    @contextmanager
    def part(self, row: int) -> Iterator[Part | None]:
        """Yields the part of a row, of this shard or of an earlier layout."""
        key, work = self.keys[row], self.work
        name = safe_name(key)
        with self.parts.open(key) as part:
            if part is not None or name not in self.moved:
                yield part
                return
        with open_part(kept_part(work.root, work.job, work.label, name), key) as part:
            yield part


def make_shard(work: ColumnWork, task: ShardTask, function: BatchFunction) -> StepResult:
    """Makes one shard of the columns, or what is left of it.

    Returns:
        The files, and the summary: books (pipelines/books.py; kept are the good rows), failed, errors (some messages),
        frames (of the clips that this run went through), spent (what a paid service cost; {} where there is none).

    Raises:
        InputError: a shard that is read is missing, damaged or not aligned with the clips.
        TooManyFailures: the job is to stop.
    """
    whole = take_whole(work.root, work.job, work.label, work.columns, work.mark(task), task)
    if whole is not None:
        return whole
    readers = _readers(work, task)
    rows = Rows(work, task, readers)
    frames = sum(_make_rows(work, batch, readers, rows, function) for batch in _batches(rows.todo(), work.batch))
    return _publish(work, task, rows, frames)


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
    batch: Sequence[int],
    readers: dict[str, ShardReader],
    rows: Rows,
    function: BatchFunction,
) -> int:
    """Makes the rows of a batch and keeps each as a part; returns how many frames of clips that were."""
    records = {row: {column: reader[row] for column, reader in readers.items()} for row in batch}
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
        _keep(work, rows.keys[row], records[row], outcome, beside.get(row, {}), rows.parts)
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
    work: ColumnWork, key: str, read: dict[str, Record], outcome: Fields | Failure, beside: Fields, parts: Parts
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
            for column, each in zip(work.columns, records, strict=True):
                encode_record(each)
                scores_row(column, each, key)
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
    with parts.writer(key) as writer:
        for each in records:
            writer.write(each)


def _publish(work: ColumnWork, task: ShardTask, rows: Rows, frames: int) -> StepResult:
    """Writes the shards from what is there of each row, in order, and the tables of scores and of failures."""
    failed: list[dict] = []
    paid: list[dict] = []
    scores: dict[str, list[dict]] = {column: [] for column in work.columns}
    with ExitStack() as stack:
        names = [shard_name(column, task.index, task.count) for column in work.columns]
        writers = [stack.enter_context(shard_writer(storage.join(work.root, name))) for name in names]
        for row, key in enumerate(rows.keys):
            with _row_records(work, rows, row) as (records, failure):
                for column, writer, (record, data) in zip(work.columns, writers, records, strict=True):
                    writer.write_bytes(data)
                    scores[column].append(scores_row(column, record, key))
                    if record.get("usage"):
                        paid.append(json.loads(record["usage"]))
                if failure is not None:
                    failed.append({"column": work.label, "clip_id": records[0][0]["clip_id"], **failure})
    files = [
        ShardInfo(name, writer.count, writer.size, writer.sha256) for name, writer in zip(names, writers, strict=True)
    ]
    files += [write_scores(work.root, column, task, scores[column]) for column in work.columns]
    files += _write_failures(work, task, failed)
    books = Books(work.job, "clips", len(rows))
    books.keep(len(rows) - len(failed))
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


@contextmanager
def _row_records(work: ColumnWork, rows: Rows, row: int) -> Iterator[tuple[list[tuple[Record, bytes]], dict | None]]:
    """Yields a finished row: each column's record with its bytes, and the fields of its failure if it failed.

    OSError if it is damaged.
    """
    kept = rows.kept.get(rows.keys[row])
    if kept is not None:
        records = [_settled(work, kept.read_bytes(column)) for column in work.columns]
        yield records, _kept_failure(work, kept, records[0][0])
        return
    with rows.part(row) as part:
        if part is None:
            raise OSError(f"{rows.parts.path(rows.keys[row])}: damaged since it was written; run the command again")
        records = [_settled(work, part.read_bytes(index)) for index in range(len(work.columns))]
        yield records, json.loads(part[len(records)]["failure"]) if len(part) > len(records) else None


def _settled(work: ColumnWork, data: bytes) -> tuple[Record, bytes]:
    record = decode_record(data)
    if work.settle is None or record["error"]:
        return record, data
    record |= work.settle(record)
    return record, encode_record(record)


def _kept_failure(work: ColumnWork, kept: KeptRow, record: Record) -> dict | None:
    if not record["error"]:
        return None
    row = kept.failures[record["clip_id"]]
    return {name: row[name] for name in FAILURE_FIELDS if name not in ("column", "clip_id")}


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


def write_inputs(
    root: str, job: str, columns: Mapping[str, Sequence[ShardInfo]], marks: Mapping[str, Sequence[str]]
) -> str:
    """Leaves for the workers what the shards are made from; returns its name.

    ``columns``: column -> what the manifest says of its shards. ``marks``: step -> what each of its shards is made
    from, as a hash.
    """
    name = fingerprint({column: [info.sha256 for info in infos] for column, infos in columns.items()}, marks)
    count = len(next(iter(columns.values())))
    for first in range(0, count, _PIECE):
        some = slice(first, first + _PIECE)
        piece = {
            "columns": {column: [asdict(info) for info in infos[some]] for column, infos in columns.items()},
            "marks": {label: list(each[some]) for label, each in marks.items()},
        }
        write_json(_piece_path(root, job, name, first), piece)
    return name


def read_inputs(root: str, job: str, name: str, index: int) -> dict[str, ShardInfo]:
    """Column -> what the manifest says of its shard of this number, as the driver left it."""
    piece = _piece(_piece_path(root, job, name, index))
    return {column: ShardInfo(**infos[index % _PIECE]) for column, infos in piece["columns"].items()}


def read_mark(root: str, job: str, name: str, label: str, index: int) -> str:
    """The mark of a step's shard of this number, as the driver left it."""
    return _piece(_piece_path(root, job, name, index))["marks"][label][index % _PIECE]


def _piece_path(root: str, job: str, name: str, index: int) -> str:
    return state_path(root, job, "inputs", f"{name}-{index // _PIECE}.json")


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
    if not options.dry_run:
        for work, step in works:
            set_aside(root, job, work.columns, step, tasks, options.retry_failed)
    markers = run_shards(job, root, [step for _, step in works], tasks, options, failures)
    forget_kept(root, job, [step.label for _, step in works])
    storage.remove_tree(state_path(root, job, "inputs"))
    return markers


def remove_others(root: str, work: ColumnWork, files: Sequence[ShardInfo]) -> None:
    """Removes files of the step's columns and tables that are not among ``files``: those of an earlier layout."""
    current = {info.path for info in files}
    folders = [*((column, column) for column in work.columns), *((SCORES, column) for column in work.columns)]
    for folder, start in (*folders, ("failures", work.label)):
        for name in storage.list_names(storage.join(root, folder)):
            if name.startswith(f"{start}-") and f"{folder}/{name}" not in current:
                storage.remove(storage.join(root, folder, name))
