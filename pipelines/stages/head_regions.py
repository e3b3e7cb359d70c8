"""Where the parts of a person can be in a frame, by geometry alone: from landmarks and the fitted head, before any
pixel is looked at.
"""

import functools
from dataclasses import dataclass

import numpy as np

from models.face.camera import project
from models.face.model import FaceModel, deform, landmarks68
from models.labels import LABEL_INDEX
from pipelines.stages.face_fit import FaceFit
from pipelines.stages.face_parts import polygon, stroke

BACKGROUND, SKIN, HAIR, CLOTHES = range(4)

# A skull as an ellipsoid in the face model's axes: centre and semi-axes in metres (an adult head is about 15.5 cm wide,
# 23 high, 19 deep).
_SKULL_CENTRE = np.array([0.0, 0.015, -0.005])
_SKULL_AXES = np.array([0.079, 0.117, 0.097])
_FOREHEAD = np.array([0.0, 0.035, -0.012], np.float32)


@dataclass(frozen=True)
class HeadFrame:
    """The head's own coordinates in a frame: origin the nasion, unit the distance from nasion to chin, ``up`` along the
    face.

    ``outline`` is the face's contour (jaw and forehead), ``skull`` the silhouette of the head without hair, ``ears`` up
    to two hulls.
    """

    origin: np.ndarray
    unit: float
    up: np.ndarray
    outline: np.ndarray
    skull: np.ndarray
    ears: tuple[np.ndarray, ...]

    def coordinates(self, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns right and up of each pixel of a size x size picture, ``scale`` crop pixels apart, in face units."""
        grid = (np.arange(size, dtype=np.float32) + 0.5) * scale
        x, y = grid[None, :] - self.origin[0], grid[:, None] - self.origin[1]
        right = -self.up[1] * x + self.up[0] * y
        return right / self.unit, (self.up[0] * x + self.up[1] * y) / self.unit


def head_frames(landmarks: np.ndarray, fit: FaceFit, model: FaceModel) -> list[HeadFrame]:
    """Places the head in every frame: landmarks (T, 68, 2) and their fit -> T head frames."""
    import cv2

    steps = 40
    angle = np.linspace(0, np.pi, steps // 2 + 2)[1:-1]
    around = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    sphere = np.stack(
        [
            (np.sin(angle)[:, None] * np.cos(around)).ravel(),
            np.repeat(np.cos(angle), steps),
            (np.sin(angle)[:, None] * np.sin(around)).ravel(),
        ],
        1,
    )
    neutral = deform(model, fit.shape, np.zeros(model.num_expression, np.float32))
    stretch = np.array([1.0, 1.0, 1.0])
    face = landmarks68(model, neutral)
    # The skull is as wide as the fitted face says: from temple to temple, and as high as from chin to nasion.
    stretch[0] = np.clip(np.abs(face[16, 0] - face[0, 0]) / 0.140, 0.85, 1.2)
    stretch[1] = np.clip((face[27, 1] - face[8, 1]) / 0.112, 0.85, 1.2)
    skull = (sphere * _SKULL_AXES * stretch + _SKULL_CENTRE).astype(np.float32)
    ear_points = neutral[model.labels == LABEL_INDEX["ears"]]
    ears = [part for part in (ear_points[ear_points[:, 0] < 0], ear_points[ear_points[:, 0] > 0]) if len(part) >= 3]
    skulls = project(skull, fit.pose, fit.camera)
    # The face's outline ends half-way up the forehead, which slopes back: above, colours tell skin from hair.
    brow = face[17:27].astype(np.float32)
    foreheads = project(brow + _FOREHEAD, fit.pose, fit.camera) - project(brow, fit.pose, fit.camera)
    ear_pixels = [project(part, fit.pose, fit.camera) for part in ears]
    frames = []
    for t, points in enumerate(landmarks):
        nasion, chin = points[27], points[8]
        unit = max(float(np.linalg.norm(nasion - chin)), 1.0)
        up = (nasion - chin) / unit
        brows = points[17:27] + foreheads[t]
        temples = np.stack([points[0] + up * 0.25 * unit, points[16] + up * 0.25 * unit])
        outline = cv2.convexHull(np.concatenate([points[:17], brows, temples]).astype(np.float32))[:, 0]
        hull = cv2.convexHull(skulls[t].astype(np.float32))[:, 0]
        hulls = tuple(cv2.convexHull(part[t].astype(np.float32))[:, 0] for part in ear_pixels)
        frames.append(HeadFrame(nasion, unit, up, outline, hull, hulls))
    return frames


def _largest(*maps: np.ndarray) -> np.ndarray:
    return functools.reduce(np.maximum, maps)


def log_prior(head: HeadFrame, size: int, hair: float = 1.0, length: float = 1.0) -> np.ndarray:
    """Where the four classes can be, by geometry: float32 (4, size, size), log of weights that add up to one.

    It is smooth, and so made at half the size.

    Args:
        hair: 1 if the clip shows hair, 0 if the crown is bare. length: 1 if hair falls beside the face, 0 if it is
            short.
    """
    import cv2

    scale = 512 / size
    shape = (size // 2, size // 2)
    right, up = head.coordinates(size // 2, scale)
    side = np.abs(right)
    face = polygon(shape, head.outline / scale)
    skull = polygon(shape, head.skull / scale) | face
    outside = cv2.distanceTransform((~skull).astype(np.uint8), cv2.DIST_L2, 3) * scale / head.unit
    inside = cv2.distanceTransform(skull.astype(np.uint8), cv2.DIST_L2, 3) * scale / head.unit

    def ramp(values, low, high):
        return np.clip((values - low) / (high - low), 0, 1)

    weights = np.empty((4, *shape), np.float32)
    below = ramp(-up, 0.9, 1.9)  # 0 at the chin, 1 well under it
    neck = ramp(-up, 0.6, 0.95) * (1 - ramp(-up, 1.6, 2.3)) * (1 - ramp(side, 0.5, 0.95))
    chest = ramp(-up, 1.1, 1.7) * (1 - ramp(side, 1.2, 2.2))
    ear = (1 - ramp(outside, 0.0, 0.22)) * (1 - ramp(up, 0.2, 0.5)) * (1 - ramp(-up, 0.75, 1.0))
    forehead = skull * (1 - ramp(up, 0.35, 1.0)) * 0.5
    weights[SKIN] = _largest(0.95 * face, 0.8 * neck, 0.5 * chest, 0.35 * ear, forehead)
    weights[SKIN] = np.maximum(weights[SKIN], 0.12 * skull)
    near = np.exp(-((outside / np.where(up > 0.3, 0.22, 0.38)) ** 2)) * ~skull
    # Hair that falls past the jaw does so beside the neck.
    falling = np.exp(-((outside / 0.6) ** 2)) * ramp(-up, -0.4, 0.2) * (1 - ramp(-up, 2.0, 3.2)) * ~face
    falling *= np.where(up < -0.7, ramp(side, 0.25, 0.6), 1)
    beside = near * np.where(up < -0.7, ramp(side, 0.25, 0.6), 1)
    crown = skull * ramp(up, 0.25, 0.75) * ~face
    scalp = 0.5 * (skull & ~face & (up > -0.2))
    weights[HAIR] = _largest(0.9 * crown, 0.45 * beside, 0.35 * falling * length, scalp, 0.03 * face)
    weights[HAIR] *= np.where(up < -0.5, 0.1 + 0.9 * length, 1)
    weights[CLOTHES] = np.maximum(0.75 * below * (1 - ramp(side, 1.6, 3.6) * (1 - ramp(-up, 1.6, 2.6))), 0.15 * neck)
    weights[BACKGROUND] = np.where(skull, 0.25 * np.exp(-inside / 0.06), 0.25 + 0.75 * ramp(outside, 0.0, 0.7))
    weights[BACKGROUND] *= 1 - 0.7 * below * (1 - ramp(side, 0.7, 2.0))
    weights = np.maximum(weights, 2e-3)
    # Where there is no hair, its place is skin.
    weights[SKIN] += 0.98 * (1 - hair) * weights[HAIR]
    weights[HAIR] *= 0.02 + 0.98 * hair
    logs = np.log(weights / weights.sum(0))
    return np.stack([cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR) for part in logs])


def beside_the_face(head: HeadFrame, size: int, scale: float) -> np.ndarray:
    """The strips next to the cheeks, where only long hair is: uint8 (size, size), 1 left, 2 right, else 0."""
    import cv2

    right, up = head.coordinates(size, scale)
    head_mask = polygon((size, size), head.skull / scale) | polygon((size, size), head.outline / scale)
    for ear in head.ears:
        head_mask |= polygon((size, size), ear / scale)
    outside = cv2.distanceTransform((~head_mask).astype(np.uint8), cv2.DIST_L2, 3) * scale / head.unit
    strip = (outside > 0.06) & (outside < 0.22) & (up > -0.75) & (up < -0.1)
    return np.where(strip, np.where(right < 0, 1, 2), 0).astype(np.uint8)


def sure_places(head: HeadFrame, landmarks: np.ndarray, size: int, scale: float) -> np.ndarray:
    """Pixels that geometry alone makes (almost) sure of: float32 (4, size, size) of weights 0 or 1."""
    import cv2

    shape = (size, size)
    right, up = head.coordinates(size, scale)
    side = np.abs(right)
    sure = np.zeros((4, size, size), np.float32)
    skull = polygon(shape, head.skull / scale)
    face = polygon(shape, head.outline / scale)
    inner = landmarks.mean(0) + 0.85 * (landmarks[:27] - landmarks.mean(0))
    skin = polygon(shape, cv2.convexHull(inner.astype(np.float32))[:, 0] / scale)
    # Beards grow below the nose.
    skin &= up > np.dot(landmarks[33] - head.origin, head.up) / head.unit
    for part in (landmarks[36:42], landmarks[42:48]):
        centre = part.mean(0)
        skin &= ~polygon(shape, cv2.convexHull((centre + 1.5 * (part - centre)).astype(np.float32))[:, 0] / scale)
    for brow in (landmarks[17:22], landmarks[22:27]):
        skin &= ~stroke(shape, brow / scale, 0.16 * head.unit / scale)
    sure[SKIN] = skin
    # The fitted skull may be taller than the real one: its rim is no sure hair.
    inside = cv2.distanceTransform(skull.astype(np.uint8), cv2.DIST_L2, 3) * scale / head.unit
    sure[HAIR] = (inside > 0.1) & ~face & (up > 0.55)
    outside = cv2.distanceTransform((~(skull | face)).astype(np.uint8), cv2.DIST_L2, 3) * scale / head.unit
    sure[BACKGROUND] = (outside > 0.55) & ((up > -0.7) | ((side > 2.2) & (up > -1.5)))
    # The picture's rim behind the head: a person is cut off by the lower rim only.
    rim = np.zeros(shape, bool)
    width = max(1, round(0.03 * size))
    rim[:width], rim[:, :width], rim[:, -width:] = True, True, True
    sure[BACKGROUND] = np.maximum(sure[BACKGROUND], rim & (outside > 0.15) & (up > -0.5))
    bottom = np.arange(size)[:, None] >= 0.93 * size
    sure[CLOTHES] = ((up < -1.75) | (bottom & (up < -1.2))) & (side < 1.3)
    return sure
