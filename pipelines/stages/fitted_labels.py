"""Training labels for real frames, drawn from landmarks, the fitted head and the clip's own colours.

What these can be sure of is labelled, the rest is left open: every pixel gets the set of classes that it may be. The
four coarse classes come from the colour models of ``pipelines/stages/segment.py`` where they are confident; the parts
of the face are drawn from the landmarks, with open borders.
"""

from collections.abc import Sequence

import numpy as np

from models.face.model import FaceModel
from models.labels import label_set
from pipelines.stages.face_fit import FaceFit
from pipelines.stages.face_parts import face_pixels, iris_centre, polygon, stroke
from pipelines.stages.head_regions import BACKGROUND, CLOTHES, HAIR, SKIN, HeadFrame, head_frames
from pipelines.stages.label_adapters import PartialLabels
from pipelines.stages.segment import SegmentConfig, posteriors

(
    _OPEN,
    _OUTSIDE,
    _BACKGROUND,
    _HAIR,
    _CLOTHES,
    _NECK,
    _FACE,
    _JAW,
    _DARK,
    _NOSE,
    _NOSTRIL,
    _BROW,
    _BROW_EDGE,
    _LIPS,
    _LIP_EDGE,
    _MOUTH,
    _MOUTH_EDGE,
    _EYE,
    _IRIS,
    _LID,
    _EAR,
) = range(21)
_HEAD = ("face", "beard", "glasses")
FITTED_SETS = np.array(
    [
        # Near the head's rim: anything that is not a part inside the face.
        label_set("background", "face", "neck", "ears", "hair", "beard", "glasses", "clothes", "headwear", "accessory"),
        label_set("background", "neck", "ears", "hair", "clothes", "headwear", "accessory"),
        label_set("background"),
        label_set("hair", "headwear"),
        label_set("clothes", "accessory"),
        label_set("neck", "beard", "accessory"),
        label_set("face"),
        label_set("face", "beard"),
        label_set(*_HEAD),
        label_set("nose"),
        label_set("nose", "nostrils", "face", "beard"),
        # Glasses are no choice here: with it, a network may call the brows of every real face glasses and be right.
        label_set("brows"),
        label_set("brows", "hair", "face"),
        label_set("lips"),
        label_set("lips", "nostrils", "face", "beard"),
        label_set("teeth", "tongue", "other-in-mouth"),
        label_set("lips", "teeth", "tongue", "other-in-mouth"),
        label_set("sclera", "lashes", "iris"),
        label_set("iris", "pupil"),
        label_set("lashes", "sclera", "iris", "pupil", "face"),
        label_set("ears", "face", "hair", "accessory"),
    ],
    np.uint32,
)
# How far a brow's middle line is below the detector's points, its height, and that with the rim: in distances from
# the nasion to the chin, chosen on clips that are trained on.
_BROW_BELOW, _BROW_HEIGHT, _BROW_RIM = 0.02, 0.05, 0.1
# A coarse class counts where the colour models give it at least this share.
_SURE = 0.93


def fitted_labels(
    frames: np.ndarray,
    landmarks: np.ndarray,
    fit: FaceFit,
    model: FaceModel,
    chosen: Sequence[int],
    config: SegmentConfig | None = None,
) -> list[PartialLabels]:
    """Labels the chosen frames of a clip.

    Args:
        frames: uint8 (T, 256, 256, 3), RGB.
        landmarks: float32 (T, 68, 2), crop pixels; ``fit`` is their fit with ``model``.
        chosen: indices of the frames wanted; the colours are learnt from the whole clip.
    """
    config = config or SegmentConfig()
    heads = head_frames(landmarks, fit, model)
    share = posteriors(frames, heads, landmarks, config)
    return [PartialLabels(_draw(frames[t], landmarks[t], heads[t], share[t]), FITTED_SETS) for t in chosen]


