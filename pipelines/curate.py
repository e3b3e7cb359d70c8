"""The job `archon curate`: videos become clips, with a reason for every video that does not.

Sources are sorted and cut into fixed groups; each group is one shard, made by one worker, so that no video passes
through a shuffle and a kill costs one shard. A shard is three files: clips (ArrayRecord), rejects and quality
(Parquet). The books must close: every source either has a clip or exactly one reject row for the whole source.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from models.errors import InputError
from pipelines import provenance, storage
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
from pipelines.dataset import shard_name, update_manifest, write_shard
from pipelines.provenance import clips_producer
from pipelines.stages.curation import Settings, curate_source
from pipelines.stages.filters import SCORES, FilterThresholds, thresholds_with
from pipelines.stages.landmarks import BACKENDS, check_backend, close_backends
from pipelines.stages.limits import Limits, limits_with
from pipelines.tables import write_table

JOB, STEP = "curate", "clips"
LISTS = (".txt", ".lst", ".list")


@dataclass(frozen=True)
class CurateConfig:
    """``inputs``.

    Glob patterns, folders, or text files (``.txt``, ``.lst``, ``.list``) of one path or gs:// URI a line.
    """

    inputs: tuple[str, ...]
    output: str
    landmarks: str = "dlib"
    landmark_weights: str | None = None
    sources_per_shard: int = 4
    thresholds: FilterThresholds = field(default_factory=FilterThresholds)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Source:
    path: str
    duplicate_of: str | None = None


def find_sources(inputs: Sequence[str]) -> list[str]:
    """Returns the sources that the inputs name, sorted, each once. InputError if an input names none."""
    found: set[str] = set()
    for item in inputs:
        if item.lower().endswith(LISTS):
            if not storage.exists(item):
                raise InputError(f"--input {item}: no such file; expected a list of videos, one a line")
            lines = storage.read_bytes(item).decode("utf-8", errors="strict").splitlines()
            paths = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        elif not storage.is_remote(item) and not any(mark in item for mark in "*?["):
            paths = storage.list_files(item) or storage.list_files(storage.join(item, "*"))
        else:
            paths = storage.list_files(item) or ([item] if storage.is_remote(item) and storage.exists(item) else [])
        if not paths:
            raise InputError(f"--input {item}: no files; expected videos, a pattern, a folder or a list of videos")
        found.update(paths)
    return sorted(found)


def mark_duplicates(paths: Sequence[str]) -> list[Source]:
    """Says of each source whether an earlier one has the same bytes. Only files of equal size are read."""
    sizes: dict[str, int] = {}
    for path in paths:
        try:
            sizes[path] = storage.size(path)
        except OSError:
            sizes[path] = -1  # the probe will say what is wrong with it
    counts, first, out = Counter(sizes.values()), {}, []
    for path in paths:
        original = None
        if sizes[path] > 0 and counts[sizes[path]] > 1:
            with storage.local_copy(path) as local:
                original = first.setdefault(storage.sha256_file(local), path)
        out.append(Source(path, original if original != path else None))
    return out


@dataclass(frozen=True)
class CurateShard:
    """The step: a task's sources -> the shard's three files."""

    output: str
    settings: Settings

    def __call__(self, task: ShardTask) -> StepResult:
        try:
            results = [curate_source(source.path, self.settings, source.duplicate_of) for source in task.payload]
        finally:
            close_backends()
        records = [record for result in results for record in result.clips]
        rejects = [row for result in results for row in result.rejects]
        quality = [row for result in results for row in result.quality]
        files = (
            write_shard(self.output, shard_name("clips", task.index, task.count), records),
            write_table(self.output, f"rejects/rejects-{task}.parquet", rejects, reject_schema()),
            write_table(self.output, f"quality/quality-{task}.parquet", quality, quality_schema()),
        )
        whole = [row for row in rejects if row["clip_id"] is None]
        kept = {record["source"] for record in records}
        lost = [row["source"] for row in whole]
        if sorted([*kept, *lost]) != sorted(source.path for source in task.payload):
            raise RuntimeError(
                f"curate shard {task}: the books do not close: {sorted(kept)} kept, {sorted(lost)} rejected"
            )
        summary = {
            "sources": len(task.payload),
            "sources_with_clips": len(kept),
            "clips": len(records),
            "filtered": sum(row["kind"] == "filtered" for row in whole),
            "failed": sum(row["kind"] == "failed" for row in whole),
            "segments_rejected": len(rejects) - len(whole),
            "video_seconds": sum(result.seconds for result in results),
            "clip_seconds": sum(record["num_frames"] for record in records) / 30,
            "reasons": dict(Counter(f"{row['kind']}: {row['reason']}" for row in whole)),
        }
        return StepResult(files, summary)


def reject_schema():
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {"source": text, "clip_id": text, "start_frame": number, "end_frame": number}
    return pa.schema([*fields.items(), *((name, text) for name in ("stage", "kind", "reason", "detail"))])


def quality_schema():
    import pyarrow as pa

    fields = {"source": pa.string(), "clip_id": pa.string(), "start_frame": pa.int32(), "end_frame": pa.int32()}
    return pa.schema(
        [*fields.items(), *((name, pa.float32()) for name in SCORES), ("flags", pa.string()), ("kept", pa.bool_())]
    )


def curate(config: CurateConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Run again, it does only what is not done."""
    start = time.monotonic()
    if config.sources_per_shard < 1:
        raise InputError(f"--sources-per-shard {config.sources_per_shard}: expected at least 1")
    check_backend(config.landmarks, config.landmark_weights)
    sources = mark_duplicates(find_sources(config.inputs))
    print(f"curate: {len(sources)} sources, landmarks by {config.landmarks}", flush=True)
    producer = clips_producer(config.landmarks, config.landmark_weights, config.thresholds, config.limits)
    made_by = provenance.made_by(["clips"], producer)
    settings = Settings(
        config.landmarks, config.landmark_weights, config.thresholds, config.limits, provenance.to_text(made_by)
    )
    sizes = [storage.size(source.path) if storage.exists(source.path) else -1 for source in sources]
    step = Step(
        STEP,
        CurateShard(config.output, settings),
        fingerprint(made_by, [(s.path, s.duplicate_of) for s in sources], sizes, config.sources_per_shard),
    )
    groups = [sources[i : i + config.sources_per_shard] for i in range(0, len(sources), config.sources_per_shard)]
    tasks = [ShardTask(index, len(groups), tuple(group)) for index, group in enumerate(groups)]
    markers = run_shards(JOB, config.output, [step], tasks, runner or RunnerOptions())[STEP]
    files = marker_files(markers)
    _remove_others(config.output, {info.path for info in files})

    summaries = [marker["summary"] for marker in markers]
    numbers = ("sources", "sources_with_clips", "clips", "filtered", "failed", "segments_rejected")
    total = {name: sum(summary[name] for summary in summaries) for name in numbers}
    if (
        total["sources"] != len(sources)
        or total["sources"] != total["sources_with_clips"] + total["filtered"] + total["failed"]
    ):
        raise RuntimeError(f"curate: the books do not close: {total} for {len(sources)} sources")
    reasons = sum((Counter(summary["reasons"]) for summary in summaries), Counter())
    producer = {
        "job": JOB,
        **made_by["clips"],
        "made_by": made_by,
        "detector": "dlib-hog",
        "thresholds": asdict(config.thresholds),
    }
    clips = [info for info in files if info.path.startswith("clips/")]
    update_manifest(
        config.output, {"clips": (clips, producer)}, curation={**total, "reasons": dict(sorted(reasons.items()))}
    )
    for reason, count in sorted(reasons.items()):
        print(f"curate: {count} sources {reason}", flush=True)
    return {
        **total,
        "seconds": round(time.monotonic() - start, 2),
        "video_seconds": round(sum(summary["video_seconds"] for summary in summaries), 2),
        "clip_seconds": round(sum(summary["clip_seconds"] for summary in summaries), 2),
        "backend": config.landmarks,
        "reasons": dict(sorted(reasons.items())),
    }


