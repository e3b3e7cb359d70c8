"""Rows and manifest entries of made-up datasets, as the jobs would write them."""

import numpy as np

from pipelines import provenance
from pipelines.column_scores import scores_row, write_scores
from pipelines.dataset import row_fields, shard_name, update_manifest, write_shard
from pipelines.provenance import Producer


def made_by(column: str, backend: str = "painted") -> dict:
    """What made a column, and the clips under it."""
    clips = provenance.made_by(["clips"], Producer(backend, "0", "0"))
    return clips if column == "clips" else provenance.made_by([column], Producer(backend, "0", "0"), [clips])


def producer(column: str, backend: str = "painted") -> dict:
    """A manifest's producer entry."""
    made = made_by(column, backend)
    return {**made[column], "made_by": made}


def write_column(root, column: str, rows: list[dict]) -> None:
    """Writes a column of one shard, with its table of scores, and enters it in the manifest."""
    shard = write_shard(root, shard_name(column, 0, 1), rows)
    scores = write_scores(str(root), column, "00000-of-00001", [scores_row(column, row, "painted") for row in rows])
    update_manifest(root, {column: ([shard], producer(column))}, {column: [scores]})


def row(clip_id: str, column: str = "clips", error: str = "", source: int = 0, frames: int = 9, **fields) -> dict:
    """A record with every field that all records have, and the given ones."""
    clip = {
        "clip_id": clip_id,
        "source_sha256": f"{source:064d}",
        "start_frame": 0,
        "end_frame": frames,
        "box": np.array([1, 2, 300], np.float32),
    }
    return {**row_fields(clip, provenance.to_text(made_by(column)), error), **fields}
