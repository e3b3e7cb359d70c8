"""The dataset on disk: columns, shards, manifest and record fields, in the one place where they are defined.

A dataset is a folder (local or ``gs://``) of aligned columns in ArrayRecord: row k of shard s is the same clip in
every column, so a column can be made again without touching another and a loader joins by index without a shuffle. A
clip whose annotator failed keeps its row, with the reason in ``error``.

Records are ``tf.train.Example`` (what TFDS, seqio and MaxText read), written and read without TensorFlow, which would
cost a loader worker seconds and hundreds of megabytes. An array is one bytes feature with ``/dtype`` and ``/shape``
features beside it.
"""

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from models.errors import InputError
from pipelines import storage

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

# Column -> its fields. Every record also has `clip_id` and `error` (empty if the row is good). T is the clip's number
# of frames.
COLUMN_FIELDS: dict[str, tuple[str, ...]] = {
    "clips": (
        "source",
        "source_sha256",
        "start_frame",
        "end_frame",
        "num_frames",
        "box",  # float32 (3,): x0, y0, side in source pixels
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
    "description": ("description", "backend"),
    "script": ("text", "words", "language", "confidence", "backend"),
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
        "split",
    ),
}
ANNOTATIONS = ("shape", "expression", "pose", "semantics", "description", "script", "speech", "image")

Value = np.ndarray | bytes | str | int | float
Record = dict[str, Value]


# --- Records ---


@functools.lru_cache(maxsize=1)
def _example_class():
    """Builds tf.train.Example's message class from its public field numbers."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="archon/example.proto", package="archon.example", syntax="proto3")

    def message(name: str, parent=None):
        out = (parent.nested_type if parent is not None else file.message_type).add()
        out.name = name
        return out

    def add(owner, name: str, number: int, kind: int, repeated: bool = False, type_name: str = "", oneof: bool = False):
        out = owner.field.add(name=name, number=number, type=kind)
        out.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if type_name:
            out.type_name = f".archon.example.{type_name}"
        if oneof:
            out.oneof_index = 0
        if repeated and kind in (field.TYPE_FLOAT, field.TYPE_INT64):
            out.options.packed = True

    add(message("BytesList"), "value", 1, field.TYPE_BYTES, repeated=True)
    add(message("FloatList"), "value", 1, field.TYPE_FLOAT, repeated=True)
    add(message("Int64List"), "value", 1, field.TYPE_INT64, repeated=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        name = kind.replace("List", "_list").lower()
        add(feature, name, number, field.TYPE_MESSAGE, type_name=kind, oneof=True)
    features = message("Features")
    entry = message("FeatureEntry", features)
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_MESSAGE, type_name="Feature")
    add(features, "feature", 1, field.TYPE_MESSAGE, repeated=True, type_name="Features.FeatureEntry")
    add(message("Example"), "features", 1, field.TYPE_MESSAGE, type_name="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("archon.example.Example"))


def encode_record(record: Mapping[str, Value]) -> bytes:
    """Serialises a record as tf.train.Example.

    The same record always gives the same bytes. Floats are kept as float32.
    """
    example = _example_class()()
    feature = example.features.feature
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            feature[name].bytes_list.value.append(np.ascontiguousarray(value).tobytes())
            feature[f"{name}/dtype"].bytes_list.value.append(value.dtype.str.encode())
            feature[f"{name}/shape"].int64_list.value.extend(value.shape)
        elif isinstance(value, str):
            feature[name].bytes_list.value.append(value.encode())
            feature[f"{name}/dtype"].bytes_list.value.append(b"str")
        elif isinstance(value, bytes):
            feature[name].bytes_list.value.append(value)
        elif isinstance(value, bool | int | np.integer):
            feature[name].int64_list.value.append(int(value))
        elif isinstance(value, float | np.floating):
            feature[name].float_list.value.append(float(value))
        else:
            raise TypeError(f"field {name}: {type(value).__name__} is not one of ndarray, str, bytes, int, float")
    return example.SerializeToString(deterministic=True)


def decode_record(data: bytes) -> Record:
    """Reads what encode_record wrote. Arrays are read-only views of the record's bytes."""
    feature = _example_class().FromString(data).features.feature
    record: Record = {}
    for name in feature:
        if name.endswith(("/dtype", "/shape")):
            continue
        value = feature[name]
        kind = value.WhichOneof("kind")
        if kind == "int64_list":
            record[name] = int(value.int64_list.value[0])
        elif kind == "float_list":
            record[name] = float(value.float_list.value[0])
        else:
            raw = value.bytes_list.value[0]
            dtype = feature[f"{name}/dtype"].bytes_list.value[0] if f"{name}/dtype" in feature else b""
            if dtype == b"str":
                record[name] = raw.decode()
            elif dtype:
                shape = tuple(feature[f"{name}/shape"].int64_list.value)
                record[name] = np.frombuffer(raw, np.dtype(dtype.decode())).reshape(shape)
            else:
                record[name] = raw
    return record


