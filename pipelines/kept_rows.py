"""Finished rows of columns from an earlier run, kept until the shards that they belong into now are written.

When clips come or go, or their shards are cut differently, a column's shards are other ones, but most of its rows are
the same: a row depends on its clip, on what makes it and on the rows that it builds on, all of which its key counts
(``made_from`` in the column's table of scores). What is published is set aside (a second name for each file), with an
index of where each row is in it, and the new shards are put together from that: only rows with a new key are made.

    kept/<label>/<folder>/            files of shards that were set aside together, under their names in the dataset
    kept/<label>/<folder>/<shard>     the marker of each of these shards
    kept/<label>/shards/<mark>        which of them was made from what a shard of now is made from: it is taken whole
    kept/<label>/rows.parquet         key of a row -> folder, shard, row, whether it failed
    kept/<label>/parts/               finished rows of unfinished shards (pipelines/parts.py)
"""

import functools
import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from models.errors import InputError
from pipelines import storage
from pipelines.beam import ShardTask, Step, StepResult
from pipelines.column_scores import scores_name
from pipelines.dataset import ShardInfo, ShardReader, check_file, check_shard, write_json
from pipelines.ledger import Ledger
from pipelines.parts import open_part
from pipelines.state import state_path

_SHARD = re.compile(r"\d{5,}-of-\d{5,}")


def _kept(root: str, job: str, label: str, *names: str) -> str:
    return state_path(root, job, "kept", label, *names)


def _files(marker: dict, label: str, columns: Sequence[str], shard: str) -> list[ShardInfo]:
    """The files that a marker lists. InputError unless all are files of this step and shard.

    A marker comes with the dataset, perhaps from elsewhere, and what it lists is copied.
    """
    try:
        infos = [ShardInfo(**info) for info in marker["files"]]
    except TypeError:
        raise InputError(f"the marker of {label} {shard[:80]!r} does not list files") from None
    own = {f"{column}/{column}-{shard}.array_record" for column in columns}
    own |= {scores_name(column, shard) for column in columns} | {f"failures/{label}-{shard}.parquet"}
    if not _SHARD.fullmatch(shard) or not {info.path for info in infos} <= own:
        raise InputError(f"the marker of {label} {shard[:80]!r} lists files that are not its own")
    return infos


# --- The driver sets aside ---


def set_aside(
    root: str, job: str, columns: Sequence[str], step: Step, tasks: Sequence[ShardTask], retry: bool = False
) -> None:
    """Sets aside the shards and parts of a step whose shards are not what they would be now. Others are left alone.

    Killed in between and called again, it ends with the same.

    Args:
        columns: the step's columns.
        retry: rows that failed are not kept, and shards with such rows count as not what they would be.
    """
    label, ledger = step.label, Ledger.read(root, job)
    known = ledger.done.get(label)
    same = known is not None and known[:2] == (step.fingerprint, len(tasks))
    if same and not retry:
        return
    by_name, folder = {f"{task}.json": task for task in tasks}, uuid.uuid4().hex

    def look(name: str) -> tuple[str, Any] | None:
        """A shard's rows for the index, now in ``folder`` (None if nothing of it can be used); None if it stays."""
        marker = _read_marker(state_path(root, job, label, name))
        if marker is None:
            return name, None
        failed = retry and marker["summary"]["failed"]
        if name in by_name and marker["fingerprint"] == step.mark(by_name[name]) and not failed:
            return None
        return name, _keep_shard(root, job, label, columns, folder, name.removesuffix(".json"), marker, not failed)

    names = storage.list_names(state_path(root, job, label))
    gone = [found for found in storage.map_requests(root, look, names) if found is not None]
    _sort_parts(root, job, label, len(columns), moves=not same, retry=retry)
    if retry:
        _drop_failed_shards(root, job, label)
    _write_index(_kept(root, job, label, "rows.parquet"), [rows for _, rows in gone if rows is not None], retry)
    ledger.forget(label, [int(name.split("-of-")[0]) for name, _ in gone if name in by_name])
    ledger.write()
    for name, _ in gone:
        storage.remove(state_path(root, job, label, name))


