"""The small classes of a face, painted from landmarks and confirmed by pixels: eyes, brows, nose, nostrils, lips,
mouth.

Landmarks say where a part can be, the frame's own light and colour say which pixels it is: brows are darker than the
skin around them, the iris is the darkest disc in the eye's opening, teeth are bright and hardly coloured, the tongue is
red. Lengths are in units of the face: the distance from the nasion (landmark 27) to the chin (landmark 8).
"""

from dataclasses import dataclass

import numpy as np

from models.labels import LABEL_INDEX

# Drawing with sub-pixel landmarks: OpenCV takes fixed-point coordinates with this many fractional bits.
_SHIFT = 4
# Anatomy, as shares of the length of the eye's opening from corner to corner (about 30 mm; an iris is 11.7 mm, a pupil
# some 4 mm wide).
_IRIS_RADIUS, _PUPIL_RADIUS = 0.20, 0.075
# A brow that differs less from the skin (in levels of 255) is not to be told from noise.
LEAST_CONTRAST = 7.0


@dataclass(frozen=True)
class FacePixels:
    """The window of a frame around the face: light float32 (H, W) in 0..255, saturation and redness float32 in 0..1."""

    light: np.ndarray
    saturation: np.ndarray
    redness: np.ndarray


def light_of(rgb: np.ndarray) -> np.ndarray:
    """Returns the light (luma) of pixels: uint8 (H, W, 3) -> float32 (H, W) in 0..255."""
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32)


def face_pixels(rgb: np.ndarray) -> FacePixels:
    """Measures light, saturation and redness (how far red stands above green and blue) of each pixel."""
    red, green, blue = np.moveaxis(rgb, -1, 0).astype(np.float32)
    others = np.maximum(green, blue)
    top = np.maximum(np.maximum(red, others), 8)
    bottom = np.minimum(np.minimum(red, green), blue)
    return FacePixels(light_of(rgb), (top - bottom) / top, (red - others) / top)


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Crop pixels (x of a pixel's left edge) as OpenCV's fixed-point coordinates of pixel centres: int32."""
    return np.round((np.asarray(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def polygon(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Fills a polygon: points (N, 2) in pixels -> bool (H, W)."""
    import cv2

    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [fixed_point(points)], 1, shift=_SHIFT)
    return mask.astype(bool)


def stroke(shape: tuple[int, int], points: np.ndarray, width: float) -> np.ndarray:
    """Draws an open line of a width in pixels: points (N, 2) -> bool (H, W)."""
    import cv2

    mask = np.zeros(shape, np.uint8)
    cv2.polylines(mask, [fixed_point(points)], False, 1, max(1, round(width)), shift=_SHIFT)
    return mask.astype(bool)


def paint_parts(labels: np.ndarray, frame: np.ndarray, landmarks: np.ndarray, skin_light: float) -> None:
    """Paints nose, nostrils, brows, lips, mouth and eyes over the labels of one frame, in place.

    Args:
        labels: uint8 (H, W), face and hair already there.
        frame: uint8 (H, W, 3), RGB.
        landmarks: float32 (68, 2).
        skin_light: the light of this clip's facial skin, 0..255.
    """
    unit = float(np.linalg.norm(landmarks[8] - landmarks[27]))
    # Only the window around the face is looked at.
    low = np.clip(np.floor(landmarks.min(0) - 0.2 * unit).astype(int), 0, None)
    high = np.ceil(landmarks.max(0) + 0.2 * unit).astype(int)
    window = slice(low[1], max(high[1], 0)), slice(low[0], max(high[0], 0))
    labels, landmarks = labels[window], landmarks - low
    if labels.size == 0:
        return
    pixels = face_pixels(frame[window])
    _paint_nose(labels, pixels, landmarks, unit, skin_light)
    _paint_brows(labels, pixels, landmarks, unit)
    _paint_mouth(labels, pixels, landmarks, unit, skin_light)
    for eye in (landmarks[36:42], landmarks[42:48]):
        _paint_eye(labels, pixels, eye)


