"""The job `archon curate`: videos become clips, with a reason for every video that does not.

Sources are sorted and cut into fixed groups; each group is one shard, made by one worker, so that no video passes
through a shuffle. Each finished source is kept as a part (pipelines/parts.py), so a kill costs one source; a shard is
put together from the parts. It is four files: clips (ArrayRecord), rejects, quality and sources (Parquet, see
pipelines/curate_tables.py). Its marker lists the sources with their keys, so that after a change of the input or of
the thresholds what is stored is used again (pipelines/reuse.py). The books must close: every source either has a clip
or exactly one reject row for the whole source.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from models.errors import InputError
from pipelines import provenance, reuse, storage
from pipelines.beam import (
    Hints,
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
from pipelines.books import Books, books_for_manifest, sum_books
from pipelines.curate_tables import TABLES, table_name, table_schema
from pipelines.dataset import Dataset, shard_name, shard_writer, update_manifest, write_json
from pipelines.failures import Failure, Failures, TooManyFailures, failure_limit
from pipelines.manifest import DUPLICATES, MANIFEST, ShardInfo, duplicate_infos
from pipelines.parts import Parts
from pipelines.provenance import clips_producer
from pipelines.sources import Source, describe_sources, find_sources, read_sources, write_sources
from pipelines.stages.curation import Settings, SourceResult, curate_source, failed_row
from pipelines.stages.filters import SHAPING, FilterThresholds, thresholds_with
from pipelines.stages.landmarks import BACKENDS, check_backend, close_backends
from pipelines.stages.limits import Limits, limits_with
from pipelines.stages.syncnet import HINTS as SYNCNET_HINTS
from pipelines.state import safe_name, state_path
from pipelines.stored_sources import Stored, decided, from_part, rows_record
from pipelines.tables import write_table

JOB, STEP = "curate", "clips"
VERSION = 2  # of what a source's part is made of: raise it when the same source is stored in another way


@dataclass(frozen=True)
class CurateConfig:
    """``inputs``.

    Glob patterns, folders, or text files (``.txt``, ``.lst``, ``.list``) of one path or gs:// URI a line.
    ``sources_per_shard`` None: 1 to 4, by how many sources there are (never by the machine: the same input gives the
    same shards).
    """

    inputs: tuple[str, ...]
    output: str
    landmarks: str = "dlib"
    landmark_weights: str | None = None
    syncnet_weights: str | None = None
    sources_per_shard: int | None = None
    thresholds: FilterThresholds = field(default_factory=FilterThresholds)
    limits: Limits = field(default_factory=Limits)


def shard_size(sources: int) -> int:
    """Sources a shard: few when there are few, so that workers have something to share."""
    return min(4, max(1, -(-sources // 64)))


# --- One shard ---


@dataclass(frozen=True)
class CurateShard:
    """The step: a shard's sources -> the shard's four files.

    ``measured_by``: fingerprint of all that a source's measured segments and clips depend on besides the file.
    """

    output: str
    settings: Settings
    measured_by: str
    sources_per_shard: int
    failures: Failures

    def sources(self, task: ShardTask) -> list[Source]:
        return read_sources(self.output, JOB, task.index * self.sources_per_shard, self.sources_per_shard)

    def key(self, source: Source) -> str:
        """What a finished source is found by."""
        return f"{self.measured_by}\n{source.identity()}"

    def __call__(self, task: ShardTask) -> StepResult:
        sources, parts = self.sources(task), Parts(self.output, JOB, STEP, task)
        try:
            for source in sources:
                self._finish(source, parts)
        finally:
            close_backends()
        return self._publish(task, sources, parts)

    @contextmanager
    def _stored(self, source: Source, parts: Parts) -> Iterator[Stored | None]:
        """Yields what is stored of a source: as a part, or in a shard of an earlier layout."""
        with parts.open(self.key(source)) as part:
            stored = from_part(part) if part is not None else None
            if stored is not None and decided(stored, self.settings.thresholds) is not None:
                yield stored
                return
        place = reuse.find_place(self.output, JOB, source.path, self.key(source))
        if place is None:
            yield None
            return
        with reuse.open_place(self.output, place, self.key(source)) as stored:
            usable = stored is not None and decided(stored, self.settings.thresholds) is not None
            yield stored if usable else None

    def _finish(self, source: Source, parts: Parts) -> None:
        """Makes the part of a source unless what is stored of it is enough."""
        with self._stored(source, parts) as stored:
            if stored is not None:
                return
        with self.failures.working_on(source.path), parts.writer(self.key(source)) as writer:
            died = self.failures.given_up(source.path)
            if died is not None:
                result = SourceResult(rejects=[failed_row(source.path, died)])
            else:
                result = curate_source(source.path, self.settings, writer.write, source.duplicate_of)
            whole = [row for row in result.rejects if row["clip_id"] is None]
            if result.clips != writer.count or len(whole) != (0 if result.clips else 1):
                raise RuntimeError(
                    f"curate {source.path}: the books do not close: {result.clips} clips counted, {writer.count} "
                    f"written, {len(whole)} rows for the whole source"
                )
            if whole and whole[0]["kind"] == "failed":
                row = whole[0]
                texts = (row["stage"], row["reason"], row["detail"], row["traceback_hash"], row["traceback"])
                self.failures.note(source.path, Failure(*texts))
            writer.write(rows_record(source.path, result))

    def _drop(self, source: Source, parts: Parts) -> None:
        """Forgets what is stored of a source, because it is damaged: the next run makes it again."""
        storage.remove(parts.path(self.key(source)))
        place = reuse.find_place(self.output, JOB, source.path, self.key(source))
        if place is not None:
            reuse.drop_place(self.output, place)

    def _publish(self, task: ShardTask, sources: Sequence[Source], parts: Parts) -> StepResult:
        """Writes the shard's files from what is stored, source by source."""
        rows: dict[str, list[dict]] = {name: [] for name in TABLES}
        books, items = Books(JOB, "sources", items=len(sources)), []
        name = shard_name(STEP, task.index, task.count)
        with shard_writer(storage.join(self.output, name)) as writer:
            for source in sources:
                with self._stored(source, parts) as stored:
                    if stored is None:
                        raise OSError(f"curate {source.path}: what was stored of it is gone or damaged; run again")
                    view, kept = decided(stored, self.settings.thresholds)
                    before = writer.count
                    try:
                        for record in stored.clips:
                            if record["clip_id"] in kept:
                                writer.write(record)
                    except Exception:
                        self._drop(source, parts)
                        raise
                    if writer.count - before != len(kept):
                        raise RuntimeError(
                            f"curate {source.path}: {len(kept)} clips kept, {writer.count - before} stored"
                        )
                for table, more in (("rejects", view.rejects), ("quality", view.quality), ("sources", [view.facts])):
                    rows[table] += more
                enter(books, view)
                items.append(
                    {
                        "source": source.path,
                        "key": safe_name(self.key(source)),
                        "clips": len(kept),
                        "failed": view.failed,
                    }
                )
        books.close(len(sources))
        clips = ShardInfo(name, writer.count, writer.size, writer.sha256)
        tables = [write_table(self.output, table_name(t, task), rows[t], table_schema(t)) for t in TABLES]
        whole = [row for row in rows["rejects"] if row["clip_id"] is None]
        summary = {
            "sources": books.items,
            "sources_with_clips": books.kept,
            "clips": clips.count,
            "filtered": books.filtered.total(),
            "failed": books.failed.total(),
            "segments_rejected": len(rows["rejects"]) - len(whole),
            "video_seconds": sum(row["seconds"] or 0.0 for row in rows["sources"]),
            "clip_seconds": sum(row["kept_seconds"] for row in rows["sources"]),
            "reasons": dict(Counter(f"{row['kind']}: {row['reason']}" for row in whole)),
            "books": books.as_dict(),
            "items": items,
        }
        return StepResult((clips, *tables), summary)


