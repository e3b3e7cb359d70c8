"""Where the hours go: what enters, what each filter takes in the order of the pipeline, what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.reporting.decisions import Rule, marginal_hours
from pipelines.reporting.tables import Tables, flags, hours, numbers, texts

if TYPE_CHECKING:
    import pyarrow as pa

# The stages in the order in which a source passes them; a stage that is not named here comes before the filters.
STAGES = ("input", "probe", "duplicates", "audio", "faces", "segments", "crop", "landmarks")
BETWEEN = "between_segments"


@dataclass(frozen=True)
class Loss:
    """What one reason took.

    ``whole``: whole sources, else segments. ``alone``: hours that only this filter took, all others being met; None
    where nothing was measured that could tell.
    """

    whole: bool
    stage: str
    kind: str
    reason: str
    count: int
    hours: float
    alone: float | None


@dataclass(frozen=True)
class Funnel:
    """``hours_in`` is None where the dataset has no table of sources; the losses then begin at the segments."""

    hours_in: float | None
    losses: list[Loss]
    hours_kept: float

    def closes(self) -> bool:
        """Whether what came in is what was lost plus what was kept, to a second in an hour."""
        if self.hours_in is None:
            return True
        lost = sum(loss.hours for loss in self.losses)
        return abs(self.hours_in - lost - self.hours_kept) <= self.hours_in / 3600 + 1e-9


def build_funnel(tables: Tables, limits: Sequence[Rule]) -> Funnel:
    """Follows the hours from the sources to the kept clips."""
    segments = tables.segments
    length, kept = hours(segments), flags(segments, "kept")
    losses: list[Loss] = []
    hours_in = None
    if tables.sources is not None:
        seconds = _source_seconds(tables)
        hours_in = float(seconds.sum() / 3600)
        losses += _source_losses(tables, seconds)
    losses += _segment_losses(segments, length, kept, limits)
    return Funnel(hours_in, losses, float(length[kept].sum()))


def _source_seconds(tables: Tables) -> np.ndarray:
    """float64 (sources,): how long each is; at least as long as its segments, where the file says less or nothing."""
    import pyarrow.compute as pc

    seconds = np.nan_to_num(numbers(tables.sources, "seconds"))
    row = pc.index_in(tables.segments["source"], value_set=tables.sources["source"])
    known = pc.is_valid(row).to_numpy(zero_copy_only=False)
    place = row.fill_null(0).to_numpy(zero_copy_only=False)[known]
    inside = np.bincount(place, weights=hours(tables.segments)[known] * 3600, minlength=len(seconds))
    return np.maximum(seconds, inside)


def _source_losses(tables: Tables, seconds: np.ndarray) -> list[Loss]:
    import pyarrow.compute as pc

    sources = tables.sources
    cut = pc.is_in(sources["source"], value_set=tables.segments["source"]).to_numpy(zero_copy_only=False)
    losses = _grouped(
        whole=True,
        keys=[texts(sources, "stage"), texts(sources, "status"), texts(sources, "reason")],
        which=~cut & (texts(sources, "status") != "kept"),
        length=seconds / 3600,
    )
    inside = float(hours(tables.segments).sum())
    between = float(seconds[cut].sum() / 3600) - inside
    losses.append(Loss(False, "segments", "filtered", BETWEEN, int(cut.sum()), between, None))
    return losses


def _segment_losses(segments: "pa.Table", length, kept, limits: Sequence[Rule]) -> list[Loss]:
    losses = _grouped(
        whole=False,
        keys=[texts(segments, "stage"), texts(segments, "kind"), texts(segments, "reason")],
        which=~kept,
        length=length,
    )
    alone = marginal_hours(segments, limits)
    order = {reason: index for index, reason in enumerate(alone)}
    losses = [
        Loss(
            x.whole, x.stage, x.kind, x.reason, x.count, x.hours, alone.get(x.reason) if x.stage == "filters" else None
        )
        for x in losses
    ]
    return sorted(losses, key=lambda x: (_stage_order(x.stage), order.get(x.reason, len(order)), -x.hours))


def _grouped(whole: bool, keys: Sequence[np.ndarray], which: np.ndarray, length: np.ndarray) -> list[Loss]:
    if not which.any():
        return []
    names = [key[which].astype(str) for key in keys]
    groups, where = np.unique(np.stack(names), axis=1, return_inverse=True)
    sums = np.bincount(where.ravel(), weights=length[which])
    counts = np.bincount(where.ravel())
    losses = [
        Loss(whole, stage, kind, reason, int(n), float(total), None)
        for (stage, kind, reason), n, total in zip(groups.T.tolist(), counts, sums, strict=True)
    ]
    return sorted(losses, key=lambda x: (_stage_order(x.stage), -x.hours, x.reason))


def _stage_order(stage: str) -> float:
    if stage == "filters":
        return len(STAGES) + 1
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


@dataclass(frozen=True)
class Failure:
    """Failures of one kind: a stage, a type and the traceback's hash, with an example."""

    stage: str
    type: str
    traceback_hash: str
    count: int
    example: str
    detail: str
    traceback: str


def failures(tables: Tables, annotation_errors: dict[str, list[str]]) -> list[Failure]:
    """Groups what failed, sources, segments and annotations, by stage, type and traceback.

    Args:
        annotation_errors: column -> "clip: stage: Type: message" of its rows; read where there is no table of failures.
    """
    import pyarrow.compute as pc

    groups: dict[tuple[str, str, str], list] = {}

    def add(rows: "pa.Table", names: Sequence[str], job: str = "") -> None:
        for stage, kind, digest, example, detail, trace in zip(*(texts(rows, name) for name in names), strict=True):
            groups.setdefault((f"{job}{stage}", kind, digest), [0, example, detail, trace])[0] += 1

    failed = tables.rejects.filter(pc.equal(tables.rejects["kind"].cast("string"), "failed"))
    add(failed, ("stage", "reason", "traceback_hash", "source", "detail", "traceback"))
    if tables.failures is not None:
        for column in sorted(set(texts(tables.failures, "column"))):
            rows = tables.failures.filter(pc.equal(tables.failures["column"], column))
            names = ("stage", "type", "traceback_hash", "clip_id", "message", "traceback")
            add(rows, names, f"{column}: ")
    else:
        for column, rows in annotation_errors.items():
            for text in rows:
                clip, _, error = text.partition(": ")
                stage, _, rest = error.partition(": ")
                kind, _, detail = rest.partition(": ")
                groups.setdefault((f"{column}: {stage}", kind or stage, ""), [0, clip, detail, ""])[0] += 1
    rows = [Failure(*key, *group) for key, group in groups.items()]
    return sorted(rows, key=lambda row: (-row.count, row.stage, row.type))


@dataclass(frozen=True)
class Rate:
    """How fast one step of a job was. ``frames`` and ``video_seconds`` are None where the step does not count them."""

    job: str
    step: str
    shards: int
    seconds: float
    frames: float | None
    video_seconds: float | None


def rates(markers: Sequence[dict]) -> list[Rate]:
    """Sums the markers of each step: seconds of work over all workers, frames and seconds of video done in them."""
    steps: dict[tuple[str, str], list] = {}
    for marker in markers:
        row = steps.setdefault((marker["job"], marker["step"]), [0, 0.0, None, None])
        row[0] += 1
        row[1] += marker["seconds"]
        for place, name in ((2, "frames"), (3, "video_seconds")):
            value = marker["summary"].get(name)
            if value is not None:
                row[place] = (row[place] or 0) + value
    return [Rate(job, step, *row) for (job, step), row in steps.items()]
