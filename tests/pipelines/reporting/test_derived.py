import json

import numpy as np
import pytest

from models.errors import InputError
from pipelines.dataset import Dataset, ShardReader, shard_name, update_manifest, write_shard
from pipelines.reporting.derived import read_annotations
from tests.pipelines.rows import producer, row, write_column

SPEECH = {"activity": np.ones(50, np.uint8), "gain_db": -3.0}
SCRIPT = {
    "words": json.dumps([{"word": w} for w in ("one", "two", "three")]),
    "language": "en",
    "confidence": 0.75,
    "backend": "listener",
}
SAID = {"gender": "unknown", "facial_features": {"skin_tone": "tan"}, "lighting": "odd"}


def test_figures_of_all_columns_meet_by_clip_without_reading_a_record(tmp_path, monkeypatch):
    write_column(
        tmp_path, "speech", [row("a", "speech", **SPEECH), row("b", "speech", error="speech: ValueError: silent")]
    )
    write_column(tmp_path, "script", [row("a", "script", **SCRIPT)])
    write_column(tmp_path, "pose", [row("a", "pose", reprojection_error=np.array([1.0, 2.0], np.float32))])
    write_column(tmp_path, "description", [row("b", "description", backend="pixels", description=json.dumps(SAID))])
    monkeypatch.setattr(ShardReader, "_open", None)
    table, errors = read_annotations(Dataset(tmp_path), ["speech", "script", "pose", "description"])
    a, b = table.to_pylist()
    assert a["clip_id"] == "a" and a["speech_rate"] == pytest.approx(3 / 2) and a["transcript_confidence"] == 0.75
    assert a["language"] == "en" and a["reprojection_error"] == pytest.approx(1.5) and a["skin_tone"] is None
    assert b["skin_tone"] == "tan" and b["speech_seconds"] is None
    # What nothing says of any clip is no column.
    assert "lighting_brightness" not in table.column_names and "language_confidence" not in table.column_names
    assert errors["speech"] == ["b: speech: ValueError: silent"] and errors["pose"] == []


def test_no_column_gives_no_table(tmp_path):
    assert read_annotations(Dataset(tmp_path), []) == (None, {})


def test_a_dataset_without_the_tables_is_told_to_annotate_again(tmp_path):
    shard = write_shard(tmp_path, shard_name("speech", 0, 1), [row("a", "speech", **SPEECH)])
    update_manifest(tmp_path, {"speech": ([shard], producer("speech"))})
    with pytest.raises(InputError, match="no table of scores; annotate again: archon annotate --dataset .* speech"):
        read_annotations(Dataset(tmp_path), ["speech"])


def test_a_table_that_was_cut_short_is_named(tmp_path):
    write_column(tmp_path, "speech", [row("a", "speech", **SPEECH)])
    path = tmp_path / "scores" / "speech-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"scores/speech-00000-of-00001.parquet: \d+ bytes, but the manifest says"):
        read_annotations(Dataset(tmp_path), ["speech"])
