"""The dataset on disk: columns, shards, manifest and record fields, in the one place where they are defined.

A dataset is a folder (local or ``gs://``) of aligned columns in ArrayRecord: row k of shard s is the same clip in
every column, so a column can be made again without touching another and a loader joins by index without a shuffle. A
clip whose annotator failed keeps its row, with the reason in ``error``.

Beside the columns lie tables (Parquet): rejects and quality of `archon curate`, and of `archon annotate` and `archon
tokenize` the failures (`failures/`, see FAILURE_FIELDS) and what each column says of its clips in figures (`scores/`,
see pipelines/column_scores.py). The manifest (pipelines/manifest.py) lists every shard with its
size, hash and count; readers check it first and name a shard that is missing, truncated or replaced.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from models.errors import InputError
from pipelines import storage
from pipelines.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ShardInfo,
    check_manifest,
    read_manifest,
    score_infos,
    shard_infos,
)
from pipelines.records import Record, Value, decode_record, encode_record

# What every record of every column has, error rows too: which clip this is, where it comes from, what made it.
ROW_FIELDS = (
    "clip_id",
    "error",  # empty if the row is good, else "annotator: Type: message" and the fields of the column are not there
    "source_sha256",  # of the source video's file
    "start_frame",  # the clip's frames in the source, on the 30 fps clock, end excluded
    "end_frame",
    "box",  # float32 (3,): x0, y0, side in source pixels
    "made_by",  # JSON: column -> {"backend", "code", "config", "weights"}, for the column and all that it builds on
)
# Column -> its own fields. T is the clip's number of frames.
COLUMN_FIELDS: dict[str, tuple[str, ...]] = {
    "clips": (
        "source",
        "num_frames",
        "source_size",  # int32 (2,): width, height as displayed
        "video",  # mp4 bytes: 256x256 H.264 at 30 fps with AAC sound
        "audio",  # int16 (audio_samples(T),), 16 kHz mono
        "landmarks",  # float32 (T, 68, 2), crop pixels, iBUG-68 order
        "landmark_backend",
        "scores",  # JSON object: every filter's figure
    ),
    "shape": ("shape", "camera", "face_model"),
    "expression": ("expression",),
    "pose": ("pose", "reprojection_error"),
    "semantics": ("labels", "backend", "flicker"),  # flicker: share of still pixels that change their label
    "description": (
        "description",
        "backend",
        "usage",  # JSON object: what a paid service counted and cost; empty for a captioner that is not paid
    ),
    "script": (
        "text",
        "words",  # JSON list of {word, start, end, confidence}, seconds
        "language",  # ISO 639-1, or "und" where it is not decided
        "language_confidence",  # 0..1
        "confidence",  # 0..1, of the words, weighted by their duration
        "speech_rate",  # words a second of speech
        "flags",  # JSON list of {reason, text, start, end}: what was heard and left out
        "details",  # JSON object: what its maker says beside: log-probabilities, the subtitle file and its hash ...
        "backend",
    ),
    "speech": ("audio", "gain_db", "activity", "pitch_hz", "backend"),
    "image": ("image", "frame"),
    "tokens": (
        "num_frames",
        "speech",
        "image",
        "semantics",
        "shape",
        "expression",
        "pose",
        "description",
        "script",
        "tokenizers",
        "split",  # "train" or "heldout" (heldout_sources): the one field that follows from all sources
    ),
}
# The columns of the table of failures (failures/*.parquet), all text: one row for each annotator and clip that failed.
# `column` is the annotator's first column, or `tokens`. `traceback_hash` is the same for the same failure of another
# clip; it and `traceback` are null where the cause is a failed row of another column (type MissingInput).
FAILURE_FIELDS = ("column", "clip_id", "stage", "type", "message", "traceback_hash", "traceback")
ANNOTATIONS = ("shape", "expression", "pose", "semantics", "description", "script", "speech", "image")


def row_fields(clip: Mapping[str, Value], made_by: str, error: str = "") -> Record:
    """The fields that every record has (ROW_FIELDS), for a clip's row in a column.

    Args:
        clip: its record in the clips column (or the same fields).
        made_by: see pipelines/provenance.py.
        error: why there is nothing else in the row.
    """
    return {
        "clip_id": clip["clip_id"],
        "error": error,
        "source_sha256": clip["source_sha256"],
        "start_frame": int(clip["start_frame"]),
        "end_frame": int(clip["end_frame"]),
        "box": np.asarray(clip["box"], np.float32),
        "made_by": made_by,
    }


# --- Shards ---


def shard_name(column: str, index: int, count: int) -> str:
    """clips, 0, 8 -> clips/clips-00000-of-00008.array_record"""
    return f"{column}/{column}-{index:05d}-of-{count:05d}.array_record"


class ShardWriter:
    """Writes records one after another to a local ArrayRecord file; nothing is held in memory but the last one."""

    def __init__(self, path: str):
        from array_record.python import array_record_module

        self.path, self.count = path, 0
        self.size, self.sha256 = 0, ""  # known once the file is closed and checked
        self._sums: list[bytes] = []
        # group_size:1 is what random access wants; zstd makes raw label volumes small.
        self._writer = array_record_module.ArrayRecordWriter(path, "group_size:1,zstd:3")

    def write(self, record: Record) -> None:
        self.write_bytes(encode_record(record))

    def write_bytes(self, data: bytes) -> None:
        """Writes a record that is encoded already."""
        self._writer.write(data)
        self._sums.append(hashlib.sha256(data).digest())
        self.count += 1

    def close(self) -> None:
        if self._writer.is_open():
            self._writer.close()

    def check(self, name: str) -> None:
        """Reads the closed file back; OSError if a byte of a record is not what was written. Sets size and sha256."""
        from array_record.python import array_record_module

        reader = array_record_module.ArrayRecordReader(self.path)
        if not reader.ok() or reader.num_records() != self.count:
            raise OSError(f"{name}: wrote {self.count} records but read back {reader.num_records()}")
        for index, expected in enumerate(self._sums):
            try:
                data = reader.read([index])[0]
            except Exception as error:  # the reader's own errors have no common class
                raise OSError(f"{name}: record {index} cannot be read back ({error!r})") from error
            if hashlib.sha256(data).digest() != expected:
                raise OSError(f"{name}: record {index} is not what was written when it is read back")
        reader.close()
        self.size, self.sha256 = os.path.getsize(self.path), storage.sha256_file(self.path)


@contextmanager
def shard_writer(path: str) -> Iterator[ShardWriter]:
    """Yields a writer; when the block ends well the file is read back, checked and published as ``path``.

    Raises:
        OSError: what was read back is not what was written. Nothing is published.
    """
    with storage.atomic_file(path) as temporary:
        writer = ShardWriter(temporary)
        try:
            yield writer
        finally:
            writer.close()
        writer.check(path)


def write_shard(root: str | os.PathLike, name: str, records: Iterable[Record]) -> ShardInfo:
    """Writes a shard under a temporary local name, reads it back, hashes it and publishes it as ``root/name``."""
    with shard_writer(storage.join(root, name)) as writer:
        for record in records:
            writer.write(record)
    return ShardInfo(name, writer.count, writer.size, writer.sha256)


class ShardReader(Sequence):
    """Random access to one shard's records. Opens the file on first use, so that it can be sent to another process."""

    def __init__(self, path: str | os.PathLike, info: ShardInfo | None = None):
        self.path, self._info, self._reader = str(path), info, None

    def __getstate__(self):
        return {"path": self.path, "_info": self._info, "_reader": None}

    def _open(self):
        if self._reader is None:
            from array_record.python import array_record_module

            if self._info is not None:
                storage.check(self.path, self._info.size, self._info.sha256)
            elif not storage.exists(self.path):
                raise InputError(f"{self.path}: this shard is missing")
            reader = array_record_module.ArrayRecordReader(self.path)
            # A file that was cut short opens without an error and says that it has no records; only ok() tells.
            if not reader.ok():
                raise InputError(
                    f"{self.path}: not a whole ArrayRecord file (truncated, or its writer never closed it)"
                )
            if self._info is not None and reader.num_records() != self._info.count:
                raise InputError(
                    f"{self.path}: {reader.num_records()} records, but the manifest says {self._info.count}"
                )
            self._reader = reader
        return self._reader

    def __len__(self) -> int:
        return self._info.count if self._info is not None else self._open().num_records()

    def read_bytes(self, index: int) -> bytes:
        """Returns a record as it is stored."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: record {index} of {len(self)}")
        reader = self._open()
        try:
            data = reader.read([index])[0]
        except Exception as error:  # the reader's own errors have no common class, and some have no text
            raise InputError(f"{self.path}: record {index} cannot be read, damaged? ({error!r})") from error
        if not data:
            raise InputError(f"{self.path}: record {index} is empty")
        return data

    def __getitem__(self, index: int) -> Record:
        data = self.read_bytes(index)
        try:
            return decode_record(data)
        except Exception as error:
            raise InputError(f"{self.path}: record {index} is not a record of ours ({error!r})") from error


_hashed: dict[tuple, str] = {}  # (path, size, time of the file) -> hash of its bytes, of this process


def check_shard(root: str | os.PathLike, info: ShardInfo, full: bool = True) -> None:
    """Checks a shard against the manifest: size and number of records, and if ``full`` the hash of its bytes.

    Raises:
        InputError: it is missing, truncated, replaced or damaged; names the file.
    """
    check_file(root, info, full)
    ShardReader(storage.join(root, info.path), info)._open()


def check_file(root: str | os.PathLike, info: ShardInfo, full: bool = True) -> None:
    """Checks a file's size, and if ``full`` the hash of its bytes.

    A hash is computed once a process, as long as the file's size and time stay the same. InputError as check_shard.
    """
    path = storage.join(root, info.path)
    storage.check(path, info.size, info.sha256)
    if full:
        key = (path, info.size, info.sha256 if storage.is_remote(path) else os.stat(path).st_mtime_ns)
        if key not in _hashed:
            with storage.local_copy(path) as local:
                _hashed[key] = storage.sha256_file(local)
        if _hashed[key] != info.sha256:
            raise InputError(
                f"{path}: its bytes have hash {_hashed[key]}, but the manifest says {info.sha256}: damaged"
            )


def read_shard(path: str | os.PathLike) -> Iterator[Record]:
    return iter(ShardReader(path))


class Column(Sequence):
    """Random access to one column across its shards, in row order."""

    def __init__(self, readers: Sequence[ShardReader]):
        self._readers = list(readers)
        self._ends = np.cumsum([len(reader) for reader in readers]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return self._readers[shard][index - (self._ends[shard - 1] if shard else 0)]


# --- The dataset ---


@dataclass(frozen=True)
class Dataset:
    """A dataset for reading. Cheap to make and to send to another process."""

    root: str

    def __init__(self, root: str | os.PathLike):
        object.__setattr__(self, "root", str(root))

    def path(self, name: str) -> str:
        return storage.join(self.root, name)

    def manifest(self) -> dict:
        """The checked manifest (pipelines/manifest.py). InputError if there is none or it is not one."""
        return read_manifest(self.root, COLUMN_FIELDS)

    def columns(self) -> list[str]:
        return list(self.manifest()["columns"])

    def shard_infos(self, column: str) -> list[ShardInfo]:
        manifest = self.manifest()
        if column not in manifest["columns"]:
            raise InputError(f"{self.root}: no column {column!r}; it has {', '.join(manifest['columns']) or 'none'}")
        return shard_infos(manifest, column)

    def score_infos(self, column: str) -> list[ShardInfo]:
        """The files of a column's table of scores (pipelines/column_scores.py), one a shard.

        InputError if the dataset has none.
        """
        infos = score_infos(self.manifest(), column)
        if not infos:
            raise InputError(
                f"{self.root}: column {column} has no table of scores; annotate again: "
                f"archon annotate --dataset {self.root} --columns {column}"
            )
        return infos

    def shards(self, column: str) -> list[str]:
        return [self.path(info.path) for info in self.shard_infos(column)]

    def column(self, column: str) -> Column:
        return Column([ShardReader(self.path(info.path), info) for info in self.shard_infos(column)])

    def verify(self, *columns: str, full: bool = False) -> None:
        """Checks every shard of the named columns (default: all) with check_shard. InputError names the first bad one.

        Without ``full`` this reads no data: what a job does when it opens a dataset.
        """
        infos = [info for column in columns or self.columns() for info in self.shard_infos(column)]
        # Most of the time goes into waiting for the disk or the network.
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(lambda info: check_shard(self.root, info, full), infos):
                pass

    def good_rows(self, *columns: str) -> list[int]:
        """Rows in which none of the named columns carries an error."""
        readers = [self.column(column) for column in columns]
        return [row for row in range(len(readers[0])) if not any(reader[row]["error"] for reader in readers)]

    def split(self, name: str) -> list[int]:
        """Row indices of "train" or "heldout"; see split_of_sources."""
        sources = [record["source_sha256"] for record in self.column("clips")]
        held = heldout_sources(sources)
        return [row for row, source in enumerate(sources) if (source in held) == (name == "heldout")]


def heldout_sources(sources: Iterable[str]) -> set[str]:
    """The sources held out from training: a sixth of them, 1 to 200, smallest content hash first.

    200 is how many videos each of the paper's benchmarks tests on.
    Splitting by source keeps two clips of one video on one side, and the rule needs no list to be stored. A single
    source is not held out: with nothing left to train on there is nothing to hold out from.
    """
    known = sorted(set(sources))
    if len(known) < 2:
        return set()
    return set(known[: min(200, max(1, round(len(known) / 6)))])


def write_json(path: str, value) -> None:
    storage.write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def update_manifest(
    root: str | os.PathLike,
    columns: Mapping[str, tuple[Sequence[ShardInfo], Mapping]],
    scores: Mapping[str, Sequence[ShardInfo]] | None = None,
    **facts,
) -> dict:
    """Sets the named columns' shards and producers, and any further facts, in the manifest.

    Column -> (shards, producer). ``scores``: column -> the files of its table of scores (pipelines/column_scores.py).
    A fact that is None is taken out.
    """
    path = storage.join(root, MANIFEST)
    manifest = {"schema_version": SCHEMA_VERSION, "columns": {}}
    if storage.exists(path):
        manifest = Dataset(root).manifest()
    for column, (shards, producer) in columns.items():
        if column not in COLUMN_FIELDS:
            raise ValueError(f"unknown column {column}")
        manifest["columns"][column] = {
            "producer": dict(producer),
            "count": sum(info.count for info in shards),
            "shards": [asdict(info) for info in shards],
        }
        if scores and column in scores:
            manifest["columns"][column]["scores"] = [asdict(info) for info in scores[column]]
    manifest.update(facts)
    manifest = {name: value for name, value in manifest.items() if value is not None}
    check_manifest(manifest, COLUMN_FIELDS, path)
    write_json(path, manifest)
    return manifest
