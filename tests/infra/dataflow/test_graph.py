"""The Dataflow jobs, built offline: their hints, their size, and that shuffles move tasks only."""

import dataclasses
import json
import random
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from infra.dataflow import graph
from infra.dataflow.config import beam_arguments, make_config
from infra.dataflow.graph import ELEMENT_LIMIT, GRAPH_LIMIT, build_graph, check_graph, look_at
from models.errors import InputError
from pipelines.annotate import annotate
from pipelines.annotators import AnnotateConfig
from pipelines.beam import Hints, RunnerOptions, ShardTask, Step, StepResult
from pipelines.column_scores import scores_row, write_scores
from pipelines.dataset import ANNOTATIONS, ShardInfo, shard_name, update_manifest
from pipelines.dry_run import DryRun
from pipelines.tokenize import TOKENIZERS, TokenizeConfig, tokenize
from tests.infra.dataflow.test_config import GIVEN
from tests.pipelines.rows import producer, row

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


# --- The graphs of annotate and tokenize, of datasets that are there by name only ---

WHISPER = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")


def dataset_of(folder, shards: int, columns=("clips",)) -> str:
    """A manifest of shards of one clip each, which nothing opens, and the tables of scores that tokenize reads."""
    entries, scores = {}, {}
    for column in columns:
        names = [shard_name(column, index, shards) for index in range(shards)]
        infos = [ShardInfo(name, 1, 10**8, f"{index:064x}") for index, name in enumerate(names)]
        entries[column] = infos, producer(column)
    for index in range(shards if ANNOTATIONS[0] in columns else 0):
        line = scores_row(ANNOTATIONS[0], row(f"clip{index}", ANNOTATIONS[0], source=index), "x")
        written = write_scores(str(folder), ANNOTATIONS[0], ShardTask(index, shards), [line])
        scores.setdefault(ANNOTATIONS[0], []).append(written)
    update_manifest(folder, entries, scores)
    return str(folder)


def planned(job, config):
    """What the job would run, and its graph."""
    with pytest.raises(DryRun) as caught:
        job(config, RunnerOptions("dataflow", beam_args=tuple(ARGUMENTS), dry_run=True))
    return caught.value, graph_of(caught.value.steps, caught.value.tasks)


def origins(graph) -> dict[str, str]:
    """Shuffle -> the transform whose output it moves; without that of shard numbers, which many shards come from."""
    moved = {name.partition("/")[0]: origin for name, origin in graph.shuffles.items()}
    assert moved.pop("Shard numbers", "Shard numbers") == "Shard numbers"
    return moved


@pytest.fixture(scope="module", params=[3, 3000])
def annotation(request, tmp_path_factory):
    """Two steps that a GPU makes faster and two others."""
    folder = tmp_path_factory.mktemp("annotate")
    weights = folder / "whisper"
    weights.mkdir()
    for name in WHISPER:
        (weights / name).write_text("{}")
    config = AnnotateConfig(
        dataset_of(folder / "set", request.param),
        ("image", "semantics", "speech", "script"),
        (("script", "whisper"), ("speech", "energy")),
        whisper_weights=str(weights),
        accelerator=CONFIG.accelerator(),
    )
    plan, graph = planned(annotate, config)
    assert graph.tasks == request.param
    return plan, graph


def test_annotate_asks_for_a_gpu_where_a_backend_can_use_one(annotation):
    plan, graph = annotation
    labels = [step.label for step in plan.steps]
    assert {step.name: step.hints for step in graph.steps if step.name in labels} == {
        "semantics": {"accelerator": CONFIG.accelerator(), "min_ram_bytes": "4000000000"},
        "image": {},
        "speech": {},
        "script": {"accelerator": CONFIG.accelerator(), "min_ram_bytes": "8000000000"},
    }


def test_the_graph_of_annotate_is_small_and_moves_tasks_only(annotation):
    plan, graph = annotation
    check_graph(graph, plan.steps)
    assert graph.bytes < GRAPH_LIMIT / 50 and graph.largest_element < 300
    assert origins(graph) == {
        "semantics: spread": "Shards",
        "image: spread": "semantics",
        "speech: spread": "image",
        "script: spread": "speech",
    }


def test_the_graph_of_tokenize_is_small_and_moves_tasks_only(tmp_path):
    """Ten times the shards make no larger graph: what they are made from lies in files."""
    for name in TOKENIZERS:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.json").write_text(json.dumps({"weights_sha256": name}))
    sizes = []
    for shards in (30, 300):
        root = dataset_of(tmp_path / str(shards), shards, ("clips", *ANNOTATIONS))
        plan, graph = planned(tokenize, TokenizeConfig(root, str(tmp_path / "models")))
        check_graph(graph, plan.steps)
        assert graph.tasks == shards and graph.largest_element < 300
        assert origins(graph) == {"tokens: spread": "Shards"}
        sizes.append(graph.bytes)
    assert sizes[1] < 1.1 * sizes[0] < GRAPH_LIMIT / 50