def _paint_nose(labels, pixels, landmarks, unit, skin_light) -> None:
    bridge, left, base, right = landmarks[27], landmarks[31], landmarks[33], landmarks[35]
    across = (right - left) / max(np.linalg.norm(right - left), 1e-3)
    width = np.linalg.norm(right - left)
    # The wings reach beyond the outer nostril landmarks; in a turned face the far wing does so less.
    tip = landmarks[30]
    share = np.clip(np.dot(tip - left, across) / max(width, 1e-3), 0.15, 0.85)
    left_wing, right_wing = left - across * width * 0.45 * share * 2 * 0.5, right + across * width * 0.45 * (1 - share)
    up = (bridge - base) / max(np.linalg.norm(bridge - base), 1e-3)
    side = 0.16 * width * across
    outline = np.stack(
        [
            bridge - side,
            landmarks[29] - side * 1.6,
            left_wing + up * 0.10 * unit,
            left_wing,
            left - up * 0.01 * unit,
            base - up * 0.02 * unit,
            right - up * 0.01 * unit,
            right_wing,
            right_wing + up * 0.10 * unit,
            landmarks[29] + side * 1.6,
            bridge + side,
        ]
    )
    nose = polygon(labels.shape, outline)
    labels[nose] = LABEL_INDEX["nose"]
    # Nostrils: dark pixels where the outer and the inner landmarks of a side meet.
    for outer, inner in ((landmarks[31], landmarks[32]), (landmarks[35], landmarks[34])):
        place = stroke(labels.shape, np.stack([outer, inner]) + up * 0.015 * unit, max(0.045 * unit, 2))
        place &= nose
        if place.any():
            dark = place & (pixels.light < min(0.62 * skin_light, np.percentile(pixels.light[nose], 12)))
            labels[dark] = LABEL_INDEX["nostrils"]


def _paint_brows(labels, pixels, landmarks, unit) -> None:
    import cv2

    hair, skin = LABEL_INDEX["hair"], LABEL_INDEX["face"]
    for brow, eye in ((landmarks[17:22], landmarks[36:42]), (landmarks[22:27], landmarks[42:48])):
        down = eye.mean(0) - brow.mean(0)
        down /= max(np.linalg.norm(down), 1e-3)
        # The landmarks run along the brow's upper half.
        middle = brow + down * 0.02 * unit
        # Hair reaches into the brow's ends, and a dark brow may have been taken for hair: stay between the ends.
        inner = np.concatenate(
            [[0.6 * middle[0] + 0.4 * middle[1]], middle[1:-1], [0.6 * middle[-1] + 0.4 * middle[-2]]]
        )
        place = stroke(labels.shape, inner, 0.11 * unit) & np.isin(labels, (hair, skin))
        around = stroke(labels.shape, middle, 0.24 * unit) & (labels == skin) & ~place
        if not place.any() or not around.any():
            continue
        # Brows are darker than the skin around, or brighter on dark skin; blurred a little so that single hairs hold
        # together.
        light = cv2.GaussianBlur(pixels.light, (3, 3), 0) - np.median(pixels.light[around])
        low, high = np.percentile(light[place], [10, 90])
        if max(-low, high) < LEAST_CONTRAST:
            continue
        stands_out = light < 0.4 * low if -low > high else light > 0.4 * high
        labels[place & stands_out] = LABEL_INDEX["brows"]


def _paint_mouth(labels, pixels, landmarks, unit, skin_light) -> None:
    outer, inner = landmarks[48:60], landmarks[60:68]
    mouth = polygon(labels.shape, outer)
    labels[mouth] = LABEL_INDEX["lips"]
    opening = np.linalg.norm(landmarks[[61, 62, 63]] - landmarks[[67, 66, 65]], axis=1).mean()
    if opening < max(0.02 * unit, 1.2):
        return
    inside = polygon(labels.shape, inner)
    if not inside.any():
        return
    labels[inside] = LABEL_INDEX["other-in-mouth"]
    lips = mouth & ~inside
    lip_redness = np.median(pixels.redness[lips]) if lips.any() else 0.3
    lip_light = np.median(pixels.light[lips]) if lips.any() else 0.6 * skin_light
    light, saturation, redness = pixels.light, pixels.saturation, pixels.redness
    # Teeth: about as bright as the lips or brighter, and much less red than they are.
    teeth = inside & (light > max(0.75 * lip_light, 0.4 * skin_light)) & (redness < 0.62 * lip_redness)
    teeth &= saturation < 0.5
    # Tongue: red like the lips, lit, and in the lower part of the opening.
    middle = (landmarks[61:64].mean(0) + landmarks[65:68].mean(0)) / 2
    down = landmarks[65:68].mean(0) - landmarks[61:64].mean(0)
    x, y = np.arange(labels.shape[1]) + 0.5 - middle[0], np.arange(labels.shape[0]) + 0.5 - middle[1]
    lower = x[None] * down[0] + y[:, None] * down[1] > -0.1 * (down @ down)
    tongue = inside & lower & ~teeth & (light > max(0.5 * lip_light, 0.28 * skin_light)) & (redness > 0.5 * lip_redness)
    labels[teeth] = LABEL_INDEX["teeth"]
    labels[tongue] = LABEL_INDEX["tongue"]


