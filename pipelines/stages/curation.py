"""One source video from its file to its clips: the stages in order, and a typed reason for everything that is dropped.

Two passes over the pictures. The first is small (short side 480 pixels), looks for cuts and faces and keeps only
boxes, so a long video costs no memory. The second cuts and scales inside ffmpeg, per clip; landmarks and figures are
measured on the clip as it is stored. Sound comes first of all: a source without speech is never decoded.
"""

import bisect
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from models.errors import InputError
from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines import storage
from pipelines.dataset import row_fields
from pipelines.failures import Failure, describe_failure
from pipelines.stages import (
    compression_scores,
    crop,
    faces,
    filters,
    fingerprints,
    head_scores,
    landmarks,
    picture_scores,
    segments,
    shots,
    sound_scores,
    syncnet,
    video,
    voice_activity,
)
from pipelines.stages.filters import FilterThresholds
from pipelines.stages.limits import DecodeError, Limits, check_size

NEIGHBOURHOOD = 30 * VIDEO_FPS  # how far around a clip, in its shot, a second face counts
GLIMPSES = 16
IDLE_STRIDE = VIDEO_FPS  # how often a stretch without any face is searched


@dataclass(frozen=True)
class Settings:
    """What a source's clips depend on."""

    landmarks: str = "dlib"
    landmark_weights: str | None = None
    syncnet_weights: str | None = None
    thresholds: FilterThresholds = field(default_factory=FilterThresholds)
    limits: Limits = field(default_factory=Limits)
    made_by: str = "{}"  # what every clip record says of its making (pipelines/provenance.py)


@dataclass
class SourceResult:
    """How many clips a source gave, and its reject and quality rows (dicts; see pipelines/curate_tables.py).

    ``facts`` is what is known of the source as a whole, as far as its road went: source_sha256, bytes, codec, width,
    height, fps, rotation, seconds, speech_seconds, face_share (of the searched frames, those with a face), shots.
    """

    clips: int = 0
    rejects: list[dict] = field(default_factory=list)
    quality: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict = field(default_factory=dict)


class Filtered(Exception):
    """A source or clip that works but is not wanted. ``reason`` is a short fixed word."""

    def __init__(self, stage: str, reason: str, detail: str):
        super().__init__(detail)
        self.stage, self.reason, self.detail = stage, reason, detail


class NotStored(Exception):
    """A kept clip could not be stored (a full disk): no fault of the source. The cause is chained."""


class StageFailed(Exception):
    """An error in a stage, with the stage's name; the cause is chained."""

    def __init__(self, stage: str, cause: Exception):
        super().__init__(f"{stage}: {cause}")
        self.stage, self.cause = stage, cause


@contextmanager
def _stage(name: str) -> Iterator[None]:
    try:
        yield
    except (Filtered, StageFailed, NotStored, InputError):
        raise
    except Exception as error:
        raise StageFailed(name, error) from error


def clip_id(source_sha256: str, start: int, end: int) -> str:
    """20 hex digits: a hash of the source's content and the clip's frames."""
    return hashlib.sha256(f"{source_sha256}:{start}:{end}".encode()).hexdigest()[:20]


def reject_row(
    source: str,
    stage: str,
    kind: str,
    reason: str,
    detail: str,
    span=None,
    clip: str | None = None,
    failure: Failure | None = None,
) -> dict:
    """``span`` None: the whole source. ``failure``: for the kind "failed"."""
    start, end = span if span else (None, None)
    return dict(
        source=source,
        clip_id=clip,
        start_frame=start,
        end_frame=end,
        stage=stage,
        kind=kind,
        reason=reason,
        detail=detail,
        traceback_hash=failure and failure.traceback_hash,
        traceback=failure and failure.traceback,
    )


def _error_row(source: str, error: Exception, span=None, clip: str | None = None, path: str = "") -> dict:
    """``path``: where the source was read, which may be a temporary name that must not get into a row."""
    if isinstance(error, Filtered):
        return reject_row(source, error.stage, "filtered", error.reason, error.detail, span, clip)
    cause, stage = (error.cause, error.stage) if isinstance(error, StageFailed) else (error, "source")
    failure = describe_failure(stage, cause, {path: source} if path else {})
    return failed_row(source, failure, span, clip)


