"""Moves a reference image to where another label map has its face: the start from which a small video decoder works.

Label maps of two frames give points that can be found in both (middle and extent of the face, the head with its hair,
the brows, the eyes, the nose, the mouth and its opening). A thin-plate spline through the points' displacements, at
rest on the image's border, moves the pixels. It is geometry without parameters: it turns and shifts the head, opens
eyes and lips, and invents nothing (no teeth).
"""

import numpy as np

from models.labels import LABEL_INDEX

_GROUPS = {
    "face": ("face", "brows", "lashes", "pupil", "iris", "sclera", "lips", "teeth", "tongue", "other-in-mouth", "nose"),
    "head": (
        "face",
        "hair",
        "ears",
        "headwear",
        "brows",
        "lashes",
        "pupil",
        "iris",
        "sclera",
        "glasses",
        "beard",
        "nose",
    ),
    "brows": ("brows",),
    "eyes": ("lashes", "pupil", "iris", "sclera"),
    "iris": ("pupil", "iris"),
    "nose": ("nose",),
    "mouth": ("lips", "teeth", "tongue", "other-in-mouth"),
    "opening": ("teeth", "tongue", "other-in-mouth"),
}
_MASKS = {name: np.isin(np.arange(256), [LABEL_INDEX[label] for label in labels]) for name, labels in _GROUPS.items()}
_LEAST = 6 / 128**2  # share of the picture under which a region is not looked at
_TAILS = 0.03  # share of a region's pixels beyond each of its extents
_NEIGHBOURS = 3  # of a pixel's 3 x 3 square must be of its region, itself included: specks are not looked at
_FRAMES = np.array([0.1, 0.25, 0.3, 0.25, 0.1])  # over which the motion of a point is averaged
_STRAY = 0.05  # a point further than this from where the head's own motion takes it is no correspondence
_GROWTH = 1.6  # how much larger or smaller a head may become
_TILT = 0.6  # radians by which a head may tilt
_OUTLINE, _OUTLINE_WEIGHT = 8, 4.0  # the first points, of face and head as a whole, are found best
_CELLS = 25  # the spline is evaluated on a grid of this side
_SMOOTHING = 1e-3
_BORDER = np.array(
    [(x, y) for x in np.linspace(0, 1, 5) for y in np.linspace(0, 1, 5) if {x, y} & {0.0, 1.0} and y < 1]
)
_AXIS = np.linspace(0, 1, _CELLS)
_PLACES = np.stack(np.meshgrid(_AXIS, _AXIS), -1).reshape(-1, 2)


def control_points(labels: np.ndarray) -> np.ndarray:
    """Returns points of a label map, float64 (P, 2) x, y in 0..1 of the image's side; NaN where a region is not seen.

    Args:
        labels: uint8 (S, S).
    """
    face = _spread(_MASKS["face"][labels])
    left = (np.arange(labels.shape[1]) + 0.5) / labels.shape[1] < face[0, 0]  # nothing, if there is no face
    points = [face, _spread(_MASKS["head"][labels])[1:4]]
    for name in ("brows", "eyes", "iris"):
        region = _MASKS[name][labels]
        for side in (left, ~left):
            spread = _spread(region & side[None])
            points.append(spread if name == "eyes" else spread[:1])
    points.append(_spread(_MASKS["nose"][labels]))
    points.append(_spread(_MASKS["mouth"][labels]))
    points.append(_spread(_MASKS["opening"][labels])[[0, 3, 4]])
    return np.concatenate(points)


def _spread(region: np.ndarray) -> np.ndarray:
    """Returns the middle, left, right, top and bottom of a region, (5, 2); the extents leave out ``_TAILS``."""
    padded = np.pad(region.astype(np.uint8), 1)
    lines = padded[:-2] + padded[1:-1] + padded[2:]
    region = region & (lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:] >= _NEIGHBOURS)
    columns, rows = region.sum(0), region.sum(1)
    count = columns.sum()
    if count <= _LEAST * region.size:
        return np.full((5, 2), np.nan)
    centres = (np.arange(len(columns)) + 0.5) / len(columns)
    x, y = columns @ centres / count, rows @ centres / count
    left, right = np.interp((_TAILS, 1 - _TAILS), np.cumsum(columns) / count, centres)
    top, bottom = np.interp((_TAILS, 1 - _TAILS), np.cumsum(rows) / count, centres)
    return np.array([(x, y), (left, y), (right, y), (x, top), (x, bottom)])