def error_record(clip_id: str, error: str) -> Record:
    """The row of a clip whose annotator failed; ``error`` is "stage: Type: message"."""
    return {"clip_id": clip_id, "error": error}


# --- Shards ---


@dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one shard; ``path`` is relative to the dataset."""

    path: str
    count: int
    size: int
    sha256: str


def shard_name(column: str, index: int, count: int) -> str:
    """clips, 0, 8 -> clips/clips-00000-of-00008.array_record"""
    return f"{column}/{column}-{index:05d}-of-{count:05d}.array_record"


class ShardWriter:
    """Writes records one after another to a local ArrayRecord file; nothing is held in memory but the last one."""

    def __init__(self, path: str):
        from array_record.python import array_record_module

        self.path, self.count = path, 0
        self.size, self.sha256 = 0, ""  # known once the file is closed and checked
        # group_size:1 is what random access wants; zstd makes raw label volumes small.
        self._writer = array_record_module.ArrayRecordWriter(path, "group_size:1,zstd:3")

    def write(self, record: Record) -> None:
        self._writer.write(encode_record(record))
        self.count += 1

    def close(self) -> None:
        if self._writer.is_open():
            self._writer.close()


@contextmanager
def shard_writer(path: str) -> Iterator[ShardWriter]:
    """Yields a writer; when the block ends well the file is read back, checked and published as ``path``.

    Raises:
        OSError: what was read back is not what was written. Nothing is published.
    """
    from array_record.python import array_record_module

    with storage.atomic_file(path) as temporary:
        writer = ShardWriter(temporary)
        try:
            yield writer
        finally:
            writer.close()
        reader = array_record_module.ArrayRecordReader(temporary)
        if not reader.ok() or reader.num_records() != writer.count:
            raise OSError(f"{path}: wrote {writer.count} records but read back {reader.num_records()}")
        for index in range(writer.count):
            if not reader.read([index])[0]:
                raise OSError(f"{path}: record {index} read back empty")
        reader.close()
        writer.size, writer.sha256 = os.path.getsize(temporary), storage.sha256_file(temporary)


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

            if not storage.is_remote(self.path) and not os.path.exists(self.path):
                raise InputError(f"{self.path}: this shard is missing")
            if self._info is not None and storage.size(self.path) != self._info.size:
                raise InputError(
                    f"{self.path}: {storage.size(self.path)} bytes, but the manifest says {self._info.size}: "
                    "truncated or replaced"
                )
            reader = array_record_module.ArrayRecordReader(self.path)
            # A file that was cut short opens without an error and says that it has no records; only ok() tells.
            if not reader.ok():
                raise InputError(
                    f"{self.path}: not a whole ArrayRecord file (truncated, or its writer never closed it)"
                )
            self._reader = reader
        return self._reader

    def __len__(self) -> int:
        return self._info.count if self._info is not None else self._open().num_records()

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: record {index} of {len(self)}")
        data = self._open().read([index])[0]
        if not data:
            raise InputError(f"{self.path}: record {index} is empty")
        return decode_record(data)


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
        try:
            return json.loads(storage.read_bytes(self.path(MANIFEST)))
        except FileNotFoundError:
            raise InputError(
                f"{self.path(MANIFEST)}: no such file; expected a dataset made by `archon curate`"
            ) from None
        except json.JSONDecodeError as error:
            raise InputError(f"{self.path(MANIFEST)}: not JSON ({error})") from None

    def columns(self) -> list[str]:
        return list(self.manifest()["columns"])

    def shard_infos(self, column: str) -> list[ShardInfo]:
        columns = self.manifest()["columns"]
        if column not in columns:
            raise InputError(f"{self.root}: no column {column!r}; it has {', '.join(columns) or 'none'}")
        return [ShardInfo(**info) for info in columns[column]["shards"]]

    def shards(self, column: str) -> list[str]:
        return [self.path(info.path) for info in self.shard_infos(column)]

    def column(self, column: str) -> Column:
        return Column([ShardReader(self.path(info.path), info) for info in self.shard_infos(column)])

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
    root: str | os.PathLike, columns: Mapping[str, tuple[Sequence[ShardInfo], Mapping]], **facts
) -> dict:
    """Sets the named columns' shards and producers, and any further facts, in the manifest.

    Column -> (shards, producer).
    """
    path = storage.join(root, MANIFEST)
    manifest = {"schema_version": SCHEMA_VERSION, "columns": {}}
    if storage.exists(path):
        manifest = Dataset(root).manifest()
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"{path}: schema_version {manifest.get('schema_version')}, expected {SCHEMA_VERSION}")
    for column, (shards, producer) in columns.items():
        if column not in COLUMN_FIELDS:
            raise ValueError(f"unknown column {column}")
        manifest["columns"][column] = {
            "producer": dict(producer),
            "count": sum(info.count for info in shards),
            "shards": [asdict(info) for info in shards],
        }
    manifest.update(facts)
    write_json(path, manifest)
    return manifest
