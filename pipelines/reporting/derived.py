"""What the annotation columns say of each clip, as columns of numbers and words beside the filters' scores.

A column is read record by record and only its figures are kept.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.signals import SPEECH_RATE
from pipelines.dataset import Record

if TYPE_CHECKING:
    import pyarrow as pa


def _script(record: Record) -> dict:
    words = json.loads(record["words"]) if record["words"] else []
    return {
        "words": float(len(words)),
        "transcript_confidence": float(record["confidence"]),
        "language": record["language"],
        "language_confidence": _number(record, "language_confidence"),
        "speech_rate": _number(record, "speech_rate"),
        "script_backend": record["backend"],
    }


def _speech(record: Record) -> dict:
    activity = record["activity"]
    return {"speech_seconds": float(activity.sum()) / SPEECH_RATE, "loudness_gain_db": float(record["gain_db"])}


def _pose(record: Record) -> dict:
    error = record["reprojection_error"]
    return {"reprojection_error": float(np.mean(error))}


def _semantics(record: Record) -> dict:
    return {"flicker": _number(record, "flicker")}


def _description(record: Record) -> dict:
    try:
        values = json.loads(record["description"])
    except json.JSONDecodeError:
        values = {}
    return {
        "gender": _word(values, "gender"),
        "age_group": _word(values, "age_group"),
        "ethnicity": _word(values, "ethnicity"),
        "skin_tone": _word(values, "facial_features", "skin_tone"),
        "lighting_brightness": _word(values, "lighting", "brightness"),
        "lighting_direction": _word(values, "lighting", "direction"),
        "captioner": record["backend"],
    }


def _number(record: Record, name: str) -> float | None:
    return float(record[name]) if name in record else None


def _word(values, *path: str) -> str | None:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, str) else None


BATCH = 8192

# Column -> what one of its records gives.
DERIVED: dict[str, Callable[[Record], dict]] = {
    "speech": _speech,
    "script": _script,
    "pose": _pose,
    "semantics": _semantics,
    "description": _description,
}


def read_annotations(columns: Mapping[str, Sequence[Record]]) -> tuple["pa.Table | None", dict[str, list[str]]]:
    """Reads every annotation column once.

    Returns:
        a table of clip_id and the derived figures of each clip (None without any column that gives figures; one that
        no clip has is left out), and column -> "clip: error" of each row whose annotator failed.
    """
    tables: list[pa.Table] = []
    errors: dict[str, list[str]] = {}
    for name, column in columns.items():
        errors[name] = []
        table = _read_column(column, DERIVED.get(name), errors[name])
        if table is not None:
            tables.append(table)
    return (_joined(tables) if tables else None), errors


def _read_column(column: Sequence[Record], derive: Callable | None, errors: list[str]) -> "pa.Table | None":
    """Reads one column, some thousands of records at a time: as Python rows all of them would not fit."""
    import pyarrow as pa

    parts, rows = [], []
    for record in column:
        if record["error"]:
            errors.append(f"{record['clip_id']}: {record['error']}")
        elif derive is not None:
            rows.append({"clip_id": record["clip_id"], **derive(record)})
        if len(rows) == BATCH:
            parts.append(_as_table(rows))
            rows = []
    if rows:
        parts.append(_as_table(rows))
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks() if parts else None


def _as_table(rows: Sequence[Mapping]) -> "pa.Table":
    """Numbers as float32, the rest as text; a figure that no row has is a column of nulls."""
    import pyarrow as pa

    out = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind = pa.string() if any(isinstance(value, str) for value in values) else pa.float32()
        out[name] = pa.array(values, pa.null() if all(value is None for value in values) else kind)
    return pa.table(out)


def _joined(tables: Sequence["pa.Table"]) -> "pa.Table":
    """Joins the columns' figures by clip id and adds the rate of speech where the script does not state it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array([chunk for table in tables for chunk in table["clip_id"].chunks]).unique()
    out = {"clip_id": ids}
    for table in tables:
        where = pc.index_in(ids, value_set=table["clip_id"])
        out |= {name: table[name].take(where) for name in table.column_names if name != "clip_id"}
    if "words" in out and "speech_seconds" in out:
        spoken = pc.if_else(pc.greater(out["speech_seconds"], 0), out["speech_seconds"], None)
        out["speech_rate"] = pc.coalesce(
            out["speech_rate"].cast(pa.float32()), pc.divide(out["words"], spoken).cast(pa.float32())
        )
    return pa.table({name: column for name, column in out.items() if column.type != pa.null()})
