"""The tables of a dataset and what each column of them means: the one text that the files and the documentation share.

``docs/schema.md`` is ``schema_text()``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.column_scores import FIGURES, ROW, scores_name
from pipelines.reporting.decisions import Rule, reasons
from pipelines.reporting.tables import Tables
from pipelines.stages.filters import FLAGS, LABELS, SCORES

if TYPE_CHECKING:
    import pyarrow as pa

SCORES_FILE = "report/scores.parquet"

_PLACE = {
    "source": ("string", "path or URI of the video, as it was given"),
    "clip_id": ("string", "20 hexadecimal digits: hash of the source's content and the frame range"),
    "start_frame": ("int32", "first frame, on the source's 30 fps clock"),
    "end_frame": ("int32", "one past the last frame"),
}
_REJECT = {
    "stage": ("string", "where in the pipeline it was rejected"),
    "kind": ("string", "`filtered` (it works but is not wanted) or `failed` (an error)"),
    "reason": ("string", "a fixed word for the filter, or the type of the error"),
    "detail": ("string", "the figures or the error's text"),
}
_QUALITY = {
    **_PLACE,
    **{name: ("float32", text) for name, text in SCORES.items()},
    **{name: ("string", text) for name, text in LABELS.items()},
    "flags": ("string", f"comma-separated, none of them rejects: {', '.join(FLAGS)}"),
    "kept": ("bool", "whether it became a clip"),
}
_DUPLICATES = {
    "clip_id": _PLACE["clip_id"],
    "group": ("string", "the clips of one group show or sound the same moment; the smallest clip_id in it"),
    "duplicate_of": ("string", "the clip of the group to keep; null for that clip itself"),
    "picture_distance": ("float32", "distance of the perceptual hashes to that clip; null where pictures hardly move"),
    "sound_similarity": ("float32", "agreement of the sound fingerprints with that clip, 0 to 1"),
    "kind": ("string", "what is the same: picture, sound or both; null for the clip to keep"),
}
_DERIVED = {name: figure for figures in FIGURES.values() for name, figure in figures.items()}

# Table -> (what it is, column -> (type, meaning)).
TABLES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    SCORES_FILE: (
        "One row per segment, kept or not: everything that was measured and decided. Written by `archon report`. A "
        "number is null where it was not measured; columns of annotations that were not made are absent. Each "
        "column's meaning is also in the file's schema, as the field's metadata `description`.",
        {
            **_QUALITY,
            **_REJECT,
            "reasons": ("string", "every limit that it misses, comma-separated, the weightiest first"),
            **_DERIVED,
            "group": _DUPLICATES["group"],
            "duplicate_of": _DUPLICATES["duplicate_of"],
            "picture_distance": _DUPLICATES["picture_distance"],
            "sound_similarity": _DUPLICATES["sound_similarity"],
            "duplicate_kind": _DUPLICATES["kind"],
        },
    ),
    "quality/*.parquet": (
        "One row per segment that got as far as having a frame range, kept or not. Written by `archon curate`.",
        _QUALITY,
    ),
    "rejects/*.parquet": (
        "One row per source or segment that did not make it. A source without any clip has one row of its own, whose "
        "`clip_id` and frames are null.",
        {
            **_PLACE,
            **_REJECT,
            "traceback_hash": ("string", "failures with the same hash failed at the same place; null unless failed"),
            "traceback": ("string", "the traceback; null unless failed"),
        },
    ),
    "sources/*.parquet": (
        "One row per source, whatever became of it. Written by `archon curate`.",
        {
            "source": _PLACE["source"],
            "source_sha256": ("string", "hash of the file; null if it could not be read"),
            "bytes": ("int64", "size of the file"),
            "codec": ("string", "of the video stream"),
            "width": ("int32", "as displayed, pixels"),
            "height": ("int32", "as displayed, pixels"),
            "fps": ("float64", "average frame rate that the file states"),
            "rotation": ("int32", "that the file asks for, degrees"),
            "seconds": ("float64", "length of the video"),
            "speech_seconds": ("float64", "seconds with speech in them"),
            "face_share": ("float64", "share of the searched frames that show a face"),
            "shots": ("int32", "number of shots"),
            "status": ("string", "`kept`, `filtered` or `failed`"),
            "stage": ("string", "where it was rejected; null if kept"),
            "reason": ("string", "why; null if kept"),
            "clips": ("int32", "clips kept of it"),
            "kept_seconds": ("float64", "their length"),
        },
    ),
    **{
        scores_name(column, "*"): (
            f"What the records of the column {column} say, one row a clip in the order of the shard that the file lies "
            "beside; a figure is null in the row of a clip that failed. Written by `archon annotate`. Columns that are "
            "not named here, and `tokens`, have such tables without figures.",
            {**ROW, **figures},
        )
        for column, figures in FIGURES.items()
    },
    "failures/*.parquet": (
        "One row per annotator and clip that failed. Written by `archon annotate` and `archon tokenize`; no file where "
        "nothing failed.",
        {
            "column": ("string", "the annotator's first column, or `tokens`"),
            "clip_id": _PLACE["clip_id"],
            "stage": ("string", "where it failed"),
            "type": ("string", "type of the error"),
            "message": ("string", "the error's text"),
            "traceback_hash": (
                "string",
                "failures with the same hash failed at the same place; null for a missing input",
            ),
            "traceback": ("string", "the traceback; null for a missing input"),
        },
    ),
    "duplicates/*.parquet": (
        "One row per clip that has a double in the dataset. Written by `archon duplicates`, and removed by `archon "
        "curate` when it makes other clips: `duplicates.made_from` in the manifest says of which clips it is.",
        _DUPLICATES,
    ),
}


def schema_text() -> str:
    """The documentation of every table, in Markdown."""
    lines = [
        "# Tables of a dataset",
        "",
        "Parquet files beside the columns; any notebook reads them:",
        "",
        "```python",
        "import pyarrow.parquet as pq",
        "",
        f'scores = pq.read_table("DATASET/{SCORES_FILE}").to_pandas()',
        "```",
        "",
        "The text below is made from `pipelines/reporting/schema.py`; a test holds that the two agree.",
    ]
    for name, (text, columns) in TABLES.items():
        lines += ["", f"## `{name}`", "", text, "", "| column | type | meaning |", "|---|---|---|"]
        lines += [
            f"| `{column}` | {kind} | {meaning.replace('|', chr(92) + '|')} |"
            for column, (kind, meaning) in columns.items()
        ]
    return "\n".join(lines) + "\n"


def scores_table(tables: Tables, derived: "pa.Table | None", limits: Sequence[Rule]) -> "pa.Table":
    """Joins everything that is known of each segment, in the order and with the descriptions of TABLES."""
    import pyarrow as pa
    import pyarrow.compute as pc

    out = tables.segments.append_column("reasons", pa.array(reasons(tables.segments, limits), pa.string()))
    others = [derived] if derived is not None else []
    if tables.duplicates is not None:
        names = ["duplicate_kind" if name == "kind" else name for name in tables.duplicates.column_names]
        others.append(tables.duplicates.rename_columns(names))
    for other in others:
        where = pc.index_in(out["clip_id"], value_set=other["clip_id"])
        for name in other.column_names:
            if name in ("clip_id", "shard"):
                continue
            column = other[name].take(where)
            if name in out.column_names:
                # A figure that curate left open and an annotation knows.
                index = out.column_names.index(name)
                out = out.set_column(index, name, pc.coalesce(out[name], column.cast(out[name].type)))
            else:
                out = out.append_column(name, column)
    meaning = TABLES[SCORES_FILE][1]
    out = out.select([name for name in meaning if name in out.column_names])
    fields = [
        pa.field(field.name, field.type, metadata={"description": meaning[field.name][1]}) for field in out.schema
    ]
    note = {"description": TABLES[SCORES_FILE][0]}
    return out.cast(pa.schema(fields, metadata=note))


def write_scores(root: str, table: "pa.Table") -> str:
    """Writes report/scores.parquet; the same rows give the same bytes. Returns the path."""
    import pyarrow.parquet

    path = storage.join(root, SCORES_FILE)
    with storage.atomic_file(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)
    return path