def failed_row(source: str, failure: Failure, span=None, clip: str | None = None) -> dict:
    return reject_row(source, failure.stage, "failed", failure.type, failure.message, span, clip, failure)


def curate_source(
    source: str, settings: Settings, keep: Callable[[dict], None], duplicate_of: str | None = None
) -> SourceResult:
    """Makes the clips of one source (a local path or gs:// URI). Never raises for what is wrong with the source.

    ``keep`` is called with each kept clip's record as it is made, so that no more than one is in memory. A source
    without clips has exactly one reject row for the whole source.

    Raises:
        InputError: a wrong setting.
        NotStored: ``keep`` raised; the source is not at fault and its result not known.
    """
    result, path = SourceResult(), ""
    try:
        if duplicate_of is not None:
            raise Filtered("input", "duplicate", f"the same bytes as {duplicate_of}")
        if storage.is_remote(source):
            with _stage("probe"):
                check_size(storage.size(source), settings.limits)
        with _stage("probe"), storage.local_copy(source) as path:
            _curate_local(source, path, settings, keep, result)
    except (Filtered, StageFailed) as error:
        result.rejects.append(_error_row(source, error, path=path))
        return result
    if not result.clips:
        result.rejects.append(whole_source_row(source, result.rejects))
    return result


def whole_source_row(source: str, rows: list[dict]) -> dict:
    """The row of a source whose every segment was rejected (``rows``): the reason that cost the most frames."""
    frames: Counter = Counter()
    for row in rows:
        frames[row["stage"], row["kind"], row["reason"]] += row["end_frame"] - row["start_frame"]
    (stage, kind, reason), most = frames.most_common(1)[0]
    share = f"{most / VIDEO_FPS:.1f} s of {frames.total() / VIDEO_FPS:.1f} s"
    detail = f"none of {len(rows)} segments is kept; {share} for this reason"
    cause = next(row for row in rows if (row["stage"], row["kind"], row["reason"]) == (stage, kind, reason))
    return {**cause, "clip_id": None, "start_frame": None, "end_frame": None, "detail": detail}


def _curate_local(source: str, path: str, settings: Settings, keep, result: SourceResult) -> None:
    limits = settings.thresholds
    with _stage("probe"):
        digest = storage.sha256_file(path)
        result.facts.update(source_sha256=digest, bytes=os.path.getsize(path))
        info = video.probe(path, settings.limits)
    result.seconds = info.seconds
    result.facts.update(codec=info.codec, width=info.width, height=info.height, fps=info.fps, rotation=info.rotation)
    result.facts["seconds"] = info.seconds
    with _stage("audio"):
        if not info.has_audio:
            raise Filtered("audio", "no_audio", "the file has no audio stream")
        audio = video.decode_audio(info)
        speech = voice_activity.speech_intervals(voice_activity.speech_probability(audio))
    spoken = sum(end - begin for begin, end in speech) / AUDIO_RATE
    result.facts["speech_seconds"] = spoken
    if spoken < limits.min_source_speech_seconds:
        raise Filtered("audio", "no_speech", f"{spoken:.2f} s of speech in {len(audio) / AUDIO_RATE:.2f} s of sound")
    with _stage("faces"):
        scan = scan_faces(info, settings)
    result.seconds = scan.frames / VIDEO_FPS
    result.facts.update(seconds=result.seconds, face_share=scan.face_share, shots=len(scan.shots))
    followed = follow_faces(scan, limits)
    if not followed:
        raise _no_face(scan)
    spans = segments.speech_spans(speech, scan.frames)
    pieces = []
    for face in followed:
        for span in segments.intersect([face.span], spans):
            pieces += [(face, piece) for piece in segments.split_span(span, audio, limits.max_seconds)]
    if not pieces:
        raise Filtered("segments", "no_speech", "no speech while a face is followed")
    for face, piece in pieces:
        span = segments.on_grid(piece)
        identity = clip_id(digest, *span)
        try:
            with _stage("crop"):
                _make_clip(source, digest, info, face, span, audio, speech, settings, keep, result)
        except (Filtered, StageFailed) as error:
            result.rejects.append(_error_row(source, error, span, identity, path))


