"""The job `archon annotate`: every clip gets its other modalities, each a column aligned with the clips.

A shard of clips flows through steps; each step reads the shard's clips (and the columns that it builds on) and writes
its own columns' shards in the same row order (pipelines/column_shard.py). A clip on which an annotator fails keeps its
row with the error in it. A clip's row of a column is made again when what made it changes, and only then: the clip, the
backend, its code, its configuration or its weights, or the row of a column that it builds on. When clips are added, or
cut into other shards, the rows of the others are used again.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.errors import InputError
from pipelines import provenance
from pipelines.annotators import (
    ANNOTATORS,
    AnnotateConfig,
    Annotator,
    Backend,
    by_name,
    code_of,
    producer_of,
    settings_of,
)
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    runner_options,
)
from pipelines.books import books_for_manifest, sum_books
from pipelines.column_scores import scores_code
from pipelines.column_shard import ColumnWork, make_shard, remove_others, run_columns, write_inputs
from pipelines.dataset import ANNOTATIONS, Dataset, update_manifest
from pipelines.face_model import add_face_model_arguments, face_model_files
from pipelines.failures import Failures, failure_limit
from pipelines.keyed import BatchFunction, Fields, Keyed, one_by_one
from pipelines.manifest import SCORES
from pipelines.stages.gemini import KEY_VARIABLE, GeminiConfig, GeminiService
from pipelines.stages.spending import spending_line, total_spent

JOB = "annotate"


@dataclass(frozen=True)
class AnnotateShard:
    """The step: reads the shard's clips and required columns, writes the annotator's columns."""

    config: AnnotateConfig
    work: ColumnWork

    def __call__(self, task: ShardTask) -> StepResult:
        import cv2

        # Worker processes share the machine; OpenCV's own threads would only get in each other's way.
        cv2.setNumThreads(1)
        backend = by_name(self.work.label).backend(self.work.producer.backend)
        code = code_of(backend, self.config)
        if code != self.work.producer.code:
            raise RuntimeError(
                f"annotate: {self.work.label} by {backend.name}: this worker runs code {code}, the job was started by "
                f"code {self.work.producer.code}: install the same version (and packages) on workers and launcher"
            )
        return make_shard(self.work, task, batch_function(backend, self.config))


def batch_function(backend: Backend, config: AnnotateConfig) -> BatchFunction:
    """A backend as a function of keyed clips, with its settings in it."""
    settings = settings_of(backend, config)
    if backend.batch_function is not None:
        return lambda items: backend.batch_function(items, settings, backend.name)

    def single(item: Keyed) -> Fields:
        return backend.function(item.clip, item.columns, settings, backend.name)

    return one_by_one(single)


# --- The job ---


def chosen_backends(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Annotator name -> backend. InputError for an unknown column or backend."""
    chosen = {annotator.name: annotator.backends[0].name for annotator in ANNOTATORS}
    for column, backend in pairs:
        annotator = next((item for item in ANNOTATORS if column in item.columns), None)
        if annotator is None:
            raise InputError(f"--backend {column}={backend}: no such column; expected one of {', '.join(ANNOTATIONS)}")
        chosen[annotator.name] = annotator.backend(backend).name
    return chosen


@dataclass(frozen=True)
class Planned:
    """An annotator that is to run: what makes its columns, by column name, and the hash of all that it depends on."""

    annotator: Annotator
    backend: Backend
    made_by: dict[str, dict]
    work: ColumnWork


