"""Pictures for the report: of kept clips from the dataset, of what was rejected from the source videos."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError
from models.signals import VIDEO_FPS
from pipelines import overlay, storage
from pipelines.dataset import Dataset, Record, ShardReader
from pipelines.reporting.tables import Tables, flags, hours, numbers, row_of, texts

if TYPE_CHECKING:
    import pyarrow as pa

PREVIEWS = "report/previews"
THUMBNAIL = 128
REJECT_HEIGHT = 120
MOST_FETCHED = 100_000_000  # bytes of a remote source that one picture is worth
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")

# Score -> whether a low or a high value is the worst.
WORST = {
    "blur": "low",
    "face_size": "low",
    "snr_db": "low",
    "speech": "low",
    "lip_sync": "low",
    "sync_confidence": "low",
    "transcript_confidence": "low",
    "luminance": "low",
    "head_margin": "low",
    "compression_quality": "low",
    "turn_peak": "high",
    "motion": "high",
    "pad": "high",
    "text": "high",
    "source_text": "high",
    "frozen": "high",
    "clipping": "high",
    "reprojection_error": "high",
    "flicker": "high",
}


def preview_name(clip_id: str) -> str:
    """File name of a clip's preview. A clip id that is not one, from a damaged dataset, never becomes a path."""
    plain = clip_id if _PLAIN_NAME.fullmatch(clip_id) else hashlib.sha256(clip_id.encode()).hexdigest()[:20]
    return f"{plain}.mp4"


class ClipFinder:
    """Finds the row of a kept clip in the clips column without reading the column."""

    def __init__(self, dataset: Dataset, segments: "pa.Table"):
        self._infos = dataset.shard_infos("clips")
        self._dataset = dataset
        counts = [info.count for info in self._infos]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        kept, shard = flags(segments, "kept"), numbers(segments, "shard").astype(int)
        self._kept, self._shard = kept, shard
        # Kept rows stand in the order of the shard's clips.
        self._rank = np.zeros(len(kept), int)
        for index in np.unique(shard[kept]):
            here = np.flatnonzero(kept & (shard == index))
            self._rank[here] = np.arange(len(here))

    def row(self, segment: int, clip_id: str) -> int:
        """Row of the clips column that holds a kept segment. InputError if no clip of its shard has the id."""
        shard = int(self._shard[segment])
        if shard < len(self._infos):
            info = self._infos[shard]
            reader = ShardReader(self._dataset.path(info.path), info)
            guess = int(self._rank[segment])
            for index in [*([guess] if guess < len(reader) else []), *range(len(reader))]:
                if reader[index]["clip_id"] == clip_id:
                    return int(self._starts[shard]) + index
        raise InputError(
            f"{self._dataset.root}: the quality table keeps clip {clip_id}, but its shard has no such clip"
        )


# --- Kept clips ---


@dataclass(frozen=True)
class Card:
    """A kept clip on the contact sheet: two moments as crop, landmarks and parsing, and its texts."""

    clip_id: str
    source: str
    seconds: float
    picture: np.ndarray
    script: str
    description: str


def clip_cards(columns: Mapping[str, Sequence[Record]], rows: Sequence[int]) -> list[Card]:
    return [_clip_card(columns, row) for row in rows]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist() if count else []


