"""A job's Dataflow graph, built on this machine without a connection: what it holds, and whether it is sound."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import InputError
from pipelines.beam import ShardTask, Step, build_pipeline

GRAPH_LIMIT = 10 * 2**20  # bytes of a job's graph that Dataflow takes
ELEMENT_LIMIT = 4096  # bytes of what a shuffle may carry: a task, never frames or video

_SHUFFLES = ("beam:transform:group_by_key:v1", "beam:transform:reshuffle:v1")
_PARDO, _HINT = "beam:transform:pardo:v1", "beam:resources:"


@dataclass(frozen=True)
class GraphStep:
    """``hints``: what its workers must have, by Beam's names. ``bytes``: of the function as it is sent."""

    name: str
    hints: dict[str, str]
    bytes: int


@dataclass(frozen=True)
class Graph:
    """``shuffles``: shuffle -> the transform whose output it moves. ``largest_element``: bytes of the largest task."""

    bytes: int
    steps: tuple[GraphStep, ...]
    shuffles: dict[str, str]
    largest_element: int
    tasks: int


def build_graph(job: str, root: str, steps: Sequence[Step], tasks: Sequence[ShardTask], arguments: Sequence[str]):
    """Returns the job as the protocol buffer that Dataflow would get. Nothing is sent, nobody is asked for rights."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions([*arguments, "--dry_run=True", "--no_auth"])
    pipeline = beam.Pipeline(runner="DataflowRunner", options=options)
    build_pipeline(pipeline, job, root, steps, tasks)
    return pipeline.run().job.proto_pipeline


def look_at(proto, tasks: Sequence[ShardTask]) -> Graph:
    """Says what a graph holds."""
    from apache_beam import coders

    parts = proto.components
    leaves = {name: part for name, part in parts.transforms.items() if not part.subtransforms}
    makers = {out: part for part in leaves.values() for out in part.outputs.values()}
    steps = []
    for part in leaves.values():
        if part.spec.urn == _PARDO:
            environment = parts.environments[part.environment_id]
            hints = {
                urn.removeprefix(_HINT).rsplit(":", 1)[0]: value.decode()
                for urn, value in sorted(environment.resource_hints.items())
            }
            steps.append(GraphStep(part.unique_name, hints, len(part.spec.payload)))
    shuffles = {}
    for part in leaves.values():
        if part.spec.urn in _SHUFFLES:
            shuffles[part.unique_name] = _origin(part, makers)
    coder = coders.registry.get_coder(ShardTask)
    largest = max((len(coder.encode(task)) for task in tasks), default=0)
    return Graph(proto.ByteSize(), tuple(steps), shuffles, largest, len(tasks))


def _origin(shuffle, makers) -> str:
    """The named transform that made what a shuffle moves, past the shuffle's own preparation (random keys, windows)."""
    family = shuffle.unique_name.partition("/")[0]
    while shuffle.inputs:
        [source] = shuffle.inputs.values()
        shuffle = makers[source]
        if shuffle.unique_name.partition("/")[0] != family:
            break
    return shuffle.unique_name.partition("/")[0]


def check_graph(graph: Graph, steps: Sequence[Step]) -> None:
    """Raises InputError if Dataflow would refuse the graph, or if a shuffle moves anything but tasks."""
    if graph.bytes > GRAPH_LIMIT:
        raise InputError(f"the job's graph has {graph.bytes:,} bytes, and Dataflow takes {GRAPH_LIMIT:,}")
    if graph.largest_element > ELEMENT_LIMIT:
        raise InputError(
            f"a task has {graph.largest_element:,} bytes, expected at most {ELEMENT_LIMIT:,}: tasks name shards, their "
            "sources are listed in a file"
        )
    makers = {"Shards", "Shard numbers", *(step.label for step in steps)}
    for shuffle, origin in graph.shuffles.items():
        if origin not in makers:
            raise InputError(f"shuffle {shuffle} moves what {origin} makes; only tasks may be shuffled")


def report_lines(graph: Graph) -> list[str]:
    """The graph as lines for a person."""
    lines = [
        f"graph: {graph.bytes:,} bytes of {GRAPH_LIMIT:,}; {graph.tasks:,} shards to do; {len(graph.shuffles)} "
        f"shuffles of tasks of at most {graph.largest_element} bytes"
    ]
    for step in graph.steps:
        if step.hints or step.bytes > 2000:
            hints = ", ".join(f"{name}={value}" for name, value in step.hints.items()) or "no hints"
            lines.append(f"  step {step.name}: {hints}; {step.bytes:,} bytes")
    return lines
