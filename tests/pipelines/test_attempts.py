from pathlib import Path

import pytest

from pipelines.attempts import WorkerDied
from pipelines.beam import RunnerOptions, ShardTask, Step, run_shards
from pipelines.dataset import read_shard, shard_name
from pipelines.failures import Failures
from tests.pipelines.deadly_steps import Deadly


def run(root, items, workers=2, claims=True):
    root = str(root)
    failures = Failures(root, "job", "1")
    step = Step("clips", Deadly(root, failures, claims), "1")
    tasks = [ShardTask(index, len(items), (item,)) for index, item in enumerate(items)]
    run_shards("job", root, [step], tasks, RunnerOptions("multi-process", workers), failures)
    return [next(read_shard(f"{root}/{shard_name('clips', task.index, task.count)}"))["item"] for task in tasks]


@pytest.mark.slow
def test_a_poisonous_item_is_given_up_and_the_rest_is_done(tmp_path, capfd):
    assert run(tmp_path, ["a", "poison", "b", "c"]) == ["a", "WorkerDied", "b", "c"]
    assert Path(tmp_path, "journal").read_text().split().count("poison") == 3
    assert capfd.readouterr().out.count("died on poison") == 2
    assert sorted(path.name for path in (tmp_path / "_state/job").iterdir()) == ["clips", "ledger.json"]


@pytest.mark.slow
def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    assert run(tmp_path, ["a", "once", "b"], workers=1) == ["a", "once", "b"]


@pytest.mark.slow
def test_workers_that_die_without_a_claim_end_the_job(tmp_path):
    with pytest.raises(WorkerDied, match="died 3 times.*--workers 1"):
        run(tmp_path, ["poison", "a"], claims=False)


@pytest.mark.slow
def test_an_error_in_a_step_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="a wrong item"):
        run(tmp_path, ["a", "wrong"])
