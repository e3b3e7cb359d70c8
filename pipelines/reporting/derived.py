"""What the annotation columns say of each clip, as columns of numbers and words beside the filters' scores.

Read from the tables that `archon annotate` writes beside its columns (pipelines/column_scores.py); no record is read.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.column_scores import FIGURES, read_scores
from pipelines.dataset import Dataset

if TYPE_CHECKING:
    import pyarrow as pa


def read_annotations(dataset: Dataset, columns: Sequence[str]) -> tuple["pa.Table | None", dict[str, list[str]]]:
    """Reads the tables of scores of some annotation columns.

    Returns:
        a table of clip_id and the derived figures of each clip (None without any column that gives figures; one that
        no clip has is left out), and column -> "clip: error" of each row whose annotator failed.

    Raises:
        InputError: a column has no such tables, or one of them is missing or truncated.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    tables: list[pa.Table] = []
    errors: dict[str, list[str]] = {}
    for name in columns:
        wanted = ["clip_id", "error", *FIGURES.get(name, ())]
        infos = dataset.score_infos(name)
        table = pa.concat_tables([read_scores(dataset.root, info, wanted) for info in infos])
        failed = table.filter(pc.is_valid(table["error"]))
        errors[name] = pc.binary_join_element_wise(failed["clip_id"], failed["error"], ": ").to_pylist()
        good = table.filter(pc.is_null(table["error"])).drop_columns(["error"])
        if name in FIGURES and len(good):
            tables.append(good)
    return (_joined(tables) if tables else None), errors


def _joined(tables: Sequence["pa.Table"]) -> "pa.Table":
    """Joins the columns' figures by clip id and adds the rate of speech where the script does not state it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array([chunk for table in tables for chunk in table["clip_id"].chunks], pa.string()).unique()
    out = {"clip_id": ids}
    for table in tables:
        where = pc.index_in(ids, value_set=table["clip_id"])
        out |= {name: table[name].take(where) for name in table.column_names if name != "clip_id"}
    if "words" in out and "speech_seconds" in out:
        spoken = pc.if_else(pc.greater(out["speech_seconds"], 0), out["speech_seconds"], None)
        out["speech_rate"] = pc.coalesce(out["speech_rate"], pc.divide(out["words"], spoken))
    return pa.table({name: column for name, column in out.items() if column.null_count < len(column)})
