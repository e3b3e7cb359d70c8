"""Curate's tables: rows come back as they were, what was not measured is null, and every shard has the same columns."""

import pyarrow
import pyarrow.parquet
import pytest

from pipelines.curate_tables import TABLES, read_table, table_name, table_schema
from pipelines.failures import Failure
from pipelines.stages.curation import failed_row, reject_row
from pipelines.stages.filters import LABELS, SCORES
from pipelines.tables import write_table


def written(root, table, rows) -> list[dict]:
    info = write_table(str(root), table_name(table, "00003-of-00007"), rows, table_schema(table))
    assert info.path == f"{table}/{table}-00003-of-00007.parquet" and info.count == len(rows)
    return read_table(str(root / info.path))


def test_a_reject_keeps_its_place_and_its_reason(tmp_path):
    failure = Failure("probe", "DecodeError", "moov not found", "ab12", "Traceback: héllo")
    rows = [
        reject_row("a.mp4", "audio", "filtered", "no_audio", "x"),
        reject_row("a.mp4", "filters", "filtered", "blurred", "x", (30, 120), "clip"),
        failed_row("b.mp4", failure, (2**31 - 2, 2**31 - 1), "other"),
    ]
    assert written(tmp_path, "rejects", rows) == rows
    assert rows[0]["clip_id"] is None and rows[2]["traceback_hash"] == "ab12"


def test_a_figure_that_was_not_measured_is_null_and_not_nought(tmp_path):
    place = {"source": "a.mp4", "clip_id": "c", "start_frame": 0, "end_frame": 90, "flags": "", "kept": False}
    [row] = written(tmp_path, "quality", [{**place, "blur": 0.0, "sound_hash": "0a"}])
    assert set(row) == {*place, *SCORES, *LABELS}
    assert row["blur"] == 0.0 and row["sound_hash"] == "0a" and row["kept"] is False
    assert all(row[name] is None for name in [*SCORES, "picture_hash"] if name != "blur")


def test_a_large_source_fits_its_row(tmp_path):
    row = {name: None for name in table_schema("sources").names}
    row |= {"source": "a.mp4", "bytes": 2**40, "seconds": 1 / 3, "clips": 0, "kept_seconds": 0.1}
    assert written(tmp_path, "sources", [row]) == [row]


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_shard_has_the_columns_of_every_other(table, tmp_path):
    assert written(tmp_path, table, []) == []
    assert pyarrow.parquet.read_schema(tmp_path / table_name(table, "00003-of-00007")) == table_schema(table)


def test_a_value_of_another_kind_is_refused(tmp_path):
    with pytest.raises(pyarrow.ArrowInvalid):
        written(tmp_path, "rejects", [reject_row("a.mp4", "filters", "filtered", "blurred", "x", ("first", "last"))])
    assert not (tmp_path / table_name("rejects", "00003-of-00007")).exists()


def test_a_table_that_is_missing_or_torn_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(str(tmp_path / "none.parquet"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(pyarrow.ArrowInvalid):
        read_table(str(tmp_path / "torn.parquet"))