def steady(source: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Smooths the paths of control points over a few frames; a point that is missed for a moment goes on.

    Args:
        source: points of the reference image, (P, 2).
        targets: points of every frame, (T, P, 2).

    Returns:
        (T, P, 2); NaN where a point is not seen, or not believed, for longer.
    """
    seen = np.isfinite(source).all(-1) & np.isfinite(targets).all(-1)
    importance = np.where(np.arange(len(source)) < _OUTLINE, _OUTLINE_WEIGHT, 1.0)
    for now, points in zip(seen, targets, strict=True):
        now[now] = follows_head(source[now], points[now], importance[now])
    motion = np.where(seen[..., None], targets - source, 0.0)
    total, moved = _average(seen.astype(float)), _average(motion)
    known = total > 0.4 * _average(np.ones(seen.shape))
    mean = moved / np.where(known, total, 1.0)[..., None]
    return np.where(known[..., None], source + mean, np.nan)


def _average(x: np.ndarray) -> np.ndarray:
    """Weighs neighbours along the first axis; beyond its ends there is nothing."""
    half = len(_FRAMES) // 2
    padded = np.pad(x, [(half, half)] + [(0, 0)] * (x.ndim - 1))
    return sum(share * padded[k : k + len(x)] for k, share in enumerate(_FRAMES))


def displacement(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns a smooth field of displacements from target to source, float64 (_CELLS, _CELLS, 2) in 0..1 of the side.

    Args:
        source: control points of the image that is moved, (P, 2).
        target: control points of where it shall go, (P, 2).
    """
    seen = np.isfinite(source).all(1) & np.isfinite(target).all(1)
    at = np.concatenate([target[seen], _BORDER])
    by = np.concatenate([(source - target)[seen], np.zeros_like(_BORDER)])
    count = len(at)
    # Thin-plate spline: a radial part with weights w and an affine part a, and no affine moment in w.
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(at, at) + _SMOOTHING * np.eye(count)
    affine = np.concatenate([np.ones((count, 1)), at], axis=1)
    system[:count, count:], system[count:, :count] = affine, affine.T
    solution = np.linalg.solve(system, np.concatenate([by, np.zeros((3, 2))]))
    field = _radial(_PLACES, at) @ solution[:count] + solution[count] + _PLACES @ solution[count + 1 :]
    return field.reshape(_CELLS, _CELLS, 2)


def follows_head(source: np.ndarray, target: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Says which points the head's motion explains, bool (P,): what a label map got wrong must not bend the face.

    The motion is a similarity from target to source, fitted with Cauchy weights; faces move their features by less than
    ``_STRAY`` of the picture beside it. A motion that no head makes within a clip explains nothing.

    Args:
        source, target: (P, 2).
        importance: (P,) how much each point says about the head's motion; None is alike.
    """
    importance = np.ones(len(source)) if importance is None else importance
    if len(source) < 3:
        return np.zeros(len(source), bool)
    a, b = target @ (1, 1j), source @ (1, 1j)  # a similarity of the plane is one complex factor and one shift
    weight = importance
    for _ in range(20):
        mean_a, mean_b = weight @ a / weight.sum(), weight @ b / weight.sum()
        spread = weight @ np.abs(a - mean_a) ** 2
        factor = weight @ (np.conj(a - mean_a) * (b - mean_b)) / max(spread, 1e-9)
        stray = np.abs(factor * (a - mean_a) + mean_b - b)
        weight = importance / (1 + (stray / (_STRAY / 2)) ** 2)
    possible = 1 / _GROWTH < abs(factor) < _GROWTH and abs(np.angle(factor)) < _TILT
    return (stray < _STRAY) & possible


def _radial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """r^2 log r between all points of a and b."""
    squared = np.maximum((a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1), 1e-12)
    return 0.5 * squared * np.log(squared)


def warp(image: np.ndarray, image_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Moves an image to every frame of a semantic video.

    Args:
        image: uint8 (N, N, 3).
        image_labels: its segmentation, uint8 (S, S).
        labels: uint8 (T, S, S).

    Returns:
        uint8 (T, N, N, 3).
    """
    size = image.shape[0]
    source = control_points(image_labels)
    targets = steady(source, np.stack([control_points(frame) for frame in labels]))
    pixels = image.astype(np.float32)
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    spread = _linear_weights(centres)  # (N, _CELLS): the coarse field at every pixel
    out = np.empty((len(labels), *image.shape), np.uint8)
    for t, target in enumerate(targets):
        field = displacement(source, target).astype(np.float32)
        fine = np.einsum("ni,ijc,mj->nmc", spread, field, spread, optimize=True)
        x = (fine[..., 0] + centres[None]) * size - 0.5
        y = (fine[..., 1] + centres[:, None]) * size - 0.5
        out[t] = np.rint(_bilinear(pixels, x, y))
    return out


def _linear_weights(centres: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(centres[:, None] * (_CELLS - 1) - np.arange(_CELLS))).astype(np.float32)


def _bilinear(pixels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Samples (N, N, 3) at x, y (each (N, N), in pixels); places outside take the nearest border pixel."""
    last = pixels.shape[0] - 1
    x, y = np.clip(x, 0, last), np.clip(y, 0, last)
    x0, y0 = np.minimum(x.astype(np.int32), last - 1), np.minimum(y.astype(np.int32), last - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    flat, at = pixels.reshape(-1, 3), y0 * pixels.shape[1] + x0
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    below = at + pixels.shape[1]
    lower = flat[below] * (1 - fx) + flat[below + 1] * fx
    return upper * (1 - fy) + lower * fy
