"""The dataset's Parquet tables as columns: read once, joined by clip id, never as a list of rows.

Three million segments are some hundred columns of numbers, which fit in memory; as Python rows they would not.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.signals import VIDEO_FPS
from pipelines import storage
from pipelines.manifest import DUPLICATES, duplicate_infos, stale_duplicates
from pipelines.state import STATE

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD = re.compile(r"-(\d+)-of-\d+\.parquet$")
REJECT = ("stage", "kind", "reason", "detail")


@dataclass(frozen=True)
class Tables:
    """What a report is made of.

    Attributes:
        segments: one row per segment: the quality table, joined with the reject row (``stage``, ``kind``, ``reason``,
            ``detail``; null if kept) and with the shard it is in. A segment that was rejected before anything was
            measured has null scores.
        rejects: the reject table as it is: sources and segments.
        sources: one row per source; None where the dataset has none.
        duplicates: one row per clip that has a double; None where the dataset has none.
        stale_duplicates: whether there is such a table of other clips, which is left out.
        failures: one row per annotator and clip that failed; None where none did.
        markers: what the jobs left about their shards: job, step, seconds, summary.
    """

    segments: "pa.Table"
    rejects: "pa.Table"
    sources: "pa.Table | None"
    duplicates: "pa.Table | None"
    failures: "pa.Table | None"
    markers: list[dict]
    stale_duplicates: bool = False


def read_tables(root: str, manifest: Mapping) -> Tables:
    """Reads every table of the dataset; that of duplicates if the manifest says that it is of its clips."""
    rejects = read_table(root, "rejects")
    return Tables(
        segments=join_segments(read_table(root, "quality"), rejects),
        rejects=rejects if rejects is not None else _empty(("source", "clip_id", *REJECT)),
        sources=read_table(root, "sources"),
        duplicates=_read_duplicates(root, manifest),
        failures=read_table(root, "failures"),
        markers=read_markers(root),
        stale_duplicates=bool(stale_duplicates(root, manifest)),
    )


def _read_duplicates(root: str, manifest: Mapping) -> "pa.Table | None":
    infos = duplicate_infos(manifest)
    if infos is None or stale_duplicates(root, manifest):
        return None
    if not all(storage.exists(storage.join(root, info.path)) for info in infos):
        return None
    return read_table(root, DUPLICATES)


def read_table(root: str, name: str) -> "pa.Table | None":
    """Reads every Parquet shard of a table, in order, with the shard's number as the column ``shard``.

    None if there is no shard.
    """
    import pyarrow as pa
    import pyarrow.parquet

    parts = []
    for index, path in enumerate(storage.list_files(storage.join(root, name, "*.parquet"))):
        with storage.local_copy(path) as local:
            part = pyarrow.parquet.read_table(local)
        found = _SHARD.search(path)
        shard = int(found.group(1)) if found else index
        parts.append(part.append_column("shard", pa.array(np.full(len(part), shard, np.int32))))
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks() if parts else None


def _empty(names: Sequence[str]) -> "pa.Table":
    import pyarrow as pa

    return pa.table({name: pa.array([], pa.string()) for name in names})


def join_segments(quality: "pa.Table | None", rejects: "pa.Table | None") -> "pa.Table":
    """Joins quality rows with the reject rows of segments by clip id; a segment with only a reject row is added."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if quality is None:
        quality = pa.table(
            {
                **{name: pa.array([], pa.string()) for name in ("source", "clip_id")},
                **{name: pa.array([], pa.int32()) for name in ("start_frame", "end_frame", "shard")},
                "kept": pa.array([], pa.bool_()),
            }
        )
    if rejects is None:
        rejects = _empty(("source", "clip_id", *REJECT))
    rejects = rejects.set_column(
        rejects.column_names.index("clip_id"), "clip_id", rejects["clip_id"].cast(pa.string())
    ).filter(pc.is_valid(rejects["clip_id"]))
    if len(rejects):
        unmeasured = rejects.filter(pc.invert(pc.is_in(rejects["clip_id"], value_set=quality["clip_id"])))
        keys = ("source", "clip_id", "start_frame", "end_frame", "shard")
        added = unmeasured.select([name for name in keys if name in unmeasured.column_names])
        added = added.append_column("kept", pa.array(np.zeros(len(added), bool)))
        quality = pa.concat_tables([quality, added], promote_options="permissive").combine_chunks()
    where = pc.index_in(quality["clip_id"], value_set=rejects["clip_id"])
    # A kept clip has no reject row that counts: its columns stay null.
    where = pc.if_else(quality["kept"], pa.scalar(None, pa.int32()), where)
    for name in REJECT:
        quality = quality.append_column(name, rejects[name].take(where).cast(pa.string()))
    return quality


def read_markers(root: str) -> list[dict]:
    """Reads the markers of every job: job, step, seconds of work, summary."""
    rows = []
    for path in storage.list_files(storage.join(root, STATE, "*", "*", "*.json")):
        job, step = path.split("/")[-3:-1]
        marker = json.loads(storage.read_bytes(path))
        if "seconds" in marker:
            rows.append(
                {"job": job, "step": step, "seconds": marker["seconds"], "summary": marker.get("summary") or {}}
            )
    return rows


# --- Columns as arrays ---


def numbers(table: "pa.Table", name: str) -> np.ndarray:
    """A column as float64 (rows,); NaN where it is null or the table lacks the column."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    import pyarrow as pa

    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def flags(table: "pa.Table", name: str) -> np.ndarray:
    """A column of truth values as bool (rows,); null is False."""
    return np.asarray(table[name].fill_null(False).to_numpy(zero_copy_only=False), bool)


def texts(table: "pa.Table", name: str) -> np.ndarray:
    """A column of text as str objects (rows,); "" where it is null or the table lacks the column."""
    if name not in table.column_names:
        return np.full(len(table), "", object)
    import pyarrow as pa

    return table[name].cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)


def hours(table: "pa.Table") -> np.ndarray:
    """float64 (rows,): how long each segment is."""
    return (numbers(table, "end_frame") - numbers(table, "start_frame")) / VIDEO_FPS / 3600


def totals(names: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Sums the weights of each name, largest sum first."""
    unique, where = np.unique(names.astype(str), return_inverse=True)
    sums = np.bincount(where, weights=weights, minlength=len(unique)) if len(unique) else []
    return dict(sorted(zip(unique.tolist(), map(float, sums), strict=True), key=lambda item: (-item[1], item[0])))


def row_of(table: "pa.Table", index: int) -> Mapping:
    """One row as a dictionary."""
    return table.slice(int(index), 1).to_pylist()[0]