def iris_centre(pixels: FacePixels, eye: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Finds the iris in an eye's opening.

    Args:
        eye: float32 (6, 2): outer to inner corner over the upper lid, back under the lower one.

    Returns:
        its centre (2,) in pixels and its radius, or None if the eye is too closed or too small to see it.
    """
    length = np.linalg.norm(eye[3] - eye[0])
    opening = np.linalg.norm(eye[[1, 2]] - eye[[5, 4]], axis=1).mean()
    if length < 6 or opening < 0.12 * length:
        return None
    low = np.floor(eye.min(0)).astype(int) - 2
    high = np.ceil(eye.max(0)).astype(int) + 3
    low, high = np.maximum(low, 0), np.minimum(high, pixels.light.shape[::-1])
    if (high - low < 3).any():
        return None
    light = pixels.light[low[1] : high[1], low[0] : high[0]]
    inside = polygon(light.shape, eye - low)
    if inside.sum() < 6:
        return None
    values = light[inside]
    dark = np.clip(np.percentile(values, 70) - light, 0, None) ** 2 * inside
    radius = _IRIS_RADIUS * length
    # A disc is slid over the opening: where does it cover the most darkness per pixel that the lids leave visible?
    axis = (eye[3] - eye[0]) / length
    along, across = np.meshgrid(np.linspace(-0.28, 0.28, 15) * length, np.array([-0.12, 0, 0.12]) * opening)
    centres = eye.mean(0) - low + along.reshape(-1, 1) * axis + across.reshape(-1, 1) * np.array([-axis[1], axis[0]])
    x = np.arange(light.shape[1]) + 0.5 - centres[:, :1]
    y = np.arange(light.shape[0]) + 0.5 - centres[:, 1:]
    discs = (x[:, None, :] ** 2 + y[:, :, None] ** 2 < radius**2).reshape(len(centres), -1).astype(np.float32)
    covered = discs @ dark.ravel()
    visible = np.maximum(discs @ inside.ravel().astype(np.float32), 1)
    score = covered / visible - 0.2 * (dark.sum() - covered) / len(values)
    return centres[score.argmax()] + low, radius


def _paint_eye(labels, pixels, eye) -> None:
    length = np.linalg.norm(eye[3] - eye[0])
    if length < 3:
        return
    opened = polygon(labels.shape, eye)
    found = iris_centre(pixels, eye)
    if found is not None:
        centre, radius = found
        labels[opened] = LABEL_INDEX["sclera"]
        x, y = np.arange(labels.shape[1]) + 0.5 - centre[0], np.arange(labels.shape[0]) + 0.5 - centre[1]
        distance = np.hypot(x[None], y[:, None])
        labels[opened & (distance < radius)] = LABEL_INDEX["iris"]
        labels[opened & (distance < max(_PUPIL_RADIUS * length, 0.8))] = LABEL_INDEX["pupil"]
        lid = eye[:4]
    else:
        # Closed: the lashes of both lids lie on one line.
        lid = np.stack([eye[0], (eye[1] + eye[5]) / 2, (eye[2] + eye[4]) / 2, eye[3]])
    labels[stroke(labels.shape, lid, max(1.0, 0.05 * length))] = LABEL_INDEX["lashes"]
