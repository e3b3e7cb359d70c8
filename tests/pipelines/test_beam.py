import argparse
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines import beam
from pipelines.beam import (
    Hints,
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    build_pipeline,
    fingerprint,
    marker_files,
    marker_path,
    run_shards,
    runner_options,
)
from pipelines.dataset import read_shard, shard_name, write_shard
from pipelines.ledger import Ledger

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


def interrupted(task: ShardTask) -> StepResult:
    raise KeyboardInterrupt


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


def test_the_graph_is_small_however_many_shards_there_are(tmp_path):
    """Elements are numbers of shards; what a step knows is in the step, once."""
    import apache_beam

    sizes = []
    for count in (10, 50_000):
        pipeline = apache_beam.Pipeline()
        step = Step("count", functools.partial(total, str(tmp_path)), "1", Hints(min_ram="8GB", cpu_count="4"))
        build_pipeline(pipeline, "job", str(tmp_path), [step], [ShardTask(i, count) for i in range(count)])
        graph = pipeline.to_runner_api()
        sizes.append(graph.ByteSize())
        used = {t.environment_id for t in graph.components.transforms.values() if t.environment_id}
        hints = [value for e in used for value in graph.components.environments[e].resource_hints.values()]
        assert b"8000000000" in hints and b"4" in hints
    assert sizes[1] < sizes[0] + 20_000


def test_the_costliest_shards_are_begun_first(tmp_path):
    root = str(tmp_path)
    work = [ShardTask(i, 3, (i,), cost) for i, cost in enumerate((1.0, 3.0, 2.0))]
    run_shards("job", root, [Step("double", functools.partial(double, root), "1")], work, IN_PROCESS)
    assert calls(tmp_path) == ["1", "2", "0"]


def test_a_restart_reads_no_marker_that_the_ledger_speaks_of(tmp_path, monkeypatch):
    """What is done is looked at once, at the end, when every marker is read anyway."""
    root, step = str(tmp_path), steps(tmp_path)[0]
    run_shards("job", root, [step], tasks(8), IN_PROCESS)
    os.remove(marker_path(root, "job", "double", tasks(8)[5]))
    Path(marker_path(root, "job", "double", tasks(8)[6])).write_text("{")  # nobody reads it before the end
    ledger = Ledger.read(root, "job")
    ledger.forget("double", [5])
    ledger.write()
    read, real = [], beam.read_marker
    monkeypatch.setattr(beam, "read_marker", lambda *args: read.append(args[3].index) or real(*args))

    with pytest.raises(BaseException):  # noqa: B017 - whatever Beam makes of an interrupt
        run_shards("job", root, [Step("double", interrupted, step.fingerprint)], tasks(8), IN_PROCESS)
    assert set(read) == {5}
    monkeypatch.undo()
    run_shards("job", root, [step], tasks(8), IN_PROCESS)
    assert sorted(calls(tmp_path)) == sorted("01234567" + "56")
