"""The square that a clip is cut to: around the head, on whole pixels, and one for the whole clip.

The head model is fitted to landmarks of the clip (pipelines/stages/face_fit.py); what an ellipsoid
about the fitted head covers in a frame is that frame's head box: hair above the brows, ears at the sides, chin and some
of the neck and shoulders below, turned and tilted as the head is. The clip's box is the union of these boxes over time,
so the picture does not move with the head. A square that would stick out of the source is moved or shrunk first, as
long as the head itself stays inside; only what is still missing is filled with black, and scored.
"""

from collections.abc import Sequence

import numpy as np

from models.face.camera import MODEL_TO_CAMERA, default_camera, rotation_matrix
from models.face.model import FaceModel, deform, load_face_model
from models.signals import CROP_SIZE

# In units of the fitted face's distance from the brows to the chin: above the brows, below the chin, to each side.
ROOMY = (0.85, 0.55, 1.15)
TIGHT = (0.45, 0.08, 0.72)
# How far the ellipsoid reaches before and behind the head's centre, in the same unit.
_DEPTH = 0.9
# The fit sees every face at this size, in pixels of the crop's camera.
_FIT_SIZE = 105.0
# A clip of 10 s has some fifty searched frames: one compilation serves all.
_FIT_BUCKET = 64

Box = tuple[int, int, int]


