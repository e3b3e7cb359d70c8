"""SyncNet's weights given to `archon curate`: scores and provenance, or an error that names the file."""

import hashlib

import pyarrow.parquet
import pytest

from infra import cli
from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate
from pipelines.provenance import clips_producer
from pipelines.stages import syncnet
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.media import talking_head


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch

    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("weights") / "syncnet_v2.model"
    torch.save(syncnet.build_network().state_dict(), path)
    return path


def test_weights_are_part_of_what_made_a_clip(weights):
    with_weights, without = (clips_producer("dlib", None, given, FilterThresholds()) for given in (str(weights), None))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"syncnet {digest}" in with_weights.weights and "syncnet" not in without.weights
    assert with_weights.code != without.code  # torch's version counts too


def test_a_wrong_file_stops_the_job_before_it_begins(tmp_path, capsys):
    (tmp_path / "w.model").write_bytes(b"no weights")
    args = ["--input", str(talking_head()), "--output", str(tmp_path / "d")]
    assert cli.main(["curate", *args, "--syncnet-weights", str(tmp_path / "w.model")]) == 2
    assert "w.model" in capsys.readouterr().err and not (tmp_path / "d" / "clips").exists()


@pytest.mark.slow
def test_clips_are_scored_and_a_limit_rejects(weights, tmp_path):
    """Random weights are sure of nothing: below the published confidence the clip goes, and its figures stay."""
    config = CurateConfig(
        (str(talking_head()),),
        str(tmp_path),
        syncnet_weights=str(weights),
        thresholds=FilterThresholds(min_sync_confidence=3.0),
    )
    assert curate(config, RunnerOptions("in-process", 1))["clips"] == 0
    row = pyarrow.parquet.read_table(next(tmp_path.glob("quality/*.parquet"))).to_pylist()[0]
    assert not row["kept"] and 0 <= row["sync_confidence"] < 3 and abs(row["sync_offset"]) <= syncnet.REACH
    reject = pyarrow.parquet.read_table(next(tmp_path.glob("rejects/*.parquet"))).to_pylist()[0]
    assert reject["reason"] == "out_of_sync" and "sync_confidence" in reject["detail"]
