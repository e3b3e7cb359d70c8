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
from pipelines.stages.face_parts import LEAST_CONTRAST, face_pixels, iris_centre, polygon, stroke
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
    _draw_brows(codes, pixels.light, points, unit)
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


# The lines on which a brow is looked for: from above the detector's to below it, in units of the face.
_BROW_SHIFTS = np.arange(-0.22, 0.0801, 0.005)


def _draw_brows(codes: np.ndarray, light: np.ndarray, points: np.ndarray, unit: float) -> None:
    """Draws the brows where they are seen: a detector's points often run beside them, beside both alike.

    Of the lines parallel to the points' own, the one that is darkest against what lies above and below it; both brows
    choose together first, then each near the common choice. What is about as dark is brow, what is hardly darker than
    the skin is face, what lies between stays open; so does all where no line is clearly darker.
    """
    import cv2

    light = cv2.GaussianBlur(light.astype(np.float32), (3, 3), 0)
    brows = (points[17:22], points[22:27])
    downs, values, depths = [], [], []
    for brow, eye in zip(brows, (points[36:42].mean(0), points[42:48].mean(0)), strict=True):
        down = (eye - brow.mean(0)) / max(np.linalg.norm(eye - brow.mean(0)), 1e-3)
        value, depth = _valleys(light, brow, down, np.linalg.norm(eye - brow.mean(0)), unit)
        downs.append(down)
        values.append(value)
        depths.append(depth)
    # A wrinkle of the forehead may be as dark: what is near counts more.
    common = ((depths[0] + depths[1]) * np.exp(-0.5 * (_BROW_SHIFTS / 0.12) ** 2)).argmax()
    near = np.abs(_BROW_SHIFTS - _BROW_SHIFTS[common]) < 0.06
    for brow, down, value, depth in zip(brows, downs, values, depths, strict=True):
        best = int((depth * near).argmax()) if (depth * near).any() else int(common)
        middle = brow + _BROW_SHIFTS[best] * unit * down
        band = stroke(codes.shape, middle, 0.15 * unit) & (codes != _HAIR)
        codes[band] = _BROW_EDGE
        if depth[best] < LEAST_CONTRAST:
            continue
        like = (value[best] + depth[best] - light) / depth[best]
        codes[band & (like < 0.35)] = _FACE
        # Hair reaches to a brow's ends, and is as dark: only what lies between them is sure.
        inner = [[0.7 * middle[0] + 0.3 * middle[1]], middle[1:-1], [0.7 * middle[-1] + 0.3 * middle[-2]]]
        codes[band & (like > 0.6) & stroke(codes.shape, np.concatenate(inner), 0.1 * unit)] = _BROW


def _valleys(light: np.ndarray, brow: np.ndarray, down: np.ndarray, reach: float, unit: float):
    """Returns, for every line of _BROW_SHIFTS, its light and how much darker it is than the lightest line close above
    and the lightest close below; 0 beyond a third of the way to the eye, ``reach``.
    """
    import cv2

    # The ends count for nothing: hair and the nose's shadow are there.
    along = np.linspace(0.7, 3.3, 24)
    line = np.stack([np.interp(along, np.arange(5), brow[:, axis]) for axis in (0, 1)], -1)
    wide = round(0.16 / 0.005)
    more = np.arange(-wide, len(_BROW_SHIFTS) + wide) * 0.005 + _BROW_SHIFTS[0]
    places = (line + more[:, None, None] * unit * down).astype(np.float32)
    value = np.median(cv2.remap(light, places[..., 0], places[..., 1], cv2.INTER_LINEAR), axis=1)
    seen = np.lib.stride_tricks.sliding_window_view(value, wide + 1).max(1)
    own = value[wide:-wide]
    depth = np.minimum(seen[: len(own)], seen[wide : wide + len(own)]) - own
    return own, depth * (_BROW_SHIFTS * unit < 0.33 * reach)


def _grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Grows (or, below 0, shrinks) a mask by a distance in pixels."""
    import cv2

    if pixels >= 0:
        return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) <= pixels
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) > -pixels
