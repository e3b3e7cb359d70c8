"""``archon measure tracking``: what following a face between detections costs against detecting it in every frame.

Curation looks for faces on every sixth frame, joins them to a track and interpolates and smooths its boxes; landmarks
are found in every frame, from these boxes. Here the detector also runs on every frame, and in the frames that curation
follows:

- ``box_iou``, ``box_percent``: overlap of the track's box with the detection, and mean distance of their edges in
  percent of the detection's side;
- ``landmark_percent``, ``landmark_percent_p95``: distance between the landmarks from the one box and from the other, in
  percent of the face's height from brows to chin, mean and 95th percentile over frames;
- ``landmark_percent_smooth``: the same with the detections' boxes smoothed over time as the track's are. Detections lie
  on a coarse grid of places and sizes; this takes out the jitter that is theirs;
- ``frames_detector_lost``: share of the followed frames in which the detector alone has no such face and the track goes
  on;
- ``frames_track_lost``: share of the frames in which detection in every frame follows the face, and the track does not.

Each is the mean over videos, then of each video. A frame in which the detector has no face has no error.
"""

import argparse
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.signals import VIDEO_FPS
from pipelines.stages import curation, faces, landmarks, shots, video
from pipelines.stages.filters import FilterThresholds
from pipelines.stages.head_scores import face_heights
from pipelines.stages.limits import MediaError

TARGETS: dict = {}
FIGURES = (
    "box_iou",
    "box_percent",
    "landmark_percent",
    "landmark_percent_p95",
    "landmark_percent_smooth",
    "frames_detector_lost",
    "frames_track_lost",
)


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--clips", nargs="+", required=True, metavar="VIDEO", help="videos with a face")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each video, from its start (default 10)")


def measure(args: argparse.Namespace) -> dict:
    """Returns the figures of the module's text.

    Raises:
        InputError: a video that cannot be read or in which no face is followed, or ``--seconds`` under one.
    """
    if args.seconds < 1:
        raise InputError(f"--seconds {args.seconds:g}: expected at least 1")
    by_video = {Path(path).stem: compare(path, round(args.seconds * VIDEO_FPS)) for path in args.clips}
    figures = {name: float(np.nanmean([found[name] for found in by_video.values()])) for name in FIGURES}
    figures |= {"videos": len(by_video), "frames": sum(found["frames"] for found in by_video.values())}
    return figures | {f"{name}_{stem}": found[name] for stem, found in by_video.items() for name in FIGURES}


def compare(path: str, most: int) -> dict:
    """Returns FIGURES and ``frames`` (those compared) of the first ``most`` frames of a video.

    Raises:
        InputError: see `measure`.
    """
    scan = detect_all(path, most)
    followed = curation.follow_faces(every(scan, faces.STRIDE), FilterThresholds())
    if not followed:
        raise InputError(f"--clips {path}: no face is followed in its first {scan.frames} frames")
    boxes, found = {}, {}  # frame -> the track's box; the detection that overlaps it
    for face in followed:
        for index, box in enumerate(faces.boxes_between(face.track, *face.span), face.span[0]):
            boxes[index] = box
            best = max(scan.samples[index], key=lambda item: faces.overlap(item.box, box), default=None)
            if best is not None and faces.overlap(best.box, box) >= faces.MIN_OVERLAP:
                found[index] = best
    if not found:
        raise InputError(f"--clips {path}: the detector alone finds none of the faces that are followed")
    smooth = {}
    for face in followed:
        own = {index: found[index] for index in range(*face.span) if index in found}
        if own:
            smooth |= dict(enumerate(faces.boxes_between(faces.Track(own), *face.span), face.span[0]))
    track = np.stack([boxes[index] for index in found])
    alone = np.stack([face.box for face in found.values()])
    side = alone[:, 2] - alone[:, 0]
    points = landmarks_of(path, list(found), [track, alone, np.stack([smooth[index] for index in found])])
    height = face_heights(points[1])
    error = np.linalg.norm(points[0] - points[1], axis=-1).mean(axis=1) / height
    steady = np.linalg.norm(points[0] - points[2], axis=-1).mean(axis=1) / height
    seen = {index for face in curation.follow_faces(scan, FilterThresholds()) for index in face.track.faces}
    return {
        "box_iou": float(np.mean([faces.overlap(a, b) for a, b in zip(track, alone, strict=True)])),
        "box_percent": float(100 * (np.abs(track - alone).mean(axis=1) / side).mean()),
        "landmark_percent": float(100 * error.mean()),
        "landmark_percent_p95": float(100 * np.percentile(error, 95)),
        "landmark_percent_smooth": float(100 * steady.mean()),
        "frames_detector_lost": 1 - len(found) / len(boxes),
        "frames_track_lost": len(seen - set(boxes)) / max(1, len(seen)),
        "frames": len(found),
    }


def detect_all(path: str, most: int) -> curation.Scan:
    """Scans the first ``most`` frames as curation does, but with faces on every frame, in pixels of the scan."""
    detector, samples = shots.ShotDetector(), {}
    for index, frame in enumerate(pictures(path, most)):
        detector.add(frame)
        samples[index] = faces.detect_faces(frame)
    return curation.Scan(len(samples), detector.shots(), samples, {}, detector.changes())


def every(scan: curation.Scan, stride: int) -> curation.Scan:
    """The same scan as if only every ``stride``-th frame had been searched."""
    fewer = {index: found for index, found in scan.samples.items() if index % stride == 0}
    return curation.Scan(scan.frames, scan.shots, fewer, {}, scan.changes)


def landmarks_of(path: str, frames: list[int], boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Returns, for each (N, 4) array of boxes, the float (N, 68, 2) landmarks that they give in the N frames."""
    row = {index: at for at, index in enumerate(frames)}
    out = [np.zeros((len(frames), 68, 2)) for _ in boxes]
    for index, frame in enumerate(pictures(path, max(frames) + 1)):
        if index in row:
            at = row[index]
            points = landmarks.find_landmarks([frame] * len(boxes), np.stack([these[at] for these in boxes]))
            for array, point in zip(out, points, strict=True):
                array[at] = point
    return out


def pictures(path: str, most: int):
    """Yields the first ``most`` frames of a video as the scan sees them. InputError: it cannot be read."""
    try:
        info = video.probe(path)
        for index, frame in enumerate(video.decode_frames(info, *video.scaled_size(info, faces.SHORT_SIDE))):
            if index >= most:
                return
            yield frame
    except (OSError, MediaError) as error:
        raise InputError(f"--clips {path}: expected a video that can be read: {error}") from error
