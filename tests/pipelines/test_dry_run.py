import pytest

from pipelines.beam import RunnerOptions, ShardTask, Step, run_shards
from pipelines.dry_run import DryRun


def make(task):
    raise AssertionError("a dry run runs nothing")


def test_a_dry_run_hands_over_the_plan_and_leaves_the_dataset_alone(tmp_path):
    steps, tasks = [Step("clips", make, "1")], [ShardTask(0, 2), ShardTask(1, 2)]
    with pytest.raises(DryRun, match="curate: 2 shards of .* through 1 steps; not run here") as caught:
        run_shards("curate", str(tmp_path), steps, tasks, RunnerOptions("in-process", 1, dry_run=True))
    plan = caught.value
    assert (plan.job, plan.root, plan.steps, plan.tasks) == ("curate", str(tmp_path), tuple(steps), tuple(tasks))
    assert not list(tmp_path.iterdir())