def _read_marker(path: str) -> dict | None:
    """None if there is none, or it is not one."""
    try:
        value = json.loads(storage.read_bytes(path))
        return value if {"fingerprint", "files", "summary"} <= set(value) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _keep_shard(root, job, label, columns, folder: str, shard: str, marker: dict, whole: bool):
    """Gives a shard's files a second name below ``folder`` and returns its rows as a table for the index.

    None if a file is gone. ``whole``: the shard may also be taken as it is.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        infos = _files(marker, label, columns, shard)
        for info in infos:
            storage.check(storage.join(root, info.path), info.size, info.sha256)
    except InputError:
        return None
    for info in infos:
        storage.copy(storage.join(root, info.path), _kept(root, job, label, folder, info.path))
    write_json(_kept(root, job, label, folder, shard), marker)
    if whole:
        place = {"folder": folder, "shard": shard}
        write_json(_kept(root, job, label, "shards", marker["fingerprint"]), place)
    name = scores_name(columns[0], shard)
    if name not in {info.path for info in infos}:
        return None
    data = io.BytesIO(storage.read_bytes(storage.join(root, name)))
    table = pyarrow.parquet.read_table(data, columns=["made_from", "error"])
    count = len(table)
    values = table["made_from"], [folder] * count, [shard] * count, range(count), table["error"].is_valid()
    return pa.table(dict(zip(_index_schema().names, values, strict=True))).cast(_index_schema())


def _drop_failed_shards(root: str, job: str, label: str) -> None:
    """Lets no shard be taken whole that has failed rows."""
    for mark in storage.list_names(_kept(root, job, label, "shards")):
        path = _kept(root, job, label, "shards", mark)
        place = json.loads(storage.read_bytes(path))
        marker = _read_marker(_kept(root, job, label, place["folder"], place["shard"]))
        if marker is None or marker["summary"]["failed"]:
            storage.remove(path)


def _sort_parts(root: str, job: str, label: str, columns: int, moves: bool, retry: bool) -> None:
    """Moves the parts of unfinished shards to where any shard finds them; on a retry removes those that failed."""
    own = storage.list_files(state_path(root, job, "parts", label, "*", "*"))
    for path in [*own, *storage.list_files(_kept(root, job, label, "parts", "*"))]:
        if retry and _part_failed(path, columns):
            storage.remove(path)
        elif moves and path in own:
            storage.copy(path, _kept(root, job, label, "parts", path.rpartition("/")[2]))
            storage.remove(path)


def _part_failed(path: str, columns: int) -> bool:
    with open_part(path) as part:
        return part is None or len(part) > columns


def _index_schema():
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [("key", pa.string()), ("folder", name), ("shard", name), ("row", pa.int32()), ("failed", pa.bool_())]
    )


def _write_index(path: str, tables: list, retry: bool) -> None:
    """Adds rows to the index."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet

    before = read_index(path)
    tables = [_index_schema().empty_table(), *([] if before is None else [before]), *tables]
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    if retry:
        table = table.filter(pc.invert(table["failed"]))
    if len(table):
        with storage.atomic_file(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)
    else:
        storage.remove(path)
    _read_index.cache_clear()


def forget_kept(root: str, job: str, labels: Iterable[str]) -> None:
    """Removes what was set aside of some steps: their shards are written."""
    for label in labels:
        storage.remove_tree(_kept(root, job, label))
    if not storage.is_remote(root):
        with suppress(OSError):
            os.rmdir(state_path(root, job, "kept"))
    _read_index.cache_clear()


# --- A worker uses it ---


def read_index(path: str):
    """The index of rows as a table; None if there is none. Read once a process: three million rows are some 200 MB."""
    import pyarrow

    try:
        return _read_index(path)
    except (FileNotFoundError, pyarrow.ArrowException):
        return None


@functools.lru_cache(maxsize=1)
def _read_index(path: str):
    import pyarrow.parquet

    data = io.BytesIO(storage.read_bytes(path))
    return pyarrow.parquet.read_table(data, read_dictionary=["folder", "shard"]).cast(_index_schema())


def take_whole(
    root: str, job: str, label: str, columns: Sequence[str], mark: str, task: ShardTask
) -> StepResult | None:
    """Publishes a shard that was set aside as this one, if one was that is made from the same; else None."""
    try:
        place = json.loads(storage.read_bytes(_kept(root, job, label, "shards", mark)))
        folder = _kept(root, job, label, place["folder"])
        marker = json.loads(storage.read_bytes(storage.join(folder, place["shard"])))
        infos = _files(marker, label, columns, place["shard"])
        for info in infos:
            storage.check(storage.join(folder, info.path), info.size, info.sha256)
    except (FileNotFoundError, InputError):
        return None
    files = []
    for info in infos:
        path = info.path.replace(f"-{place['shard']}.", f"-{task}.")
        storage.copy(storage.join(folder, info.path), storage.join(root, path))
        files.append(ShardInfo(path, info.count, info.size, info.sha256))
    return StepResult(tuple(files), {**marker["summary"], "frames": 0})


@dataclass(frozen=True)
class KeptRow:
    """A finished row: the shards that it is in, by column, and the table of failures there."""

    readers: dict[str, ShardReader]
    failures: dict[str, dict]
    row: int

    def read_bytes(self, column: str) -> bytes:
        return self.readers[column].read_bytes(self.row)


def find_rows(root: str, job: str, label: str, columns: Sequence[str], keys: Sequence[str]) -> dict[str, KeptRow]:
    """Key -> where that row was set aside, for the keys that are there and whose shard is whole."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_index(_kept(root, job, label, "rows.parquet"))
    if table is None:
        return {}
    mine = table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))
    shards: dict[tuple[str, str], tuple | None] = {}
    out = {}
    for place in mine.to_pylist():
        where = place["folder"], place["shard"]
        if where not in shards:
            shards[where] = _open_shard(_kept(root, job, label, where[0]), where[1], label, columns)
        if shards[where] is not None:
            out[place["key"]] = KeptRow(*shards[where], place["row"])
    return out


def _open_shard(folder: str, shard: str, label: str, columns: Sequence[str]) -> tuple | None:
    import pyarrow.parquet

    try:
        marker = json.loads(storage.read_bytes(storage.join(folder, shard)))
        infos = {info.path: info for info in _files(marker, label, columns, shard)}
        readers = {}
        for column in columns:
            info = infos[f"{column}/{column}-{shard}.array_record"]
            check_shard(folder, info)
            readers[column] = ShardReader(storage.join(folder, info.path), info)
        info = infos.get(f"failures/{label}-{shard}.parquet")
        if info is None:
            return readers, {}
        check_file(folder, info)
        table = pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(storage.join(folder, info.path))))
        return readers, {row["clip_id"]: row for row in table.to_pylist()}
    except (FileNotFoundError, InputError) as error:
        print(f"{label}: rows that were set aside are made again: {error}", flush=True)
        return None


def kept_part_names(root: str, job: str, label: str) -> set[str]:
    """The names of the parts that were set aside."""
    return set(storage.list_names(_kept(root, job, label, "parts")))


def kept_part(root: str, job: str, label: str, name: str) -> str:
    return _kept(root, job, label, "parts", name)