def head_boxes(landmarks: np.ndarray, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Fits the head to a clip and returns what it covers, upright in the picture.

    Args:
        landmarks: float (T, 68, 2), pixels of the source (the centre of a first pixel is 0).
        stride: video frames from one row to the next.

    Returns:
        ``ROOMY`` and ``TIGHT`` boxes, float (T, 4) each: left, top, right, bottom as pixel edges of the source.
    """
    from pipelines.stages.face_fit import FitConfig, face_size, fit_clip

    model = load_face_model()
    points = np.asarray(landmarks, np.float64)
    middle = np.median((points.min(1) + points.max(1)) / 2, axis=0)
    scale = _FIT_SIZE / max(face_size(points), 1e-6)
    small = ((points - middle) * scale + CROP_SIZE / 2).astype(np.float32)
    fit = fit_clip(small, model, FitConfig(bucket=_FIT_BUCKET), stride=stride)

    camera = default_camera(CROP_SIZE)
    boxes = (fitted_boxes(model, fit.shape, fit.pose, camera, margins) for margins in (ROOMY, TIGHT))
    # The landmarks were placed about the camera's centre; both have their first pixel's edge half a pixel before it.
    roomy, tight = ((box - CROP_SIZE / 2 - 0.5) / scale + np.tile(middle, 2) + 0.5 for box in boxes)
    return roomy, tight


def fitted_boxes(
    model: FaceModel, shape: np.ndarray, pose: np.ndarray, camera: np.ndarray, margins: tuple[float, float, float]
) -> np.ndarray:
    """Returns what an ellipsoid about a fitted head covers, upright in the picture: float (T, 4), left, top, right,
    bottom in the camera's pixels.

    Args:
        shape: (Ns,). pose: (T, 6). camera: (3,). margins: ``ROOMY`` or ``TIGHT``.
    """
    above, below, beside = margins
    neutral = deform(model.landmark_model(), shape, np.zeros(model.num_expression, np.float32))
    brows, chin = neutral[17:27, 1].mean(), neutral[8, 1]
    unit = brows - chin
    top, bottom = brows + above * unit, chin - below * unit
    rotation = rotation_matrix(pose[:, :3].astype(np.float64))
    centre = rotation @ (np.array([0, (top + bottom) / 2, 0]) * MODEL_TO_CAMERA) + pose[:, 3:]
    axes = np.array([beside * unit, (top - bottom) / 2, _DEPTH * unit])
    pixels_a_metre = camera[0] / centre[:, 2:]
    half = np.linalg.norm(rotation[:, :2] * axes, axis=2) * pixels_a_metre
    at = centre[:, :2] * pixels_a_metre + camera[1:]
    return np.concatenate([at - half, at + half], 1)


def union_boxes(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the box around all boxes (in time order), after a median over three of them.

    One bad frame does not count.
    """
    stack = np.asarray(boxes)
    if len(stack) >= 3:
        padded = np.concatenate([stack[:1], stack, stack[-1:]])
        stack = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return np.concatenate([stack[:, :2].min(axis=0), stack[:, 2:].max(axis=0)])


def clip_box(landmarks: Sequence[np.ndarray], width: int, height: int, stride: int = 1) -> Box:
    """Returns the clip's square (x0, y0, side) in whole source pixels, all even: on whole chroma samples, so that it
    can be cut from 4:2:0 pictures as it is.

    Args:
        landmarks: of the clip's searched frames, in time order: each (68, 2), source pixels.
        width, height: of the source.
        stride: frames between two searched ones.
    """
    return square_around(*head_boxes(np.stack(landmarks), stride), width, height)


def square_around(roomy: np.ndarray, tight: np.ndarray, width: int, height: int) -> Box:
    """Returns the square (x0, y0, side) for the ``head_boxes``, float (T, 4) each, of a clip."""
    roomy, tight = union_boxes(roomy), union_boxes(tight)
    need = _even((tight[2:] - tight[:2]).max() + 2)  # there is an even place for it
    side = _even((roomy[2:] - roomy[:2]).max())
    if side > min(width, height):
        side = max(min(width, height) // 2 * 2, need)
    side = max(side, 16)
    corner = []
    for axis, limit in enumerate((width, height)):
        begin = (roomy[axis] + roomy[axis + 2]) / 2 - side / 2
        begin = 2 * round(begin / 2)
        if side <= limit:
            begin = min(max(begin, 0), (limit - side) // 2 * 2)
        # The head has the last word over the picture's edge.
        begin = max(begin, _even(tight[axis + 2] - side))
        corner.append(min(begin, 2 * int(np.floor(tight[axis] / 2))))
    return corner[0], corner[1], side


def _even(length: float) -> int:
    return 2 * int(np.ceil(length / 2))


def pad_share(box: Box, width: int, height: int) -> float:
    """Returns the share of the square that lies outside the source picture."""
    x0, y0, side = box
    inside_x = max(0, min(width, x0 + side) - max(0, x0))
    inside_y = max(0, min(height, y0 + side) - max(0, y0))
    return 1.0 - inside_x * inside_y / side**2


def to_crop(points: np.ndarray, box: Box) -> np.ndarray:
    """(..., 2) source pixels -> pixels of the 256x256 crop; the centre of a first pixel is 0 in both."""
    x0, y0, side = box
    return (points + 0.5 - np.array([x0, y0])) * (CROP_SIZE / side) - 0.5


def from_crop(points: np.ndarray, box: Box) -> np.ndarray:
    """The way back: (..., 2) pixels of the crop -> source pixels."""
    x0, y0, side = box
    return (points + 0.5) * (side / CROP_SIZE) + np.array([x0, y0]) - 0.5


def cut_crop(frame: np.ndarray, box: Box) -> np.ndarray:
    """Cuts a clip's square out of a frame (uint8 (H, W, 3), black where the frame ends): uint8 (256, 256, 3)."""
    import cv2

    x0, y0, side = box
    height, width = frame.shape[:2]
    left, top, right, bottom = max(0, -x0), max(0, -y0), max(0, x0 + side - width), max(0, y0 + side - height)
    inside = frame[max(0, y0) : y0 + side, max(0, x0) : x0 + side]
    square = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT)
    how = cv2.INTER_AREA if side > CROP_SIZE else cv2.INTER_CUBIC
    return cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=how)


def boxes_to_crop(boxes: np.ndarray, box: Box) -> np.ndarray:
    """(N, 4) left, top, right, bottom as pixel edges of the source -> edges in the crop."""
    x0, y0, side = box
    return (boxes - np.array([x0, y0, x0, y0])) * (CROP_SIZE / side)
