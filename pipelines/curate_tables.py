"""The tables of `archon curate`, Parquet, one file a shard, rows in the order of the sources.

rejects: why a source (``clip_id`` null) or a segment is not kept. quality: what was measured of every segment, kept or
not. sources: one row a source, whatever became of it. A figure that was not measured is null.
"""

import io

from pipelines import storage
from pipelines.stages.filters import LABELS, SCORES

TABLES = ("rejects", "quality", "sources")


def reject_schema():
    """``traceback_hash`` and ``traceback`` are null unless ``kind`` is "failed"."""
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {"source": text, "clip_id": text, "start_frame": number, "end_frame": number}
    names = ("stage", "kind", "reason", "detail", "traceback_hash", "traceback")
    return pa.schema([*fields.items(), *((name, text) for name in names)])


def quality_schema():
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {"source": text, "clip_id": text, "start_frame": number, "end_frame": number}
    return pa.schema(
        [
            *fields.items(),
            *((name, pa.float32()) for name in SCORES),
            *((name, text) for name in LABELS),
            ("flags", text),
            ("kept", pa.bool_()),
        ]
    )


def source_schema():
    """``seconds``: of the file; ``speech_seconds``: of speech; ``face_share``: of the searched frames with a face;
    ``stage`` and ``reason``: why it has no clip, null if it has.
    """
    import pyarrow as pa

    text, number, whole, figure = pa.string(), pa.int32(), pa.int64(), pa.float64()
    fields = {
        "source": text,
        "source_sha256": text,
        "bytes": whole,
        "codec": text,
        "width": number,
        "height": number,
        "fps": figure,
        "rotation": number,
        "seconds": figure,
        "speech_seconds": figure,
        "face_share": figure,
        "shots": number,
        "status": text,
        "stage": text,
        "reason": text,
        "clips": number,
        "kept_seconds": figure,
    }
    return pa.schema(list(fields.items()))


def table_schema(table: str):
    return {"rejects": reject_schema, "quality": quality_schema, "sources": source_schema}[table]()


def table_name(table: str, shard: object) -> str:
    return f"{table}/{table}-{shard}.parquet"


def read_table(path: str) -> list[dict]:
    """Raises FileNotFoundError, or pyarrow's error for a file that is no table."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(path))).to_pylist()