def _remove_others(root: str, current: set[str]) -> None:
    """Removes shards of an earlier run with other sources: readers of rejects/*.parquet must not count them."""
    if storage.is_remote(root):
        return
    import os

    for column in ("clips", "rejects", "quality"):
        for path in storage.list_files(storage.join(root, column, "*")):
            if f"{column}/{os.path.basename(path)}" not in current:
                os.remove(path)


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turns videos into a dataset of talking-head clips of 2 to 10 seconds: 256x256, 30 fps, 16 kHz."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon curate --input 'videos/*.mp4' --output dataset
  archon curate --input list.txt --output gs://bucket/dataset --runner dataflow --beam-arg=--project=P
  archon curate --input videos --output dataset --landmarks mediapipe --landmark-weights face_landmarker.task
  archon curate --input videos --output dataset --threshold min_face_size=128 --threshold max_turn=30"""
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="VIDEOS",
        help="patterns, folders, or text files (.txt, .lst, .list) with one path or gs:// URI a line",
    )
    parser.add_argument("--output", required=True, metavar="DATASET", help="folder or gs:// prefix to write")
    parser.add_argument("--landmarks", choices=BACKENDS, default="dlib", help="landmark backend (default: %(default)s)")
    parser.add_argument(
        "--landmark-weights",
        metavar="FILE",
        help="weights of the backend: required for mediapipe (.task); for face_alignment downloaded if not given",
    )
    parser.add_argument("--sources-per-shard", type=int, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"change a filter; may be repeated. Names: {', '.join(FilterThresholds.__dataclass_fields__)}",
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change what one source may be and may use; may be repeated. "
        f"Names: {', '.join(Limits.__dataclass_fields__)}",
    )
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    return curate(
        CurateConfig(
            inputs=tuple(args.input),
            output=args.output,
            landmarks=args.landmarks,
            landmark_weights=args.landmark_weights,
            sources_per_shard=args.sources_per_shard,
            thresholds=thresholds_with(args.threshold),
            limits=limits_with(args.limit),
        ),
        runner_options(args),
    )