# --- First pass: where are which faces ---


@dataclass
class Scan:
    """What the first pass found. Boxes and landmarks are in source pixels."""

    frames: int
    shots: list[tuple[int, int]]
    samples: dict[int, list[faces.Face]]
    glimpses: dict[int, np.ndarray]  # a few of the searched pictures from all over the source
    changes: np.ndarray  # float32 (frames,): ShotDetector.changes

    @property
    def face_share(self) -> float:
        """Share of the searched frames that hold a clear face."""
        clear = [any(face.score >= faces.START_SCORE for face in found) for found in self.samples.values()]
        return sum(clear) / max(1, len(clear))


@dataclass(frozen=True)
class Followed:
    """A stretch of a shot in which one face is followed."""

    span: tuple[int, int]
    track: faces.Track
    searched: list[int]  # frames of the shot in which faces were looked for
    others: dict[int, int]  # searched frame -> number of other faces that matter
    glimpses: dict[int, np.ndarray]
    changes: np.ndarray  # of the whole source


def scan_faces(info: video.VideoInfo, settings: Settings) -> Scan:
    """Runs over the whole source once; finds cuts, and faces on every STRIDE-th frame.

    After two seconds without any face it looks once a second until there is one again.
    """
    width, height = video.scaled_size(info, faces.SHORT_SIDE)
    scale = np.array([info.width / width, info.height / height])
    detector, samples, glimpses, keep_every, count = shots.ShotDetector(), {}, {}, VIDEO_FPS // 2, 0
    last_face = 0
    for index, frame in enumerate(video.decode_frames(info, width, height)):
        count = index + 1
        detector.add(frame)
        if index % keep_every == 0:
            glimpses[index] = frame
            if len(glimpses) > GLIMPSES:
                keep_every *= 2
                glimpses = {at: kept for at, kept in glimpses.items() if at % keep_every == 0}
        if index % (IDLE_STRIDE if index - last_face > 2 * VIDEO_FPS else faces.STRIDE):
            continue
        found = faces.detect_faces(frame)
        if found:
            boxes = np.stack([face.box for face in found])
            points = landmarks.find_landmarks(
                [frame] * len(found), boxes, settings.landmarks, settings.landmark_weights
            )
            found = [
                faces.Face(face.box * np.tile(scale, 2), face.score, (point + 0.5) * scale - 0.5)
                for face, point in zip(found, points, strict=True)
            ]
        if any(face.score >= faces.START_SCORE for face in found):
            last_face = index
        samples[index] = found
    return Scan(count, detector.shots(), samples, glimpses, detector.changes())


def follow_faces(scan: Scan, limits: FilterThresholds) -> list[Followed]:
    """Returns, shot by shot, the stretches in which the shot's main face is followed for at least half a second."""
    out = []
    searched = sorted(scan.samples)
    for start, end in scan.shots:
        within = searched[bisect.bisect_left(searched, start) : bisect.bisect_left(searched, end)]
        inside = {index: scan.samples[index] for index in within}
        glimpses = {index: frame for index, frame in scan.glimpses.items() if start <= index < end}
        tracks = faces.build_tracks(inside)
        main = faces.main_track(tracks)
        if main is None or len(main.faces) < 3:
            continue
        same = [t for t in tracks if t is main or _continues(main, t)]
        others = faces.other_faces(main, [main, *(t for t in tracks if t not in same)], limits.second_face_size)
        for track in same:
            for first, last in faces.track_spans(track):
                span = (start if first - start < faces.STRIDE else first, min(last, end))
                if span[1] - span[0] >= VIDEO_FPS // 2:
                    out.append(Followed(span, track, within, others, glimpses, scan.changes))
    return sorted(out, key=lambda item: item.span)


