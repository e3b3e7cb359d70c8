"""The job `archon annotate`: every clip gets its other modalities, each a column aligned with the clips.

A shard of clips flows through steps; each step reads the shard's clips (and the columns that it builds on) and writes
its own columns' shards in the same row order. A clip on which an annotator fails keeps its row with the error in it.
Columns are made again when what made them changes: the clips, a column they build on, the backend or its configuration.
"""

import argparse
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import InputError
from pipelines import storage
from pipelines.annotators import ANNOTATORS, AnnotateConfig, Annotator, settings, weights
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    run_shards,
    runner_options,
)
from pipelines.dataset import (
    ANNOTATIONS,
    COLUMN_FIELDS,
    Dataset,
    Record,
    ShardReader,
    error_record,
    shard_name,
    update_manifest,
    write_shard,
)
from pipelines.face_model import add_face_model_arguments, face_model_files

JOB = "annotate"


# --- One shard through one annotator ---


@dataclass(frozen=True)
class AnnotateShard:
    """The step: reads the shard's clips and required columns, writes the annotator's columns.

    ``inputs``: column -> path of this dataset's shards in order, for the clips and for required columns that the job
    does not make itself.
    """

    config: AnnotateConfig
    annotator: str
    backend: str
    inputs: tuple[tuple[str, tuple[str, ...]], ...]

    def __call__(self, task: ShardTask) -> StepResult:
        import cv2

        # Worker processes share the machine; OpenCV's own threads would only get in each other's way.
        cv2.setNumThreads(1)
        annotator = next(item for item in ANNOTATORS if item.name == self.annotator)
        inputs = dict(self.inputs)

        def reader(column: str) -> ShardReader:
            made_here = storage.join(self.config.dataset, shard_name(column, task.index, task.count))
            return ShardReader(inputs[column][task.index] if column in inputs else made_here)

        clips = reader("clips")
        required = {column: reader(column) for column in annotator.requires}
        for rows in required.values():
            if len(rows) != len(clips):
                raise InputError(f"{rows.path}: {len(rows)} rows, but the clips have {len(clips)}: not aligned")
        rows = [
            annotate_clip(annotator, clips[k], {name: rows[k] for name, rows in required.items()}, self)
            for k in range(len(clips))
        ]
        files = tuple(
            write_shard(self.config.dataset, shard_name(column, task.index, task.count), [row[column] for row in rows])
            for column in annotator.columns
        )
        errors = [row[annotator.name]["error"] for row in rows if row[annotator.name]["error"]]
        frames = sum(clips[k]["num_frames"] for k in range(len(clips)) if not clips[k]["error"])
        return StepResult(files, {"clips": len(rows), "frames": frames, "errors": errors})


def annotate_clip(
    annotator: Annotator, clip: Record, required: dict[str, Record], shard: AnnotateShard
) -> dict[str, Record]:
    """Runs an annotator on one clip: column -> record. A failure becomes rows with the error in them, never an
    exception.
    """
    clip_id = clip["clip_id"]
    upstream = next(
        (f"{name}: {row['error']}" for name, row in {"clips": clip, **required}.items() if row["error"]), ""
    )
    try:
        for name, row in required.items():
            if row["clip_id"] != clip_id:
                raise InputError(f"column {name} has clip {row['clip_id']} in the row of {clip_id}: not aligned")
        if upstream:
            raise InputError(f"needs {upstream}")
        fields = annotator.function(clip, required, shard.config, shard.backend)
        return {
            column: {"clip_id": clip_id, "error": "", **{name: fields[column][name] for name in COLUMN_FIELDS[column]}}
            for column in annotator.columns
        }
    except Exception as error:
        if not upstream:
            traceback.print_exc()
        text = f"{annotator.name}: {type(error).__name__}: {error}"
        return {column: error_record(clip_id, text) for column in annotator.columns}


# --- The job ---