def _draw(frame: np.ndarray, landmarks: np.ndarray, head: HeadFrame, share: np.ndarray) -> np.ndarray:
    import cv2

    size = frame.shape[0]
    shape = frame.shape[:2]
    share = cv2.resize(share, shape[::-1], interpolation=cv2.INTER_LINEAR)
    right, up = head.coordinates(size, 256 / size)
    unit = head.unit
    outline = polygon(shape, head.outline)
    inner = _grown(outline, -0.05 * unit)
    outer = _grown(outline | polygon(shape, head.skull), 0.04 * unit)
    codes = np.full(shape, _OPEN, np.uint8)
    codes[~outer] = _OUTSIDE
    codes[~outer & (share[..., BACKGROUND] > _SURE)] = _BACKGROUND
    codes[~inner & (share[..., BACKGROUND] > _SURE) & (up > -0.9)] = _BACKGROUND
    codes[~inner & (share[..., HAIR] > _SURE)] = _HAIR
    codes[(share[..., CLOTHES] > _SURE) & (up < -1.0)] = _CLOTHES
    skin = share[..., SKIN] > 0.8
    codes[skin & (up < -1.15) & (np.abs(right) < 0.7)] = _NECK
    # The lower face may wear a beard, the upper one hair: what is not skin in there stays open.
    codes[_grown(outline, -0.12 * unit) & (up > -0.3) & (up < 0.25)] = _DARK
    codes[inner & skin] = _FACE
    codes[inner & skin & (up < -0.4)] = _JAW
    for hull in head.ears:
        middle = hull.mean(0)
        ear = polygon(shape, middle + 0.8 * (hull - middle)) & ~outline & skin
        codes[ear] = _EAR
    _draw_parts(codes, frame, landmarks, unit)
    return codes


def _draw_parts(codes: np.ndarray, frame: np.ndarray, points: np.ndarray, unit: float) -> None:
    shape = codes.shape
    # Nose: the bridge and the tip are sure, the wings' rims and the nostrils open.
    nose = polygon(shape, np.concatenate([points[27:28], points[[31, 33, 35]]]))
    wings = stroke(shape, points[31:36], 0.10 * unit)
    codes[wings] = _NOSTRIL
    codes[_grown(nose, -0.02 * unit) & ~stroke(shape, points[31:36], 0.05 * unit)] = _NOSE
    pixels = face_pixels(frame)
    _draw_brows(codes, points, unit)
    outer, inside = polygon(shape, points[48:60]), polygon(shape, points[60:68])
    edge = max(0.02 * unit, 1.0)
    codes[_grown(outer, edge)] = _LIP_EDGE
    codes[_grown(outer, -0.6 * edge)] = _LIPS
    opening = np.linalg.norm(points[[61, 62, 63]] - points[[67, 66, 65]], axis=1).mean()
    codes[stroke(shape, points[[60, 61, 62, 63, 64, 65, 66, 67, 60]], max(1.5, 0.03 * unit))] = _MOUTH_EDGE
    codes[inside] = _MOUTH_EDGE
    # Clearly open, the middle is no lip; a network that may choose takes everything for lips.
    if opening > 0.04 * unit:
        codes[_grown(inside, -0.5 * edge)] = _MOUTH
    for eye in (points[36:42], points[42:48]):
        length = np.linalg.norm(eye[3] - eye[0])
        opened = polygon(shape, eye)
        codes[_grown(opened, max(1.5, 0.08 * length))] = _LID
        found = iris_centre(pixels, eye)
        if found is None:
            continue
        centre, radius = found
        codes[opened] = _EYE
        y, x = np.mgrid[: shape[0], : shape[1]]
        distance = np.hypot(x + 0.5 - centre[0], y + 0.5 - centre[1])
        codes[opened & (distance < 0.75 * radius)] = _IRIS


def _draw_brows(codes: np.ndarray, points: np.ndarray, unit: float) -> None:
    """Draws the brows as bands along the landmarks: the middle is sure, its rim and its ends are open.

    The detector's points run along a brow's upper edge. Looking for the darkest band beside them instead was tried, and
    agreed less with an independent mesh: lids, wrinkles and hair are as dark as a brow.
    """
    outside_in, inside_out = points[17:22], points[22:27]
    for brow, eye in ((outside_in, points[36:42].mean(0)), (inside_out[::-1], points[42:48].mean(0))):
        down = (eye - brow.mean(0)) / max(np.linalg.norm(eye - brow.mean(0)), 1e-3)
        middle = brow + _BROW_BELOW * unit * down
        # Hair reaches to a brow's ends, the outer one more: only what lies between them is sure.
        ends = [(middle[:1] + middle[1:2]) / 2, middle[1:-1], 0.3 * middle[-2:-1] + 0.7 * middle[-1:]]
        free = codes != _HAIR
        codes[free & stroke(codes.shape, middle, _BROW_RIM * unit)] = _BROW_EDGE
        codes[free & stroke(codes.shape, np.concatenate(ends), _BROW_HEIGHT * unit)] = _BROW


def _grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Grows (or, below 0, shrinks) a mask by a distance in pixels."""
    import cv2

    if pixels >= 0:
        return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) <= pixels
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) > -pixels