def _continues(main: faces.Track, track: faces.Track) -> bool:
    """Whether a track is the main face again after it was lost: not at the same time, of similar size."""
    apart = not set(main.faces) & set(track.faces)
    overlapping = min(main.faces) < track.last and min(track.faces) < main.last
    return (
        track is not main
        and apart
        and not overlapping
        and 0.67 < track.size / main.size < 1.5
        and len(track.faces) >= 3
    )


def _no_face(scan: Scan) -> Filtered:
    seen = sum(any(face.score >= faces.START_SCORE for face in found) for found in scan.samples.values())
    detail = f"a frontal face in {seen} of {len(scan.samples)} searched frames"
    glimpses = list(scan.glimpses.values())
    picks = [glimpses[i] for i in sorted({0, len(glimpses) // 2, len(glimpses) - 1})]
    if faces.find_any_face([_shrunk(frame) for frame in picks]):
        return Filtered("faces", "no_frontal_face", f"{detail}, but a face from another side")
    return Filtered("faces", "no_face", detail)


def _shrunk(frame: np.ndarray) -> np.ndarray:
    import cv2

    scale = min(1.0, faces.ANY_FACE_SIDE / min(frame.shape[:2]))
    size = [max(1, round(length * scale)) for length in frame.shape[1::-1]]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


# --- Second pass: one clip ---


def _make_clip(
    source, digest, info, face: Followed, span, audio, speech, settings: Settings, keep, result: SourceResult
) -> None:
    """Keeps the clip of a span and appends its quality row; that in any case, with what was measured until an error."""
    scores: dict[str, float] = {}
    labels: dict[str, str] = {}
    identity, kept = clip_id(digest, *span), False
    try:
        record = _clip_record(info, face, span, audio, speech, settings, scores, labels)
        fields = dict(clip_id=identity, source_sha256=digest, start_frame=span[0], end_frame=span[1])
        clip = {
            **row_fields({**fields, "box": record.pop("box")}, settings.made_by),
            "source": source,
            **record,
            "scores": json.dumps(_rounded(scores), sort_keys=True),
        }
        try:
            keep(clip)
        except Exception as error:
            raise NotStored(f"{source}: clip {identity} could not be stored: {error}") from error
        result.clips, kept = result.clips + 1, True
    finally:
        result.quality.append(quality_row(source, identity, span, scores, labels, kept))


def quality_row(source: str, clip: str, span, scores: filters.Scores, labels: Mapping[str, str], kept: bool) -> dict:
    """A row of the quality table: every score of SCORES and text of LABELS, None where it was not measured."""
    scores = _rounded(scores)
    return dict(
        source=source,
        clip_id=clip,
        start_frame=span[0],
        end_frame=span[1],
        **scores,
        **{name: labels.get(name) for name in filters.LABELS},
        flags=",".join(filters.flags(scores)),
        kept=kept,
    )


def _rounded(scores: filters.Scores) -> dict[str, float | None]:
    values = {name: filters.measured(scores, name) for name in filters.SCORES}
    return {name: None if value is None else filters.stored_score(value) for name, value in values.items()}


def _clip_record(
    info, face: Followed, span, audio, speech, settings: Settings, scores: dict[str, float], labels: dict[str, str]
) -> dict:
    """Returns the fields of the clip's record that depend on its frames; fills ``scores`` and ``labels`` on the way.

    Raises:
        Filtered: the clip misses a limit, or cannot be made.
    """
    limits = settings.thresholds
    start, end = span
    count = end - start
    near = [f for i, f in sorted(face.track.faces.items()) if start - faces.STRIDE < i < end + faces.STRIDE]
    points = [f.landmarks for f in near if f.landmarks is not None and not np.isnan(f.landmarks).any()]
    with _stage("filters"):
        scores.update(_scan_scores(face, span, points))
        sound, begin = video.cut_audio(audio, start, count), round(start * AUDIO_RATE / VIDEO_FPS)
        spoken = voice_activity.speech_mask(speech, begin, begin + len(sound))
        scores.update(sound_scores.sound_scores(sound, spoken))
    if limits.min_seconds is not None and scores["seconds"] < limits.min_seconds:
        raise Filtered("segments", "too_short", f"{scores['seconds']:.2f} s is below {limits.min_seconds:g} s")
    with _stage("crop"):
        if not points:
            raise Filtered("landmarks", "no_landmarks", f"the {settings.landmarks} backend finds no landmarks")
        roomy, tight = crop.head_boxes(np.stack(points), faces.STRIDE)
        box = crop.square_around(roomy, tight, info.width, info.height)
        scores["pad"] = crop.pad_share(box, info.width, info.height)
        scores.update(head_scores.box_scores(tight, box, info.width, info.height))
        encoded = video.write_crop(info, start, count, box, sound)
        frames = video.decode_clip(encoded)
        if len(frames) != count:
            raise DecodeError(f"the crop has {len(frames)} frames, expected {count}")
    with _stage("landmarks"):
        boxes = crop.boxes_to_crop(faces.boxes_between(face.track, start, end), box)
        raw = landmarks.find_landmarks(list(frames), boxes, settings.landmarks, settings.landmark_weights)
        marks = landmarks.fill_and_smooth(raw)
        if marks is None:
            missing = int(np.isnan(raw).any(axis=(1, 2)).sum())
            raise Filtered("landmarks", "landmarks_lost", f"no landmarks in {missing} of {count} frames")
    with _stage("filters"):
        in_source = crop.from_crop(marks.astype(float), box)
        scores.update(head_scores.angle_scores(in_source))
        scores.update(head_scores.movement_scores(in_source))
        scores["landmarks_inside"] = head_scores.landmarks_inside(in_source, info.width, info.height)
        scores.update(picture_scores.picture_scores(frames, marks, info.fps))
        scores.update(compression_scores.compression_scores(info, start, end))
        scores.update(sound_scores.sync_scores(marks, sound))
        if settings.syncnet_weights:
            scores.update(syncnet.sync_scores(frames, marks, sound, settings.syncnet_weights))
        labels.update(fingerprints.fingerprints(frames, sound))
        missed = filters.decide(_rounded(scores), limits)
    if missed:
        raise Filtered("filters", missed[0][0], "; ".join(detail for _, detail in missed))
    return {
        "box": box,
        "num_frames": count,
        "source_size": np.array([info.width, info.height], np.int32),
        "video": encoded,
        "audio": sound.astype(np.int16),
        "landmarks": marks,
        "landmark_backend": settings.landmarks,
    }


def _scan_scores(face: Followed, span, points: Sequence[np.ndarray]) -> dict[str, float]:
    """What the first pass alone says of a span; ``points`` are the face's landmarks there, source pixels.

    Angles and size are those of the searched frames; where the clip is cut, those of every frame take their place.
    """
    start, end = span
    searched = [i for i in face.searched if start <= i < end]
    around = [i for i in face.searched if start - NEIGHBOURHOOD <= i < end + NEIGHBOURHOOD]
    glimpses = [frame for i, frame in sorted(face.glimpses.items()) if start - 60 <= i < end + 60]
    scores = {
        "seconds": (end - start) / VIDEO_FPS,
        "shot_cut": float(face.changes[start + 1 : end].max(initial=0)),
        "single_face": 1 - sum(i in face.others for i in around) / max(1, len(around)),
        "source_text": picture_scores.text_share(glimpses) if glimpses else None,
    }
    if searched:
        counts = [(i in face.track.faces) + face.others.get(i, 0) for i in searched]
        seen = [face.track.faces[i].score if i in face.track.faces else -1.0 for i in searched]
        scores |= {
            "face_count": float(np.mean(counts)),
            "face_count_peak": float(max(counts)),
            "face_present": sum(i in face.track.faces for i in searched) / len(searched),
            "face_score": float(np.median(seen)),
        }
    return scores | (head_scores.angle_scores(np.stack(points)) if points else {})
