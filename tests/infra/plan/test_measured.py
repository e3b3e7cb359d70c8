"""Rates of a dataset, read from what its jobs left, and the file that keeps them."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from infra.plan import measured as rates
from infra.plan.measured import KEPT_HOURS, SOURCE_HOURS, measure, read_measured, write_measured
from models.errors import InputError
from pipelines.dataset import ANNOTATIONS, update_manifest
from tests.infra.plan.finished import write_finished, write_marker


@pytest.fixture
def dataset(tmp_path):
    return write_finished(str(tmp_path / "set"))


def by_stage(measured) -> dict:
    return {rate.stage: rate for rate in measured.rates}


def test_rates_are_read_from_a_datasets_own_markers(dataset):
    found = measure(dataset, "2026-02-03")
    assert found.keep_share == 0.5 and found.column_bytes == {"clips": 10**9, "pose": 10**6}
    assert (found.date, found.dataset) == ("2026-02-03", "set") and found.machine.startswith("one core of ")
    curate, pose = by_stage(found)["curate"], by_stage(found)["annotate pose"]
    assert (curate.seconds, curate.per, curate.hours) == (1000.0, SOURCE_HOURS, 0.2)
    assert (pose.seconds, pose.per, pose.hours) == (1000.0, KEPT_HOURS, 0.1)
    assert "pose-maker" in pose.command
    clock = by_stage(measure(dataset, "2026-02-03", by="clock"))
    assert clock["curate"].seconds == 2000.0 and (clock["curate"].by, curate.by) == ("clock", "cpu")


def test_every_step_of_annotate_and_tokenize_is_a_stage(dataset):
    write_marker(dataset, "annotate", "speech", "00000-of-00001", cpu_seconds=36.0, summary={"frames": 10800})
    write_marker(dataset, "tokenize", "tokens", "00000-of-00001", cpu_seconds=72.0, summary={"frames": 10800})
    found = by_stage(measure(dataset, "2026-01-01"))
    assert list(found) == ["curate", "annotate pose", "annotate speech", "tokenize"]
    assert found["annotate speech"].seconds == 360.0 and found["tokenize"].seconds == 720.0
    assert found["tokenize"].command == "archon tokenize --dataset DATASET"


def test_rows_that_were_used_again_make_no_stage_cheaper(dataset):
    """A third of the clips was made in this run; of another column none was."""
    write_marker(dataset, "annotate", "speech", "00000-of-00002", cpu_seconds=12.0, summary={"frames": 3600})
    write_marker(dataset, "annotate", "speech", "00001-of-00002", summary={"frames": 0})
    write_marker(dataset, "annotate", "image", "00000-of-00001", cpu_seconds=1.0, summary={"frames": 0})
    found = by_stage(measure(dataset, "2026-01-01"))
    assert found["annotate speech"].seconds == 360.0 and found["annotate speech"].hours == round(0.1 / 3, 5)
    assert "annotate image" not in found


def test_a_marker_without_processor_time_is_left_out(dataset):
    path = f"{dataset}/_state/annotate/speech"
    write_marker(dataset, "annotate", "speech", "00000-of-00001")
    with open(f"{path}/00000-of-00001.json", "w") as file:
        json.dump({"fingerprint": "f", "files": [], "seconds": 5.0, "summary": {}}, file)
    assert "annotate speech" not in by_stage(measure(dataset, "2026-01-01"))


def test_source_bytes_are_of_the_sources_that_say_both(dataset, tmp_path):
    assert measure(dataset, "2026-01-01").source_bytes is None
    folder = tmp_path / "set" / "sources"
    folder.mkdir()
    for index, (size, seconds) in enumerate([(1000, 10.0), (3000, 10.0), (5000, None), (None, 7.0)]):
        table = pa.table({"bytes": pa.array([size], pa.int64()), "seconds": pa.array([seconds], pa.float64())})
        pyarrow.parquet.write_table(table, folder / f"sources-{index:05d}-of-00004.parquet")
    assert measure(dataset, "2026-01-01").source_bytes == 200 * 3600


def test_a_dataset_that_kept_nothing_is_refused(tmp_path):
    update_manifest(tmp_path, {})
    with pytest.raises(InputError, match="no hours to measure by"):
        measure(str(tmp_path), "2026-01-01")


def test_what_is_written_is_read_again(dataset, tmp_path):
    found = measure(dataset, "2026-01-01")
    write_measured(tmp_path / "rates.json", found)
    assert read_measured(tmp_path / "rates.json") == found


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("keep_share"),
        lambda values: values.update(more=1),
        lambda values: values["rates"][0].pop("per"),
        lambda values: values.update(rates=None),
    ],
)
def test_a_file_of_rates_that_is_none_is_named(change, dataset, tmp_path):
    values = dataclasses.asdict(measure(dataset, "2026-01-01"))
    change(values)
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(values))
    for _ in range(2):
        with pytest.raises(InputError, match=f"--rates {path}: not what `archon plan --write-rates` writes"):
            read_measured(path)
        path.write_bytes(b"\xff{")
    with pytest.raises(InputError, match="none.json: no such file"):
        read_measured(tmp_path / "none.json")


def test_the_shipped_rates_are_sound():
    shipped = read_measured(rates.DEFAULT)
    stages = {rate.stage for rate in shipped.rates}
    columns = {f"annotate {name}" for name in ("shape", "semantics", "image", "speech", "script", "description")}
    assert stages == {"curate", "tokenize", *columns}
    assert all(rate.seconds > 0 and rate.hours > 0 and rate.command.startswith("archon ") for rate in shipped.rates)
    assert set(shipped.column_bytes) == {"clips", "tokens", *ANNOTATIONS} and 0 < shipped.keep_share <= 1