def enter(books: Books, stored: Stored) -> None:
    """Enters one source into the books."""
    if stored.facts["clips"]:
        books.keep()
    for row in stored.rejects:
        if row["clip_id"] is not None:
            continue
        if row["kind"] == "failed":
            books.fail(row["stage"], row["reason"], row["traceback_hash"])
        else:
            books.filter(row["reason"])


# --- The job ---


def curate(config: CurateConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Run again, it does only what is not done.

    Raises:
        InputError: a wrong setting, or inputs that name no files.
        TooManyFailures: see RunnerOptions.max_failures.
        BooksError: sources were lost or counted twice.
    """
    start = time.monotonic()
    runner = runner or RunnerOptions()
    check_backend(config.landmarks, config.landmark_weights)
    step, sources, producer = prepare(config, runner)
    print(f"curate: {len(sources)} sources, landmarks by {config.landmarks}", flush=True)
    tasks = shard_tasks(sources, step.function.sources_per_shard)
    failures = step.function.failures
    markers = run_shards(JOB, config.output, [step], tasks, runner, failures)[STEP]
    storage.remove_tree(state_path(config.output, JOB, "kept"))
    files = marker_files(markers)
    _remove_others(config.output, {info.path for info in files})

    summaries = [marker["summary"] for marker in markers]
    books = sum_books(JOB, "sources", [summary["books"] for summary in summaries], len(sources))
    numbers = ("sources", "sources_with_clips", "clips", "filtered", "failed", "segments_rejected")
    total = {name: sum(summary[name] for summary in summaries) for name in numbers}
    reasons = dict(sorted(sum((Counter(summary["reasons"]) for summary in summaries), Counter()).items()))
    for line in books.lines():
        print(line, flush=True)
    if failures.limit is not None and books.failed.total() > failures.limit:
        raise TooManyFailures(
            f"curate: {books.failed.total()} sources failed, and --max-failures allows {failures.limit}"
        )
    clips = [info for info in files if info.path.startswith("clips/")]
    update_manifest(
        config.output,
        {"clips": (clips, producer)},
        curation={**total, "reasons": reasons},
        books=books_for_manifest(config.output, books),
        **_without_stale_duplicates(config.output, clips),
    )
    return {
        **total,
        "seconds": round(time.monotonic() - start, 2),
        "video_seconds": round(sum(summary["video_seconds"] for summary in summaries), 2),
        "clip_seconds": round(sum(summary["clip_seconds"] for summary in summaries), 2),
        "backend": config.landmarks,
        "reasons": reasons,
    }


def prepare(config: CurateConfig, runner: RunnerOptions) -> tuple[Step, list[Source], dict]:
    """Looks at the sources, writes their table, sets aside what an earlier layout can give, and returns the step, the
    sources in the order of the shards, and the manifest's producer.
    """
    if config.sources_per_shard is not None and config.sources_per_shard < 1:
        raise InputError(f"--sources-per-shard {config.sources_per_shard}: expected at least 1")
    known = read_sources(config.output, JOB)
    sources = describe_sources(find_sources(config.inputs), known)
    if sources != known:
        write_sources(config.output, JOB, sources)
    shaping = {name: getattr(config.thresholds, name) for name in SHAPING}
    made = provenance.made_by(
        [STEP],
        clips_producer(
            config.landmarks, config.landmark_weights, config.syncnet_weights, VERSION, shaping, config.limits
        ),
    )
    settings = Settings(
        config.landmarks,
        config.landmark_weights,
        config.syncnet_weights,
        config.thresholds,
        config.limits,
        provenance.to_text(made),
    )
    per_shard = config.sources_per_shard or shard_size(len(sources))
    measured_by = fingerprint(made)
    order = hashlib.sha256("\n\n".join(source.identity() for source in sources).encode()).hexdigest()
    mark = fingerprint(measured_by, config.thresholds, order, per_shard)
    limit = failure_limit(runner.max_failures, len(sources))
    local = runner.runner in ("in-process", "multi-process")
    failures = Failures(config.output, JOB, mark, limit, local)
    work = CurateShard(config.output, settings, measured_by, per_shard, failures)
    if not runner.dry_run:
        _set_aside(config.output, work, sources, mark, runner.retry_failed)
    producer = {
        "job": JOB,
        **made[STEP],
        "made_by": made,
        "detector": "dlib-hog",
        "thresholds": asdict(config.thresholds),
    }
    return (
        Step(STEP, work, mark, Hints(**SYNCNET_HINTS) if config.syncnet_weights else Hints(min_ram="4GB")),
        sources,
        producer,
    )


def _set_aside(root: str, work: CurateShard, sources: Sequence[Source], mark: str, retry: bool) -> None:
    """If the shards are to be made of other sources or by other settings than before, keeps what can be used again.

    ``_state/curate/plan.json`` holds the fingerprint of the step that the shards here are of.
    """
    path = state_path(root, JOB, "plan.json")
    same = storage.exists(path) and json.loads(storage.read_bytes(path)) == {"fingerprint": mark}
    if same and not retry:
        return
    wanted = {source.path: work.key(source) for source in sources}
    reuse.set_aside(root, JOB, STEP, wanted, only_failed=same, retry=retry)
    write_json(path, {"fingerprint": mark})


def shard_tasks(sources: Sequence[Source], per_shard: int) -> list[ShardTask]:
    groups = [sources[i : i + per_shard] for i in range(0, len(sources), per_shard)]
    costs = [float(sum(max(0, s.size) for s in group if s.duplicate_of is None)) for group in groups]
    return [ShardTask(index, len(groups), None, cost) for index, cost in enumerate(costs)]


def _remove_others(root: str, current: set[str]) -> None:
    """Removes shards of an earlier run with other sources: readers of rejects/*.parquet must not count them."""
    for column in (STEP, *TABLES):
        for name in storage.list_names(storage.join(root, column)):
            if f"{column}/{name}" not in current:
                storage.remove(storage.join(root, column, name))


def _without_stale_duplicates(root: str, clips: list[ShardInfo]) -> dict:
    """Removes the table of duplicates unless it is of these clips; returns the change of the manifest's facts.

    Who reads duplicates/*.parquet without a look into the manifest must not take away clips by what others were.
    """
    if storage.exists(storage.join(root, MANIFEST)):
        manifest = Dataset(root).manifest()
        column = {"shards": [asdict(info) for info in clips]}
        if duplicate_infos({**manifest, "columns": {"clips": column}}) is not None:
            return {}
    if storage.list_names(storage.join(root, DUPLICATES)):
        storage.remove_tree(storage.join(root, DUPLICATES))
        print("curate: the table of duplicates was of other clips and is removed; run `archon duplicates`", flush=True)
    return {DUPLICATES: None}


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turns videos into a dataset of talking-head clips of 2 to 10 seconds: 256x256, 30 fps, 16 kHz."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon curate --input 'videos/*.mp4' --output dataset
  archon curate --input list.txt --output gs://bucket/dataset --runner dataflow --beam-arg=--project=P
  archon curate --input videos --output dataset --landmarks mediapipe --landmark-weights face_landmarker.task
  archon curate --input videos --output dataset --syncnet-weights syncnet_v2.model --threshold min_sync_confidence=3
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
    parser.add_argument(
        "--syncnet-weights",
        metavar="FILE",
        help="SyncNet's syncnet_v2.model, a file or gs:// URI: scores lip-sync confidence and offset (the published "
        "limits: --threshold min_sync_confidence=3 --threshold max_sync_offset=6)",
    )
    parser.add_argument(
        "--sources-per-shard", type=int, metavar="N", help="default: 1 to 4, by how many sources there are"
    )
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
            syncnet_weights=args.syncnet_weights,
            sources_per_shard=args.sources_per_shard,
            thresholds=thresholds_with(args.threshold),
            limits=limits_with(args.limit),
        ),
        runner_options(args),
    )
