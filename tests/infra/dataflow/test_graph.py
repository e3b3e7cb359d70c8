"""The Dataflow job, built offline: its hints, its size, and that shuffles move tasks only."""

import dataclasses
import random
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from infra.dataflow import graph
from infra.dataflow.config import beam_arguments, make_config
from infra.dataflow.graph import ELEMENT_LIMIT, GRAPH_LIMIT, build_graph, check_graph, look_at
from models.errors import InputError
from pipelines.beam import Hints, ShardTask, Step, StepResult
from tests.infra.dataflow.test_config import GIVEN

CONFIG = make_config("gpu", **GIVEN)
ARGUMENTS = beam_arguments(CONFIG, hinted_gpu=True)
ROOT = "gs://my-bucket/dataset"


@dataclass(frozen=True)
class Work:
    payload: bytes = b""

    def __call__(self, task: ShardTask) -> StepResult:
        return StepResult((), {})


STEPS = (
    Step("clips", Work(), "1", Hints(min_ram="8GB", cpu_count="4")),
    Step("semantics", Work(), "1", Hints(accelerator=CONFIG.accelerator())),
)


def graph_of(steps, tasks):
    return look_at(build_graph("job", ROOT, steps, tasks, ARGUMENTS), tasks)


@pytest.fixture(scope="module")
def large():
    """A job of 100,000 sources, four a shard."""
    return graph_of(STEPS, [ShardTask(index, 25_000, cost=1.5) for index in range(25_000)])


def test_hints_arrive_at_their_steps(large):
    hints = {step.name: step.hints for step in large.steps}
    assert hints["clips"] == {"cpu_count": "4", "min_ram_bytes": "8000000000"}
    assert hints["semantics"] == {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"}
    assert all(not found for name, found in hints.items() if name not in ("clips", "semantics"))


def test_the_graph_of_a_large_job_is_small(large):
    assert large.tasks == 25_000 and large.bytes < GRAPH_LIMIT / 50
    small = graph_of(STEPS, [ShardTask(index, 2_000) for index in range(2_000)])
    assert large.bytes < 1.1 * small.bytes


def test_only_tasks_are_shuffled(large):
    check_graph(large, STEPS)
    assert large.largest_element < 300
    moved = {name.partition("/")[0]: origin for name, origin in large.shuffles.items()}
    assert moved["clips: spread"] == "Shards" and moved["semantics: spread"] == "clips"


def test_a_task_that_carries_data_is_refused():
    heavy = [ShardTask(0, 1, bytes(ELEMENT_LIMIT))]
    with pytest.raises(InputError, match="a task has .* bytes"):
        check_graph(graph_of(STEPS, heavy), STEPS)


def test_a_graph_that_carries_data_is_refused(large, monkeypatch):
    with pytest.raises(InputError, match="graph has 10,485,761 bytes, and Dataflow takes 10,485,760"):
        check_graph(dataclasses.replace(large, bytes=GRAPH_LIMIT + 1), STEPS)
    # What a step knows counts, compressed or not. (Beam takes a minute for a real 10 MiB of it.)
    monkeypatch.setattr(graph, "GRAPH_LIMIT", 200_000)
    for size, refused in (
        (1000, nullcontext()),
        (200_000, pytest.raises(InputError, match="graph has .* takes 200,000")),
    ):
        steps = [Step("clips", Work(random.Random(0).randbytes(size)), "1")]
        with refused:
            check_graph(graph_of(steps, [ShardTask(0, 1)]), steps)


def test_a_shuffle_of_anything_else_is_refused(large):
    other = dataclasses.replace(large, shuffles={**large.shuffles, "join/GroupByKey": "decode"})
    with pytest.raises(InputError, match="shuffle join/GroupByKey moves what decode makes"):
        check_graph(other, STEPS)


def test_a_group_by_key_is_seen():
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(
        runner="DataflowRunner", options=PipelineOptions([*ARGUMENTS, "--dry_run=True", "--no_auth"])
    )
    frames = pipeline | "Start" >> beam.Create([1]) | "Frames" >> beam.Map(lambda n: (n, bytes(10)))
    _ = frames | "Join" >> beam.GroupByKey()
    looked = look_at(pipeline.run().job.proto_pipeline, [])
    with pytest.raises(InputError, match="moves what Frames makes"):
        check_graph(looked, STEPS)
