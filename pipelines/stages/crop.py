"""The square that a clip is cut to: around the head, on whole pixels, and one for the whole clip.

A head box is built from the landmarks of a frame along the face's own axes: hair above the brows, ears at the sides,
chin and some of the neck and shoulders below. The clip's box is the union of these boxes over time, so the picture does
not move with the head. A square that would stick out of the source is moved or shrunk first, as long as the head
itself stays inside; only what is still missing is filled with black, and scored.
"""

from collections.abc import Sequence

import numpy as np

from models.signals import CROP_SIZE

# In units of the distance from the brows to the chin: above the brows, below the chin, to each side.
ROOMY = (0.85, 0.55, 1.15)
TIGHT = (0.45, 0.08, 0.72)

Box = tuple[int, int, int]


def head_box(landmarks: np.ndarray, margins: tuple[float, float, float] = ROOMY) -> np.ndarray:
    """float (68, 2) landmarks -> float (4,): left, top, right, bottom of the head, upright in the picture."""
    above, below, beside = margins
    points = landmarks.astype(float)
    chin, brows = points[8], points[17:27].mean(axis=0)
    up = brows - chin
    side = np.array([-up[1], up[0]])
    ears = (points[0] + points[16]) / 2
    # A turned head reaches further back, away from where the nose points.
    middle = ears - 0.35 * (points[30] - ears) @ side / max(side @ side, 1e-9) * side
    middle = middle - ((middle - brows) @ up / max(up @ up, 1e-9)) * up
    corners = np.stack([middle + y * up + x * side for y in (above, -1 - below) for x in (-beside, beside)])
    # The corners of a head are empty: an upright box around all four would be too large for a tilted head.
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    half = np.array([beside, (1 + above + below) / 2]) * np.linalg.norm(up)
    return np.concatenate([centre - half, centre + half])


def union_boxes(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the box around all boxes (in time order), after a median over three of them.

    One bad frame does not count.
    """
    stack = np.stack(boxes)
    if len(stack) >= 3:
        padded = np.concatenate([stack[:1], stack, stack[-1:]])
        stack = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return np.concatenate([stack[:, :2].min(axis=0), stack[:, 2:].max(axis=0)])


def clip_box(landmarks: Sequence[np.ndarray], width: int, height: int) -> Box:
    """Landmarks of a clip's frames (each (68, 2), source pixels) -> the clip's square (x0, y0, side) in whole source
    pixels.
    """
    roomy = union_boxes([head_box(points, ROOMY) for points in landmarks])
    tight = union_boxes([head_box(points, TIGHT) for points in landmarks])
    need = int(np.ceil((tight[2:] - tight[:2]).max()))
    side = int(np.ceil((roomy[2:] - roomy[:2]).max()))
    if side > min(width, height):
        side = max(min(width, height), need)
    side = max(side, 16)
    corner = []
    for axis, limit in enumerate((width, height)):
        begin = (roomy[axis] + roomy[axis + 2]) / 2 - side / 2
        if side <= limit:
            begin = min(max(begin, 0), limit - side)
        # The head has the last word over the picture's edge.
        begin = min(max(begin, tight[axis + 2] - side), tight[axis])
        corner.append(int(np.floor(begin)))
    return corner[0], corner[1], side


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


def boxes_to_crop(boxes: np.ndarray, box: Box) -> np.ndarray:
    """(N, 4) left, top, right, bottom as pixel edges of the source -> edges in the crop."""
    x0, y0, side = box
    return (boxes - np.array([x0, y0, x0, y0])) * (CROP_SIZE / side)
