import argparse
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines.beam import (
    Hints,
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    marker_path,
    one_thread_a_worker,
    run_shards,
    runner_options,
)
from pipelines.dataset import read_shard, shard_name, write_shard

IN_PROCESS = RunnerOptions("in-process", 1)


def double(root: str, task: ShardTask) -> StepResult:
    """Writes one shard of doubled numbers; counts its calls in a file."""
    with open(os.path.join(root, "calls"), "a") as calls:
        calls.write(f"{task.index}\n")
    if task.payload == "poison":
        raise ValueError("poison")
    info = write_shard(root, shard_name("clips", task.index, task.count), [{"n": 2 * n} for n in task.payload])
    return StepResult((info,), {"rows": info.count})


def total(root: str, task: ShardTask) -> StepResult:
    """A second step that reads what the first wrote."""
    rows = [row["n"] for row in read_shard(os.path.join(root, shard_name("clips", task.index, task.count)))]
    return StepResult((), {"total": sum(rows)})


def steps(root, mark="1"):
    root = str(root)
    return [Step("double", functools.partial(double, root), mark), Step("total", functools.partial(total, root), mark)]


def tasks(count=3):
    return [ShardTask(i, count, tuple(range(i + 1))) for i in range(count)]


def calls(root):
    path = Path(root, "calls")
    return path.read_text().split() if path.exists() else []


def test_every_shard_goes_through_every_step(tmp_path):
    markers = run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    assert [m["summary"]["total"] for m in markers["total"]] == [0, 2, 6]
    assert [info.count for info in marker_files(markers["double"])] == [1, 2, 3]
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_finished_shards_are_not_done_again(tmp_path):
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    assert len(calls(tmp_path)) == 3
    # A lost marker, a lost file and a cut file each make just their shard run again.
    os.remove(marker_path(str(tmp_path), "job", "double", tasks()[0]))
    os.remove(tmp_path / shard_name("clips", 1, 3))
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    assert sorted(calls(tmp_path)) == ["0", "0", "1", "1", "2"]
    (tmp_path / shard_name("clips", 2, 3)).write_bytes(b"cut")
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    assert sorted(calls(tmp_path)) == ["0", "0", "1", "1", "2", "2"]


def test_another_fingerprint_makes_everything_again(tmp_path):
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(), IN_PROCESS)
    run_shards("job", str(tmp_path), steps(tmp_path, "2"), tasks(), IN_PROCESS)
    assert len(calls(tmp_path)) == 6


def test_a_failure_ends_the_job_and_keeps_what_is_done(tmp_path):
    work = [*tasks(2), ShardTask(2, 3, "poison")]
    with pytest.raises(Exception, match="poison"):
        run_shards("job", str(tmp_path), steps(tmp_path), work, IN_PROCESS)
    assert not os.path.exists(marker_path(str(tmp_path), "job", "double", work[2]))


@pytest.mark.slow
def test_two_processes_give_the_same_files(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for root, options in ((one, IN_PROCESS), (two, RunnerOptions("multi-process", 2))):
        root.mkdir()
        # Worker processes import the step by name, so it has to live in an installed module.
        step = Step("shards", WriteShards(str(root)), "1")
        run_shards("job", str(root), [step], tasks(4), options)
    names = sorted(p.relative_to(one) for p in one.rglob("*.array_record"))
    assert len(names) == 4
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in names)


@dataclass(frozen=True)
class WriteShards:
    root: str

    def __call__(self, task):
        info = write_shard(self.root, shard_name("clips", task.index, task.count), [{"n": n} for n in task.payload])
        return StepResult((info,), {"pid": os.getpid()})


def test_fingerprint_follows_content():
    @dataclass(frozen=True)
    class Config:
        size: int = 3

    assert fingerprint(Config(), {"b": 1, "a": 2}) == fingerprint(Config(), {"a": 2, "b": 1})
    assert fingerprint(Config(3)) != fingerprint(Config(4))
    assert fingerprint({"x": "1"}) != fingerprint({"x": 1})


def test_runner_arguments():
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    args = parser.parse_args(["--runner", "dataflow", "--workers", "3", "--beam-arg=--region=x"])
    assert runner_options(args) == RunnerOptions("dataflow", 3, ("--region=x",))
    with pytest.raises(InputError, match="--workers 0"):
        runner_options(parser.parse_args(["--workers", "0"]))


def test_marker_is_json_with_files_and_summary(tmp_path):
    run_shards("job", str(tmp_path), steps(tmp_path), tasks(1), IN_PROCESS)
    marker = json.loads(Path(marker_path(str(tmp_path), "job", "double", tasks(1)[0])).read_text())
    assert marker["summary"] == {"rows": 1} and marker["files"][0]["count"] == 1


def test_workers_get_one_thread_and_the_environment_comes_back(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with one_thread_a_worker():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x" and "OMP_NUM_THREADS" not in os.environ


def test_hints_are_texts():
    assert Hints(min_ram="8GB", cpu_count="4").given() == {"min_ram": "8GB", "cpu_count": "4"}
    with pytest.raises(TypeError, match="cpu_count"):
        Hints(cpu_count=4)


def test_failure_arguments():
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    options = runner_options(parser.parse_args(["--max-failures", "0.05", "--retry-failed"]))
    assert options.max_failures == 0.05 and options.retry_failed
    assert runner_options(parser.parse_args(["--max-failures", "3"])).max_failures == 3
    for bad in ("-1", "1.5"):
        with pytest.raises(InputError, match="--max-failures"):
            runner_options(parser.parse_args([f"--max-failures={bad}"]))
