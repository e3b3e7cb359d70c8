"""Faces: found on every sixth frame, joined to tracks, and one of them followed through a shot.

The detector is dlib's frontal HOG detector, which needs no weights file and finds frontal to three-quarter faces of at
least 80 pixels. Its scores are used with hysteresis: a face starts a track only with a clear score, and a track goes on
through weak ones. `find_any_face` is dlib's convolutional detector, which also sees profiles; it is forty times slower
and only says why a video without a frontal face was rejected.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.loading import load_once, load_per_thread

BACKEND = "dlib-hog"
STRIDE = 6  # frames between two detections: 5 a second
SHORT_SIDE = 480
ANY_FACE_SIDE = 320  # of the pictures that `find_any_face` is given
START_SCORE, KEEP_SCORE = 0.2, -0.4
MAX_MISSED = 3  # detections in a row that a track may miss, 0.8 s between those around them
MIN_OVERLAP = 0.25


@dataclass(frozen=True, eq=False)
class Face:
    """A detection. ``box`` is float (4,): left, top, right, bottom in pixels of the picture that was searched."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray | None = None  # float32 (68, 2), same pixels

    @property
    def size(self) -> float:
        return float(self.box[2] - self.box[0])


@dataclass(eq=False)
class Track:
    """One face over time: the index of each searched frame where it was seen -> the face."""

    faces: dict[int, Face] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return next(reversed(self.faces))  # frames are added in order

    @property
    def size(self) -> float:
        return float(np.median([face.size for face in self.faces.values()]))


@load_per_thread()  # it works in memory of its own, and without Python's lock: two threads would write into it
def _detector():
    import dlib

    return dlib.get_frontal_face_detector()


def detect_faces(frame: np.ndarray) -> list[Face]:
    """Returns the faces of a uint8 (height, width, 3) RGB picture that reach KEEP_SCORE, best first."""
    boxes, scores, _ = _detector().run(frame, 0, KEEP_SCORE)
    return [
        Face(np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1], float), float(score))
        for box, score in zip(boxes, scores, strict=True)
    ]


def model_file(name: str) -> str:
    """Returns the path of a file of `face_recognition_models` without importing it (it wants pkg_resources)."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise InputError(
            "dlib models: expected the face_recognition_models package (`pip install face_recognition_models`)"
        )
    return str(Path(spec.origin).parent / "models" / name)


@load_once()
def _any_detector():
    import dlib

    return dlib.cnn_face_detection_model_v1(model_file("mmod_human_face_detector.dat"))


def find_any_face(frames: Sequence[np.ndarray]) -> bool:
    """Says whether most of the pictures (uint8 RGB, short side about 320) hold a face seen from any side."""
    return sum(len(_any_detector()(np.ascontiguousarray(frame), 0)) > 0 for frame in frames) * 2 > len(frames)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (inner <= 0).any():
        return 0.0
    area = float(np.prod(inner))
    return area / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - area)


def build_tracks(samples: dict[int, list[Face]], stride: int = STRIDE) -> list[Track]:
    """Joins the detections of one shot (frame index -> faces) to tracks, best overlap first."""
    tracks: list[Track] = []
    for index in sorted(samples):
        faces = list(samples[index])
        live = [track for track in tracks if index - track.last <= (MAX_MISSED + 1) * stride]
        pairs = sorted(
            (
                (overlap(track.faces[track.last].box, face.box), t, f)
                for t, track in enumerate(live)
                for f, face in enumerate(faces)
            ),
            reverse=True,
        )
        used_tracks, used_faces = set(), set()
        for share, t, f in pairs:
            if share < MIN_OVERLAP or t in used_tracks or f in used_faces:
                continue
            live[t].faces[index] = faces[f]
            used_tracks.add(t)
            used_faces.add(f)
        tracks += [
            Track({index: face}) for f, face in enumerate(faces) if f not in used_faces and face.score >= START_SCORE
        ]
    return tracks


def main_track(tracks: Sequence[Track]) -> Track | None:
    """Returns the face to follow: the one with the largest area summed over the time it is seen."""
    return max(tracks, key=lambda track: sum(face.size**2 for face in track.faces.values()), default=None)


def other_faces(main: Track, tracks: Sequence[Track], min_relative_size: float, min_seen: int = 3) -> dict[int, int]:
    """Counts, per searched frame, the faces beside the main one that matter.

    A face matters if its track was seen at least ``min_seen`` times and it is not small against the main one (a
    picture in the picture or a poster is).
    """
    counts: dict[int, int] = {}
    for track in tracks:
        if track is main or len(track.faces) < min_seen or track.size < min_relative_size * main.size:
            continue
        for index in track.faces:
            counts[index] = counts.get(index, 0) + 1
    return counts


def track_spans(track: Track, stride: int = STRIDE) -> list[tuple[int, int]]:
    """Returns the [start, end) frames in which the track is seen, without gaps of more than MAX_MISSED detections."""
    seen = sorted(track.faces)
    spans, start = [], seen[0]
    for before, after in zip(seen, [*seen[1:], None], strict=True):
        if after is None or after - before > (MAX_MISSED + 1) * stride:
            spans.append((start, before + stride))
            start = after
    return spans


def boxes_between(track: Track, start: int, end: int) -> np.ndarray:
    """Returns float (end - start, 4): the track's box at every frame, interpolated and smoothed over 0.4 s.

    The detector's boxes lie on a coarse grid of sizes and places; unsmoothed they would make landmarks jump at 5 Hz.
    """
    seen = np.array(sorted(track.faces))
    boxes = np.stack([track.faces[index].box for index in seen])
    frames = np.arange(start, end)
    dense = np.stack([np.interp(frames, seen, boxes[:, k]) for k in range(4)], axis=1)
    kernel = np.hanning(13)[1:-1]
    kernel /= kernel.sum()
    padded = np.pad(dense, ((5, 5), (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, k], kernel, mode="valid") for k in range(4)], axis=1)
