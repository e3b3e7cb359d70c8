import json

import numpy as np
import pytest

from pipelines.reporting.derived import read_annotations

SCRIPT = {
    "clip_id": "a",
    "error": "",
    "text": "one two three",
    "words": json.dumps([{"word": w} for w in ("one", "two", "three")]),
    "language": "en",
    "confidence": 0.75,
    "backend": "listener",
}
SPEECH = {"clip_id": "a", "error": "", "activity": np.ones(50, np.uint8), "gain_db": -3.0}
POSE = {"clip_id": "a", "error": "", "reprojection_error": np.array([1.0, 2.0], np.float32)}
DESCRIPTION = {
    "clip_id": "b",
    "error": "",
    "backend": "pixels",
    "description": json.dumps({"gender": "unknown", "facial_features": {"skin_tone": "tan"}, "lighting": "odd"}),
}


def test_figures_of_all_columns_meet_by_clip():
    failed = {"clip_id": "b", "error": "speech: ValueError: silent"}
    columns = {"speech": [SPEECH, failed], "script": [SCRIPT], "pose": [POSE], "description": [DESCRIPTION]}
    table, errors = read_annotations(columns)
    a, b = table.to_pylist()
    assert a["clip_id"] == "a" and a["speech_rate"] == pytest.approx(3 / 2) and a["transcript_confidence"] == 0.75
    assert a["language"] == "en" and a["reprojection_error"] == pytest.approx(1.5) and a["skin_tone"] is None
    assert b["skin_tone"] == "tan" and b["speech_seconds"] is None
    # What nothing says of any clip is no column.
    assert "lighting_brightness" not in table.column_names and "language_confidence" not in table.column_names
    assert errors["speech"] == ["b: speech: ValueError: silent"] and errors["pose"] == []


def test_a_description_that_is_no_json_says_nothing():
    table, _ = read_annotations({"description": [{**DESCRIPTION, "description": "a woman <b>talks"}]})
    assert table.to_pylist() == [{"clip_id": "b", "captioner": "pixels"}]


def test_no_column_gives_no_table():
    assert read_annotations({})[0] is None
