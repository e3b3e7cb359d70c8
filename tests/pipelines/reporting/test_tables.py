from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset import write_json
from pipelines.duplicates import write_tables
from pipelines.manifest import clips_mark
from pipelines.reporting.tables import numbers, read_markers, read_table, read_tables, texts, totals
from tests.pipelines.reporting.tables import make_tables, reject, segment


def test_shards_are_one_table_that_knows_the_shard(tmp_path):
    (tmp_path / "quality").mkdir()
    for shard, columns in ((0, {"a": [1]}), (2, {"a": [2, 3], "b": ["x", None]})):
        pq.write_table(pa.table(columns), tmp_path / "quality" / f"quality-{shard:05d}-of-00003.parquet")
    table = read_table(tmp_path, "quality")
    assert table["shard"].to_pylist() == [0, 2, 2] and table["a"].to_pylist() == [1, 2, 3]
    assert texts(table, "b").tolist() == ["", "x", ""]
    assert np.isnan(numbers(table, "missing")).all() and len(numbers(table, "missing")) == 3
    assert read_table(tmp_path, "duplicates") is None


def test_segments_carry_their_reject_row_and_kept_ones_none():
    rejects = [
        reject("b", "filters", "blurred"),
        reject("never measured", "crop", "ValueError", "failed"),
        reject("a", "filters", "stale"),
        reject(None, "audio", "no_audio", source="q.mp4"),
    ]
    rows = make_tables([segment("a"), segment("b", kept=False)], rejects).segments.to_pylist()
    assert [(row["clip_id"], row["reason"], row["kept"]) for row in rows] == [
        ("a", None, True),
        ("b", "blurred", False),
        ("never measured", "ValueError", False),
    ]
    assert rows[2]["blur"] is None


def test_a_dataset_without_any_segment_is_a_table_too():
    assert len(make_tables([], [reject(None, "audio", "no_audio")]).segments) == 0
    assert len(make_tables([]).segments) == 0


def test_markers_of_every_job(tmp_path):
    for shard in range(2):
        marker = {"seconds": 1.5, "summary": {"frames": 3}, "files": []}
        write_json(f"{tmp_path}/_state/annotate/pose/0000{shard}-of-00002.json", marker)
    write_json(f"{tmp_path}/_state/annotate/ledger.json", {"steps": {}})
    assert [(row["job"], row["step"], row["seconds"]) for row in read_markers(tmp_path)] == [
        ("annotate", "pose", 1.5)
    ] * 2


def test_totals_are_sorted_by_weight():
    assert totals(np.array(["b", "a", "b"], object), np.array([1.0, 3.0, 1.0])) == {"a": 3.0, "b": 2.0}
    assert totals(np.array([], object), np.array([])) == {}


def test_duplicates_are_read_if_the_manifest_says_that_they_are_of_its_clips(tmp_path):
    root, manifest = str(tmp_path), {"columns": {"clips": {"shards": [{"sha256": "a"}, {"sha256": "b"}]}}}

    def looked(entry) -> tuple[int | None, bool]:
        tables = read_tables(root, manifest if entry is None else {**manifest, "duplicates": entry})
        return None if tables.duplicates is None else len(tables.duplicates), tables.stale_duplicates

    assert looked(None) == (None, False)
    [info] = write_tables(root, [{"clip_id": "x"}, {"clip_id": "y"}])
    entry = {"made_from": clips_mark(manifest), "count": 2, "files": [asdict(info)]}
    assert looked(entry) == (2, False)
    assert looked(None) == looked({**entry, "made_from": "0" * 16}) == (None, True)
    other = {**asdict(info), "path": "duplicates/duplicates-00001-of-00002.parquet"}
    assert looked({**entry, "files": [other]}) == (None, True)
    assert looked({**entry, "files": [*entry["files"], other]}) == (None, False)  # a part of a table is none
    swapped = {"columns": {"clips": {"shards": [{"sha256": "b"}, {"sha256": "a"}]}}}
    assert clips_mark(swapped) != clips_mark(manifest) != clips_mark({"columns": {}})
