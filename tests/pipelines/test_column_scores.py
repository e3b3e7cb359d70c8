"""The tables beside the columns hold exactly what FIGURES says, for whatever a record holds."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.column_scores import FIGURES, ROW, scores_code, scores_row, scores_schema, write_scores
from pipelines.dataset import ANNOTATIONS
from tests.pipelines.rows import row

RECORDS = {
    "speech": {"activity": np.array([0, 1, 1, 1], np.uint8), "gain_db": -3.0},
    "script": {
        "words": '[{"word": "one"}]',
        "language": "en",
        "language_confidence": 0.5,
        "confidence": 0.75,
        "speech_rate": 2.0,
        "flags": json.dumps([{"reason": "repeated", "text": "x"}, {"reason": "silence", "text": ""}]),
        "backend": "listener",
    },
    "pose": {"reprojection_error": np.array([1, 2], np.float32)},
    "semantics": {"flicker": 0.25},
    "description": {
        "description": json.dumps(
            {
                "gender": "woman",
                "age_group": "adult",
                "ethnicity": "unknown",
                "facial_features": {"skin_tone": "tan"},
                "lighting": {"brightness": "dim", "direction": "left"},
            }
        ),
        "backend": "pixels",
    },
}


@pytest.mark.parametrize("column", ANNOTATIONS)
def test_a_record_gives_every_figure_and_an_error_none(tmp_path, column):
    good = scores_row(column, row("a", column, source=3, **RECORDS.get(column, {})), "0123")
    failed = scores_row(column, row("b", column, error=f"{column}: ValueError: no"), "4567")
    write_scores(str(tmp_path), column, "00000-of-00001", [good, failed])
    table = pq.read_table(tmp_path / "scores" / f"{column}-00000-of-00001.parquet")
    figures = FIGURES.get(column, {})
    assert table.column_names == [*ROW, *figures]
    first, second = table.to_pylist()
    assert all(first[name] is not None for name in figures) and all(second[name] is None for name in figures)
    assert (first["clip_id"], first["error"], first["made_from"]) == ("a", None, "0123")
    assert first["source_sha256"] == f"{3:064d}" and second["error"] == f"{column}: ValueError: no"
    assert all(field.metadata[b"description"] for field in table.schema)


def test_figures():
    speech, script = (scores_row(name, row("a", name, **RECORDS[name]), "") for name in ("speech", "script"))
    assert speech["speech_share"] == 0.75 and speech["speech_seconds"] == pytest.approx(3 / 25)
    assert script["words"] == 1 and script["script_flags"] == "repeated,silence" and script["speech_rate"] == 2.0


def test_a_description_that_is_no_json_says_nothing():
    said = scores_row("description", row("a", "description", description="a <b>", backend="pixels"), "")
    assert said["captioner"] == "pixels" and said["gender"] is None


def test_names_of_figures_are_of_one_column_each():
    names = [name for figures in FIGURES.values() for name in figures]
    assert len(names) == len(set(names)) and not set(names) & set(ROW)
    assert {scores_schema(column).names[0] for column in ANNOTATIONS} == {"clip_id"}
    assert scores_code(["speech"]) != scores_code(["script"]) != scores_code(["image"])