def annotate(config: AnnotateConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Run again, it makes only what is missing or outdated.

    Raises:
        InputError: no such dataset, column or backend, or a column that a wanted one builds on is neither there nor
        asked for.
        TooManyFailures: more failures than ``runner.max_failures`` allows.
        BooksError: the books do not close.
    """
    start = time.monotonic()
    runner = runner or RunnerOptions()
    unknown = sorted(set(config.columns) - set(ANNOTATIONS))
    if unknown or not config.columns:
        raise InputError(f"--columns {','.join(unknown)}: expected some of {', '.join(ANNOTATIONS)}")
    dataset = Dataset(config.dataset)
    plan = plan_columns(config, dataset, runner)
    clips = dataset.shard_infos("clips")
    count = sum(info.count for info in clips)
    print("annotate: " + ", ".join(f"{item.annotator.name} by {item.backend.name}" for item in plan), flush=True)
    works = [(item.work, _step(config, item)) for item in plan]
    markers = run_columns(JOB, works, [ShardTask(index, len(clips)) for index in range(len(clips))], runner)

    columns, scores, summary, facts, all_books = {}, {}, {}, {}, {}
    for item in plan:
        name, made = item.annotator.name, markers[item.annotator.name]
        books = sum_books(f"{JOB} {name}", "clips", (marker["summary"]["books"] for marker in made), count)
        seconds = sum(marker["seconds"] for marker in made)
        rate = sum(marker["summary"]["frames"] for marker in made) / max(seconds, 1e-9)
        print("\n".join([*books.lines(), f"annotate: {name}: {rate:.1f} frames/s"]), flush=True)
        spent = total_spent(paid for marker in made if (paid := marker["summary"]["spent"]))
        if spent:
            print(f"annotate: {name}: {spending_line(spent)}", flush=True)
        for text in [text for marker in made for text in marker["summary"]["errors"]][:20]:
            print(f"annotate: {text}", flush=True)
        for column in item.annotator.columns:
            infos = [info for info in marker_files(made) if info.path.startswith(f"{column}/")]
            scores[column] = [info for info in marker_files(made) if info.path.startswith(f"{SCORES}/{column}-")]
            producer = item.made_by[column]
            paid = {"spent": spent} if spent else {}
            columns[column] = (infos, {"job": JOB, **producer, "made_by": _of_column(item, column), **paid})
            summary[column] = {
                "clips": books.items,
                "errors": books.failed.total(),
                "seconds": round(seconds, 2),
                "frames_per_second": round(rate, 2),
                "made_with": name,
                **paid,
            }
        all_books[books.job] = books.as_dict()
        facts.update(books_for_manifest(config.dataset, books))
    update_manifest(config.dataset, columns, scores, books={**facts, **all_books})
    for item in plan:
        remove_others(config.dataset, item.work, marker_files(markers[item.annotator.name]))
    return {
        "clips": count,
        "columns": summary,
        "errors": sum(summary[item.annotator.name]["errors"] for item in plan),
        "books": all_books,
        "backends": {item.annotator.name: item.backend.name for item in plan},
        "seconds": round(time.monotonic() - start, 2),
    }


def plan_columns(config: AnnotateConfig, dataset: Dataset, runner: RunnerOptions) -> list[Planned]:
    """What is to run, in order. With ``runner.retry_failed`` also what builds on a wanted column and is up to date."""
    backends = chosen_backends(config.backends)
    wanted = {item.name: item for item in ANNOTATORS if set(item.columns) & set(config.columns)}
    manifest = dataset.manifest()
    clips = dataset.shard_infos("clips")
    made_by = {"clips": provenance.from_manifest(config.dataset, manifest, "clips")}
    made_here: set[str] = set()
    plan, marks = [], {}
    for annotator in ANNOTATORS:
        backend = annotator.backend(backends[annotator.name])
        if annotator.name not in wanted:
            if not runner.retry_failed or not made_here.intersection(backend.requires):
                continue
            if not _is_current(config, manifest, annotator, backend, made_by):
                continue
        for column in backend.requires:
            if column not in made_here:
                made_by[column] = _made_before(config, dataset, manifest, annotator.name, column)
        producer = producer_of(backend, config)
        upstream = {column: made_by[column] for column in ("clips", *backend.requires)}
        made = provenance.made_by(annotator.columns, producer, upstream.values())
        tables = scores_code(annotator.columns)
        marks[annotator.name] = [fingerprint(annotator.name, made, tables, info.sha256) for info in clips]
        work = ColumnWork(
            config.dataset,
            JOB,
            annotator.name,
            annotator.columns,
            backend.requires,
            producer,
            fingerprint(marks[annotator.name]),
            Failures(config.dataset, JOB, ""),
            "",
            backend.batch,
            backend.concurrent,
        )
        item = Planned(annotator, backend, made, work)
        plan.append(item)
        made_here.update(annotator.columns)
        made_by.update({column: _of_column(item, column) for column in annotator.columns})
    failures = Failures(
        config.dataset,
        JOB,
        fingerprint([item.work.fingerprint for item in plan]),
        failure_limit(runner.max_failures, len(plan) * sum(info.count for info in clips)),
        runner.is_local,
    )
    read = {column for item in plan for column in item.backend.requires} - made_here
    inputs = write_inputs(
        config.dataset, JOB, {column: dataset.shard_infos(column) for column in ("clips", *sorted(read))}, marks
    )
    return [replace(item, work=replace(item.work, failures=failures, inputs=inputs)) for item in plan]


def _of_column(item: Planned, column: str) -> dict:
    """What made one column of an annotator: without its sister columns."""
    return {name: made for name, made in item.made_by.items() if name == column or name not in item.annotator.columns}


def _made_before(config: AnnotateConfig, dataset: Dataset, manifest: dict, name: str, column: str) -> dict:
    """What made a required column that this run does not make. InputError if it is missing or not aligned."""
    if column not in manifest["columns"]:
        raise InputError(
            f"{config.dataset}: column {name} builds on {column}, which is not there; add it: --columns {column},{name}"
        )
    counts = [[info.count for info in dataset.shard_infos(each)] for each in (column, "clips")]
    if counts[0] != counts[1]:
        raise InputError(f"{config.dataset}: column {column} is not aligned with the clips: annotate it again")
    return provenance.from_manifest(config.dataset, manifest, column)


def _is_current(config: AnnotateConfig, manifest: dict, annotator: Annotator, backend: Backend, made_by: dict) -> bool:
    """Whether a column is there, made by what would make it now."""
    if annotator.name not in manifest["columns"] or not set(backend.requires) <= set(manifest["columns"]):
        return False
    upstream = [
        made_by.get(column) or provenance.from_manifest(config.dataset, manifest, column)
        for column in ("clips", *backend.requires)
    ]
    made = provenance.made_by([annotator.name], producer_of(backend, config), upstream)
    return provenance.from_manifest(config.dataset, manifest, annotator.name) == made


def _step(config: AnnotateConfig, item: Planned) -> Step:
    hints = item.backend.hints
    if item.backend.gpu and config.accelerator:
        hints = replace(hints, accelerator=config.accelerator)
    return Step(item.annotator.name, AnnotateShard(config, item.work), item.work.fingerprint, hints, item.work.mark)


def _backend_pair(text: str) -> tuple[str, str]:
    column, separator, backend = text.partition("=")
    if not separator or not column or not backend:
        raise argparse.ArgumentTypeError(f"{text!r}: expected COLUMN=NAME")
    return column, backend


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes the columns of a dataset from its clips: shape, expression, pose, semantics, description, script, "
        "speech, image."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    backends = "\n".join(
        f"  {', '.join(item.columns)}: {', '.join(backend.name for backend in item.backends)}" for item in ANNOTATORS
    )
    parser.epilog = f"""backends, the default first:
{backends}

examples:
  archon annotate --dataset dataset
  archon annotate --dataset dataset --columns script,description --runner in-process
  archon annotate --dataset dataset --columns semantics --backend semantics=network --segmenter W/models/segmenter
  archon annotate --dataset dataset --columns script --backend script=whisper --whisper-weights whisper-large-v3
  archon annotate --dataset dataset --columns script --backend script=auto
  archon annotate --dataset dataset --columns description --backend description=gemini --gemini-project P \\
    --gemini-location europe-west4 --gemini-model gemini-2.5-pro --gemini-rpm 300
  archon annotate --dataset dataset --retry-failed --max-failures 0.05
  archon annotate --dataset gs://bucket/dataset --runner dataflow --beam-arg=--project=P \\
    --accelerator 'type:nvidia-l4;count:1;install-nvidia-driver' --beam-arg=--experiments=no_use_multiple_sdk_containers

Run again after `archon curate` has added clips or changed shards, it makes the rows of the new clips only.
Beside each column's shard lies a table of its figures, scores/COLUMN-*.parquet (docs/schema.md).

A model is loaded once a worker process. Dataflow starts a process for every core, and each would load its own copy:
with an accelerator, --beam-arg=--experiments=no_use_multiple_sdk_containers gives one process a machine, whose threads
share one copy and take turns with it.

script: pocketsphinx (embedded, English), whisper (weights by path), subtitles (NAME.srt, NAME.vtt, NAME.en.srt beside
the source; a clip without any fails), auto (subtitles where there are some, else pocketsphinx). The record says which.

description=gemini asks a paid service. Answers are kept under DATASET/_state/annotate/captions, so that none is bought
twice; what it cost is in every record, in this command's summary and in the manifest. --gemini-rpm is kept by all
workers of a machine together; on Dataflow a machine's processes share it only with
--beam-arg=--experiments=no_use_multiple_sdk_containers, so give each machine the quota over the number of machines."""
    parser.add_argument("--dataset", required=True, metavar="DATASET", help="a dataset made by `archon curate`")
    parser.add_argument("--columns", default=",".join(ANNOTATIONS), metavar="A,B", help="default: all of them")
    parser.add_argument(
        "--backend",
        action="append",
        default=[],
        type=_backend_pair,
        metavar="COLUMN=NAME",
        help="what makes a column; may be repeated",
    )
    add_face_model_arguments(parser)
    parser.add_argument(
        "--segmenter", metavar="DIR", help="a trained segmenter for semantics=network (default: the embedded one)"
    )
    parser.add_argument(
        "--accelerator",
        metavar="TYPE",
        help="ask Dataflow for this accelerator (a Beam resource hint) where a backend can use one",
    )
    parser.add_argument(
        "--whisper-weights", metavar="DIR", help="for script=whisper: config.json, model.safetensors ..."
    )
    add_gemini_arguments(parser)
    add_runner_arguments(parser)


def add_gemini_arguments(parser: argparse.ArgumentParser) -> None:
    asked, service = GeminiConfig(), GeminiService()
    group = parser.add_argument_group("description=gemini")
    group.add_argument(
        "--gemini-project", default="", metavar="P", help=f"on Vertex AI; without it, by the API key in {KEY_VARIABLE}"
    )
    group.add_argument("--gemini-location", default=service.location, metavar="L", help="default: %(default)s")
    group.add_argument("--gemini-model", default=asked.model, metavar="M", help="default: %(default)s")
    group.add_argument(
        "--gemini-rpm",
        type=float,
        default=service.rpm,
        metavar="N",
        help="requests a minute, of all workers of a machine together (default: %(default)g)",
    )
    group.add_argument(
        "--gemini-concurrency",
        type=int,
        default=service.concurrency,
        metavar="N",
        help="requests in flight a worker (default: %(default)s)",
    )
    group.add_argument(
        "--gemini-deadline",
        type=float,
        default=service.deadline,
        metavar="S",
        help="seconds a clip may take with all its tries (default: %(default)g)",
    )
    group.add_argument(
        "--gemini-prices", metavar="FILE", help="JSON as pipelines/gemini_prices.json, which is the default"
    )
    group.add_argument("--gemini-endpoint", metavar="URL", help="another address of the service, for tests and proxies")


def gemini_service(args: argparse.Namespace) -> GeminiService:
    return GeminiService(
        args.gemini_project,
        args.gemini_location,
        args.gemini_rpm,
        args.gemini_concurrency,
        deadline=args.gemini_deadline,
        prices=args.gemini_prices,
        endpoint=args.gemini_endpoint,
    )


def run(args: argparse.Namespace) -> dict:
    columns = tuple(name.strip() for name in args.columns.split(",") if name.strip())
    config = AnnotateConfig(
        args.dataset,
        columns,
        tuple(args.backend),
        face_model_files(args),
        segmenter=args.segmenter,
        whisper_weights=args.whisper_weights,
        gemini=GeminiConfig(args.gemini_model),
        gemini_service=gemini_service(args),
        accelerator=args.accelerator,
    )
    return annotate(config, runner_options(args))
