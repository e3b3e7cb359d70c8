"""What a run that runs nothing hands over, and that it leaves the dataset as it was."""

import pytest

from pipelines import curate as job
from pipelines.beam import RunnerOptions, ShardTask, Step, run_shards
from pipelines.curate import CurateConfig, curate
from pipelines.dry_run import DryRun
from tests.pipelines.fake_sources import fake_curate, write_source


def make(task):
    raise AssertionError("a dry run runs nothing")


def test_a_dry_run_hands_over_the_plan_and_writes_nothing(tmp_path):
    steps, tasks = [Step("clips", make, "1")], [ShardTask(0, 2), ShardTask(1, 2)]
    with pytest.raises(DryRun, match="curate: 2 shards of .* through 1 steps; not run here") as caught:
        run_shards("curate", str(tmp_path), steps, tasks, RunnerOptions("in-process", 1, dry_run=True))
    plan = caught.value
    assert (plan.job, plan.root, plan.steps, plan.tasks) == ("curate", str(tmp_path), tuple(steps), tuple(tasks))
    assert not list(tmp_path.iterdir())


def test_a_dry_run_with_other_settings_sets_nothing_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "curate_source", fake_curate)
    root = tmp_path / "set"
    for name in "ab":
        write_source(tmp_path / name, [100])
    inputs = (str(tmp_path / "a"), str(tmp_path / "b"))
    curate(CurateConfig(inputs, str(root)), RunnerOptions("in-process", 1))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    other = CurateConfig(inputs, str(root), sources_per_shard=2)
    with pytest.raises(DryRun) as caught:
        curate(other, RunnerOptions("in-process", 1, dry_run=True))
    assert len(caught.value.tasks) == 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
