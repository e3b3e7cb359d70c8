"""``archon train``."""

import json
import subprocess
import sys

import pytest

from models.io import load_model
from tests.corpus_clip import write_clip
from tests.infra.training.synthetic import write_dataset


def archon(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "infra.cli", "train", *words], capture_output=True, text=True)


@pytest.mark.slow
def test_trains_finishes_once_and_overrides(tmp_path):
    dataset = write_dataset(tmp_path / "data", clips=4, frames=13)
    words = ["pose", "--dataset", str(dataset), "--workdir", str(tmp_path / "pose"), "--steps", "40", "--json"]
    words += ["--set", "model.width=8", "--set", "frames=9", "--set", "model.rvq.codes=16", "--set", "batch=4"]
    first = archon(*words)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout.splitlines()[-1])
    assert summary["steps"] == 40 and summary["loss_end"] < summary["loss_start"]
    assert load_model(tmp_path / "pose")[1]["width"] == 8
    again = archon(*words)
    assert again.returncode == 0 and "already trained" in again.stderr
    other = archon(*words, "--seed", "1")
    assert other.returncode == 2 and "seed" in other.stderr


def test_bad_usage_has_status_2(tmp_path):
    missing = archon("pose", "--workdir", str(tmp_path))
    assert missing.returncode == 2 and "--dataset" in missing.stderr


def test_devices_are_one_or_more():
    made = archon("speech", "--devices", "0", "--dry-run")
    assert made.returncode == 2 and "--devices: 0: expected 1 or more" in made.stderr


def test_dry_run_prints_the_config_without_data():
    made = archon("speech", "--preset", "paper", "--set", "batch=7", "--dry-run")
    assert made.returncode == 0, made.stderr
    assert "batch=7" in made.stdout and "codes=1024" in made.stdout


def test_sources_are_for_the_segmenter(tmp_path):
    write_clip(tmp_path, seed=7, index=0)
    made = archon("segmenter", "--preset", "embedded", "--source", f"truth={tmp_path}", "--dry-run")
    assert made.returncode == 0, made.stderr
    assert "CompactConfig" in made.stdout
    other = archon("pose", "--source", "truth=a", "--dry-run")
    assert other.returncode == 2 and "--source is for the segmenter" in other.stderr