def _clip_card(columns: Mapping[str, Sequence[Record]], row: int) -> Card:
    from pipelines.stages.frames import decode_video

    clip = columns["clips"][row]
    video = decode_video(clip["video"], clip["clip_id"])
    labels = None
    if "semantics" in columns and not columns["semantics"][row]["error"]:
        labels = columns["semantics"][row]["labels"]
    tiles = []
    for index in (0, len(video) // 2):
        tiles += [video[index], overlay.draw_landmarks(video[index], clip["landmarks"][index])]
        if labels is not None:
            tiles.append(overlay.blend_labels(video[index], labels[index], 0.6))
        elif "semantics" in columns:
            # A clip without parsing leaves its tile empty, so that strips keep one size.
            tiles.append(np.full_like(video[index], 235))

    def text(column: str, field: str) -> str:
        record = columns[column][row] if column in columns else {"error": "none"}
        return "" if record["error"] else record[field]

    small = [overlay.resize(tile, THUMBNAIL) for tile in tiles]
    return Card(
        clip["clip_id"],
        clip["source"],
        clip["num_frames"] / VIDEO_FPS,
        overlay.grid(small, columns=len(small), gap=2),
        text("script", "text"),
        text("description", "description"),
    )


@dataclass(frozen=True)
class WorstClip:
    """One clip of a worst-of list; ``preview`` is its file beside the report."""

    clip_id: str
    source: str
    value: float
    picture: bytes
    preview: str


def worst_clips(
    dataset: Dataset, clips: Sequence[Record], finder: ClipFinder, table: "pa.Table", each: int
) -> dict[str, list[WorstClip]]:
    """Score -> the kept clips that are worst by it, worst first, with their videos written beside the report.

    ``table`` has a row per segment in the finder's order. A score that is the same for all clips gives no list.
    """
    kept = flags(table, "kept")
    made: dict[int, tuple[str, str, bytes, str]] = {}
    out = {}
    for score, side in WORST.items():
        values = numbers(table, score)
        rows = np.flatnonzero(kept & ~np.isnan(values))
        if len(np.unique(values[rows])) < 2:
            continue
        order = np.argsort(values[rows] if side == "low" else -values[rows], kind="stable")
        chosen = []
        for segment in rows[order[:each]].tolist():
            if segment not in made:
                made[segment] = _preview(dataset, clips[finder.row(segment, table["clip_id"][segment].as_py())])
            chosen.append(_worst(made[segment], float(values[segment])))
        out[score] = chosen
    # An earlier report may have shown other clips.
    shown = {preview.rsplit("/", 1)[-1] for _, _, _, preview in made.values()}
    for name in storage.list_names(dataset.path(PREVIEWS)):
        if name not in shown:
            storage.remove(dataset.path(f"{PREVIEWS}/{name}"))
    return out


def _worst(made: tuple[str, str, bytes, str], value: float) -> WorstClip:
    clip_id, source, picture, preview = made
    return WorstClip(clip_id, source, value, picture, preview)


def _preview(dataset: Dataset, clip: Record) -> tuple[str, str, bytes, str]:
    """Writes the clip's video beside the report; returns clip id, source, a small picture and the file's name."""
    name = preview_name(clip["clip_id"])
    path = dataset.path(f"{PREVIEWS}/{name}")
    if not storage.exists(path) or storage.size(path) != len(clip["video"]):
        storage.write_bytes(path, clip["video"])
    picture = overlay.encode_image(overlay.resize(_middle_frame(clip["video"]), THUMBNAIL))
    return clip["clip_id"], clip["source"], picture, f"previews/{name}"


def _middle_frame(video: bytes) -> np.ndarray:
    """uint8 (H, W, 3): the picture half-way."""
    from pipelines.stages.frames import decode_video

    frames = decode_video(video)
    return frames[len(frames) // 2]


# --- What was rejected ---


@dataclass(frozen=True)
class Rejected:
    """One source or segment that was rejected; ``picture`` None: ``note`` says why there is none."""

    source: str
    span: str
    detail: str
    picture: bytes | None
    note: str


class NotFetched(Exception):
    """A remote source that is too large to be fetched for one picture."""


def rejected_samples(tables: Tables, each: int) -> dict[tuple[str, str, str], tuple[int, float, list[Rejected]]]:
    """(stage, kind, reason) -> (rows, hours of segments, up to ``each`` of them with a picture), most rows first.

    Segments, and sources of which no segment was cut. Pictures are read from the source videos: a segment's middle
    frame, a source's at a third of its length.
    """
    import pyarrow.compute as pc

    rejects = tables.rejects
    if len(rejects) == 0:
        return {}
    segments = pc.is_valid(rejects["clip_id"])
    cut = rejects.filter(segments)["source"]
    # A source whose segments were all rejected has a row of its own too; its segments say more.
    rejects = rejects.filter(pc.or_(segments, pc.invert(pc.is_in(rejects["source"], value_set=cut))))
    keys = np.stack([texts(rejects, name).astype(str) for name in ("stage", "kind", "reason")])
    groups, where, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    where = where.ravel()
    length = np.nan_to_num(hours(rejects))
    out = {}
    for group in np.argsort(-counts, kind="stable").tolist():
        rows = np.flatnonzero(where == group)
        picks = rows[spread(len(rows), each)]
        samples = [_rejected(row_of(rejects, row)) for row in picks]
        out[tuple(groups[:, group].tolist())] = (int(counts[group]), float(length[rows].sum()), samples)
    return out


def _rejected(row: Mapping) -> Rejected:
    start, end = row.get("start_frame"), row.get("end_frame")
    whole = start is None or end is None
    span = "whole source" if whole else f"{start / VIDEO_FPS:.1f}-{end / VIDEO_FPS:.1f} s"
    try:
        picture = source_picture(row["source"], None if whole else (start + end) // 2)
        return Rejected(row["source"], span, row["detail"] or "", overlay.encode_image(picture), "")
    except Exception as error:  # whatever is wrong with a rejected source, the report is made
        gone = "the source is not there" if isinstance(error, FileNotFoundError) else type(error).__name__
        note = str(error) if isinstance(error, NotFetched) else gone
        return Rejected(row["source"], span, row["detail"] or "", None, note)


def source_picture(source: str, frame: int | None) -> np.ndarray:
    """uint8 (H, W, 3), small: a source's picture at a frame of the 30 fps clock; None: a third into the video."""
    from pipelines.stages import video

    if storage.is_remote(source) and storage.size(source) > MOST_FETCHED:
        raise NotFetched(f"{storage.size(source) / 1e6:,.0f} MB on remote storage: not fetched")
    with storage.local_copy(source) as path:
        info = video.probe(path)
        if frame is None:
            frame = int(info.seconds * VIDEO_FPS / 3)
        return video.decode_picture(info, frame, *video.scaled_size(info, REJECT_HEIGHT))
