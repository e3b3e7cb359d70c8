"""Scores of the head: how it is turned and how fast, how large it is, and whether all of it is in the picture."""

import numpy as np

from models.signals import VIDEO_FPS

# A generic head in millimetres (x to the picture's right, y down, z away from the camera, seen from the front): points
# that hardly move with expression. Average adult distances; only angles are read from it.
_RIGID = {
    27: (0.0, -36.0, -22.0),
    30: (0.0, 0.0, -46.0),
    33: (0.0, 14.0, -30.0),
    36: (-45.0, -33.0, 6.0),
    39: (-17.0, -32.0, -4.0),
    42: (17.0, -32.0, -4.0),
    45: (45.0, -33.0, 6.0),
    0: (-72.0, -30.0, 75.0),
    16: (72.0, -30.0, 75.0),
    31: (-14.0, 9.0, -22.0),
    35: (14.0, 9.0, -22.0),
}


# Head speed is measured over this many frames: a landmark's jitter between two frames would be most of it.
SPEED_FRAMES = 6


def head_rotations(landmarks: np.ndarray) -> np.ndarray:
    """float (T, 68, 2) pixels -> float (T, 3, 3): rotation of the generic head in each frame.

    Weak perspective: the scaled rotation that takes the rigid points of a generic head to the landmarks, by least
    squares, its two rows made orthonormal; the third follows.
    """
    index = list(_RIGID)
    model = np.array([_RIGID[i] for i in index])
    model = model - model.mean(axis=0)
    points = landmarks[:, index].astype(float)
    points = points - points.mean(axis=1, keepdims=True)
    rows = np.einsum("tpc,xp->tcx", points, np.linalg.pinv(model))  # (T, 2, 3)
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    rotation = u @ vt
    return np.concatenate([rotation, np.cross(rotation[:, 0], rotation[:, 1])[:, None]], axis=1)


def head_angles(landmarks: np.ndarray) -> np.ndarray:
    """float (T, 68, 2) pixels -> float (T, 3): yaw, pitch, roll in degrees of each frame (signs as in SCORES)."""
    rotation = head_rotations(landmarks)
    forward = -rotation[:, :, 2]  # where -z, the nose, points
    yaw = np.arctan2(forward[:, 0], -forward[:, 2])
    pitch = np.arctan2(-forward[:, 1], np.hypot(forward[:, 0], forward[:, 2]))
    # The tilt is the direction of the ear-to-ear axis once the turn is taken away; for moderate turns that of the eyes.
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def head_speeds(landmarks: np.ndarray) -> np.ndarray:
    """float (T, 68, 2), every frame -> float (T - SPEED_FRAMES,): degrees per second, over SPEED_FRAMES each."""
    rotation = head_rotations(landmarks)
    trace = np.einsum("tij,tij->t", rotation[SPEED_FRAMES:], rotation[:-SPEED_FRAMES])
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))) * VIDEO_FPS / SPEED_FRAMES


def face_heights(landmarks: np.ndarray) -> np.ndarray:
    """(T, 68, 2) -> (T,): distance from the middle of the brows to the chin."""
    return np.linalg.norm(landmarks[:, 17:27].mean(axis=1) - landmarks[:, 8], axis=-1)


def angle_scores(landmarks: np.ndarray) -> dict[str, float]:
    """The head's size and angles of float (T, 68, 2) landmarks in source pixels; any frames of the clip, T >= 1."""
    angles = head_angles(landmarks)
    yaw, pitch, roll = np.median(angles, axis=0)
    turn = np.abs(angles[:, :2]).max(axis=1)
    return {
        "face_size": float(np.median(face_heights(landmarks))),
        "yaw": float(yaw),
        "pitch": float(pitch),
        "roll": float(roll),
        "turn": float(np.median(turn)),
        "turn_peak": float(np.percentile(turn, 95)),
    }


def movement_scores(landmarks: np.ndarray) -> dict[str, float]:
    """How the head moves and turns; float (T, 68, 2) of every frame. Turning is left out of less than a second."""
    height = float(np.median(face_heights(landmarks)))
    steps = np.linalg.norm(np.diff(landmarks, axis=0), axis=-1).mean(axis=1) if len(landmarks) > 1 else np.zeros(1)
    scores = {"motion": float(steps.mean() * VIDEO_FPS / max(height, 1e-6))}
    if len(landmarks) >= VIDEO_FPS:
        speeds = head_speeds(landmarks)
        scores |= {"head_speed": float(np.median(speeds)), "head_speed_peak": float(np.percentile(speeds, 95))}
    return scores


def box_scores(heads: np.ndarray, crop: tuple[int, int, int], width: int, height: int) -> dict[str, float]:
    """How complete the head is in what a crop shows.

    Args:
        heads: float (T, 4) boxes of the head: left, top, right, bottom as pixel edges of the source.
        crop: the clip's square x0, y0, side. width, height: of the source.
    """
    x0, y0, side = crop
    size = heads[:, 2:] - heads[:, :2]
    inner = np.minimum(heads[:, 2:], [width, height]) - np.maximum(heads[:, :2], 0)
    inside = np.prod(np.maximum(inner, 0), axis=1) / np.maximum(np.prod(size, axis=1), 1e-6)
    low, high = np.maximum([x0, y0], 0), np.minimum([x0 + side, y0 + side], [width, height])
    room = np.concatenate([heads[:, :2] - low, high - heads[:, 2:]], axis=1) / np.maximum(size[:, 1:], 1e-6)
    return {
        "head_inside": float(inside.mean()),
        "head_margin": float(room.min()),
        "head_margin_top": float(room[:, 1].min()),
    }


def landmarks_inside(landmarks: np.ndarray, width: int, height: int) -> float:
    """float (T, 68, 2) source pixels (the first pixel's centre is 0) -> share that lies inside the picture."""
    at = landmarks + 0.5
    return float(((at >= 0) & (at <= [width, height])).all(axis=-1).mean())
