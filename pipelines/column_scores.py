"""What each column says of its clips in figures: a small table beside every shard, which readers take by column.

``scores/<column>-<shard>.parquet``, one row a clip in the order of the shard. Labels of ten seconds are 20 MB, so no
report over millions of clips can read the records themselves; what it wants to know of a record is written down when
the record is. FIGURES is the one definition of the tables; the manifest lists their files with the column's.
"""

import json
from collections.abc import Sequence

import numpy as np

from models.signals import SPEECH_RATE
from pipelines import storage
from pipelines.beam import fingerprint
from pipelines.code_hash import code_hash
from pipelines.dataset import ShardInfo
from pipelines.manifest import SCORES
from pipelines.records import Record
from pipelines.stages.filters import ANNOTATION_LABELS, ANNOTATION_SCORES
from pipelines.tables import write_table

# Columns of every table: name -> (type, meaning).
ROW: dict[str, tuple[str, str]] = {
    "clip_id": ("string", "20 hexadecimal digits: hash of the source's content and the frame range"),
    "source_sha256": ("string", "hash of the source video's file"),
    "error": ("string", "why the record holds nothing; null if it is good"),
    "made_from": (
        "string",
        "hash of all that the record is made from: the clip's record, its producer and the records that it builds on",
    ),
}
# Column -> its figures: name -> (type, meaning). A figure is null in the row of a clip that failed.
FIGURES: dict[str, dict[str, tuple[str, str]]] = {
    "speech": {
        "speech_seconds": ("float32", "seconds in which somebody speaks, by the speech column's voice activity"),
        "speech_share": ("float32", "share of the clip in which somebody speaks"),
        "loudness_gain_db": ("float32", "gain that the speech column applied, dB"),
    },
    "script": {
        "words": ("float32", "number of words of the script"),
        **{name: ("string", text) for name, text in ANNOTATION_LABELS.items()},
        **{name: ("float32", text) for name, text in ANNOTATION_SCORES.items()},
        "script_flags": ("string", "why something that was heard was left out of the script, comma-separated"),
        "script_backend": ("string", "what made the script"),
    },
    "pose": {
        "reprojection_error": (
            "float32",
            "mean distance of the fitted face's landmarks from the detector's, crop pixels",
        ),
    },
    "semantics": {
        "flicker": ("float32", "share of still pixels that change their parsing label from one frame to the next"),
    },
    "description": {
        "gender": ("string", "gender presentation, in the captioner's words"),
        "age_group": ("string", "age group, in the captioner's words"),
        "ethnicity": ("string", "in the captioner's words"),
        "skin_tone": ("string", "skin tone as it looks in the clip's light"),
        "lighting_brightness": ("string", "dark, dim, medium or bright"),
        "lighting_direction": ("string", "where the light comes from"),
        "captioner": ("string", "what made the description"),
    },
}


# --- One record ---


def speech_figures(record: Record) -> dict:
    activity = record["activity"]
    return {
        "speech_seconds": float(activity.sum()) / SPEECH_RATE,
        "speech_share": float(activity.mean()) if len(activity) else None,
        "loudness_gain_db": float(record["gain_db"]),
    }


def script_figures(record: Record) -> dict:
    words = json.loads(record["words"]) if record["words"] else []
    left_out = json.loads(record["flags"]) if record.get("flags") else []
    return {
        "words": float(len(words)),
        "language": record["language"],
        "language_confidence": _number(record, "language_confidence"),
        "transcript_confidence": _number(record, "confidence"),
        "speech_rate": _number(record, "speech_rate"),
        "script_flags": ",".join(sorted({flag["reason"] for flag in left_out})) or None,
        "script_backend": record["backend"],
    }


def pose_figures(record: Record) -> dict:
    return {"reprojection_error": float(np.mean(record["reprojection_error"]))}


def semantics_figures(record: Record) -> dict:
    return {"flicker": _number(record, "flicker")}


def description_figures(record: Record) -> dict:
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
    return float(record[name]) if isinstance(record.get(name), int | float) else None


def _word(values, *path: str) -> str | None:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, str) else None


DERIVE = {
    "speech": speech_figures,
    "script": script_figures,
    "pose": pose_figures,
    "semantics": semantics_figures,
    "description": description_figures,
}


def scores_row(column: str, record: Record, made_from: str) -> dict:
    """A record's row in its column's table."""
    row = {
        "clip_id": record["clip_id"],
        "source_sha256": record["source_sha256"],
        "error": record["error"] or None,
        "made_from": made_from,
    }
    return row if record["error"] or column not in DERIVE else {**row, **DERIVE[column](record)}


def scores_code(columns: Sequence[str]) -> str:
    """The hash of the code that makes the tables of some columns: when it changes, they are written again."""
    names = ["scores_schema", *(DERIVE[column].__name__ for column in columns if column in DERIVE)]
    code = code_hash([f"{__name__}.{name}" for name in names])
    return fingerprint(code, ROW, [FIGURES.get(column, {}) for column in columns])


# --- A shard's table ---


def scores_name(column: str, shard: object) -> str:
    """speech, 00000-of-00008 -> scores/speech-00000-of-00008.parquet"""
    return f"{SCORES}/{column}-{shard}.parquet"


def scores_schema(column: str):
    """The table's schema; the fields' metadata says what each means."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "float32": pa.float32()}
    fields = {**ROW, **FIGURES.get(column, {})}
    return pa.schema(
        [pa.field(name, kinds[kind], metadata={"description": text}) for name, (kind, text) in fields.items()]
    )


def read_scores(root: str, info: ShardInfo, columns: Sequence[str] | None = None):
    """Reads some columns of one shard's table. InputError if the file is not the one that the manifest lists."""
    import pyarrow.parquet

    path = storage.join(root, info.path)
    storage.check(path, info.size, info.sha256)
    with storage.local_copy(path) as local:
        return pyarrow.parquet.read_table(local, columns=columns)


def write_scores(root: str, column: str, shard: object, rows: list[dict]) -> ShardInfo:
    """Writes the table of one shard of a column; ``rows`` by ``scores_row``, in the order of the shard."""
    return write_table(root, scores_name(column, shard), rows, scores_schema(column))