def chosen_backends(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Annotator name -> backend. InputError for an unknown column or backend."""
    chosen = {annotator.name: annotator.backends[0] for annotator in ANNOTATORS}
    for column, backend in pairs:
        annotator = next((item for item in ANNOTATORS if column in item.columns), None)
        if annotator is None:
            raise InputError(f"--backend {column}={backend}: no such column; expected one of {', '.join(ANNOTATIONS)}")
        if backend not in annotator.backends:
            raise InputError(f"--backend {column}={backend}: expected one of {', '.join(annotator.backends)}")
        chosen[annotator.name] = backend
    return chosen


def annotate(config: AnnotateConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Run again, it makes only what is missing or outdated.

    Raises:
        InputError: no such dataset, column or backend, or a column that a wanted one builds on is neither there nor
        asked for.
    """
    start = time.monotonic()
    unknown = sorted(set(config.columns) - set(ANNOTATIONS))
    if unknown or not config.columns:
        raise InputError(f"--columns {','.join(unknown)}: expected some of {', '.join(ANNOTATIONS)}")
    backends = chosen_backends(config.backends)
    wanted = [item for item in ANNOTATORS if set(item.columns) & set(config.columns)]
    dataset = Dataset(config.dataset)
    steps, prints = plan_steps(config, wanted, backends, dataset)
    clips = dataset.shard_infos("clips")
    print("annotate: " + ", ".join(f"{item.name} by {backends[item.name]}" for item in wanted), flush=True)
    tasks = [ShardTask(index, len(clips)) for index in range(len(clips))]
    markers = run_shards(JOB, config.dataset, steps, tasks, runner or RunnerOptions())

    columns, summary = {}, {}
    for item in wanted:
        made = markers[item.name]
        files = marker_files(made)
        producer = {
            "job": JOB,
            "backend": backends[item.name],
            "version": item.version,
            "config": prints[item.name],
            "weights": weights(item, config, backends[item.name]),
        }
        seconds = sum(marker["seconds"] for marker in made)
        rate = sum(marker["summary"].get("frames", 0) for marker in made) / max(seconds, 1e-9)
        print(f"annotate: {item.name}: {rate:.1f} frames/s", flush=True)
        errors = [text for marker in made for text in marker["summary"]["errors"]]
        for column in item.columns:
            infos = [info for info in files if info.path.startswith(f"{column}/")]
            columns[column] = (infos, producer)
            summary[column] = {
                "clips": sum(info.count for info in infos),
                "errors": len(errors),
                "seconds": round(seconds, 2),
                "frames_per_second": round(rate, 2),
                "made_with": item.name,
            }
        for text in errors:
            print(f"annotate: {text}", flush=True)
    update_manifest(config.dataset, columns)
    return {
        "clips": sum(info.count for info in clips),
        "columns": summary,
        "errors": sum(summary[item.name]["errors"] for item in wanted),
        "backends": {item.name: backends[item.name] for item in wanted},
        "seconds": round(time.monotonic() - start, 2),
    }


def plan_steps(
    config: AnnotateConfig, wanted: Sequence[Annotator], backends: dict[str, str], dataset: Dataset
) -> tuple[list[Step], dict[str, str]]:
    """Returns the steps of the wanted annotators, and each one's fingerprint: of its inputs, backend and settings."""
    manifest = dataset.manifest()["columns"]
    made_by = {column: item for item in wanted for column in item.columns}
    clips = dataset.shard_infos("clips")
    clip_print = fingerprint([(info.path, info.sha256) for info in clips])
    steps: list[Step] = []
    prints: dict[str, str] = {}
    for item in wanted:
        inputs: dict[str, tuple[str, ...]] = {"clips": tuple(dataset.shards("clips"))}
        upstream: dict[str, Any] = {"clips": clip_print}
        for column in item.requires:
            if column in made_by:
                upstream[column] = prints[made_by[column].name]
                continue
            if column not in manifest:
                raise InputError(
                    f"{config.dataset}: column {item.name} builds on {column}, which is not there; "
                    f"add it: --columns {column},{item.name}"
                )
            infos = dataset.shard_infos(column)
            if [info.count for info in infos] != [info.count for info in clips]:
                raise InputError(f"{config.dataset}: column {column} is not aligned with the clips: annotate it again")
            # What it was made by, not its bytes: the same print as when both are made in one run.
            upstream[column] = manifest[column]["producer"]["config"]
            inputs[column] = tuple(dataset.shards(column))
        backend = backends[item.name]
        prints[item.name] = fingerprint(item.name, item.version, backend, settings(item, config, backend), upstream)
        step = AnnotateShard(config, item.name, backend, tuple(sorted(inputs.items())))
        steps.append(Step(item.name, step, prints[item.name]))
    return steps, prints


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
    backends = "\n".join(f"  {', '.join(item.columns)}: {', '.join(item.backends)}" for item in ANNOTATORS)
    parser.epilog = f"""backends, the default first:
{backends}

examples:
  archon annotate --dataset dataset
  archon annotate --dataset dataset --columns script,description --runner in-process
  archon annotate --dataset dataset --columns semantics --backend semantics=network --segmenter W/models/segmenter
  archon annotate --dataset gs://bucket/dataset --backend speech=energy --runner dataflow --beam-arg=--project=P"""
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
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    columns = tuple(name.strip() for name in args.columns.split(",") if name.strip())
    config = AnnotateConfig(
        args.dataset,
        columns,
        tuple(args.backend),
        face_model_files(args),
        segmenter=args.segmenter,
    )
    return annotate(config, runner_options(args))
