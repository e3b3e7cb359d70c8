"""Scores of a clip's pictures: sharpness, light, standing still, lettering."""

from collections.abc import Sequence

import numpy as np

from models.signals import CROP_SIZE, VIDEO_FPS
from pipelines.stages.head_scores import face_heights

LOOK_EVERY = 5  # frames between two whose sharpness and light are measured
# The blur effect is measured on a face of this height from the brows to the chin, pixels.
BLUR_FACE = 96
_BLUR_WIDTH = 9


def picture_scores(frames: np.ndarray, landmarks: np.ndarray, source_fps: float) -> dict[str, float]:
    """Scores of uint8 (T, 256, 256, 3) frames and float (T, 68, 2) landmarks in their pixels."""
    import cv2

    height = max(float(np.median(face_heights(landmarks))), 1e-6)
    blur, effect, luma = [], [], []
    for index in range(0, len(frames), LOOK_EVERY):
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        low = np.clip(np.floor(landmarks[index].min(axis=0)), 0, CROP_SIZE - 8).astype(int)
        high = np.clip(np.ceil(landmarks[index].max(axis=0)), low + 8, CROP_SIZE).astype(int)
        face = grey[low[1] : high[1], low[0] : high[0]]
        blur.append(cv2.Laplacian(face, cv2.CV_64F).var())
        effect.append(blur_effect(_resized(face, BLUR_FACE / height)))
        luma.append(face.mean())
    return {
        "face_share": height / CROP_SIZE,
        "blur": float(np.median(blur)),
        "blur_effect": float(np.median(effect)),
        "luminance": float(np.mean(luma)),
        "frozen": frozen_share(frames, source_fps),
        "text": text_share(frames, landmarks),
    }


def _resized(picture: np.ndarray, scale: float) -> np.ndarray:
    import cv2

    height, width = (max(16, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def blur_effect(luma: np.ndarray) -> float:
    """Returns how little a further blur takes from a uint8 (height, width) picture: 0 (sharp) to 1 (blurred).

    The share of the differences between neighbouring pixels that is still there after a blur over 9 pixels, in the
    direction where more of them is. Brightness and contrast cancel out. Source: Crete et al. 2007, The blur effect.
    """
    import cv2

    values = luma.astype(np.float32)
    worst = 0.0
    for axis, kernel in ((1, (_BLUR_WIDTH, 1)), (0, (1, _BLUR_WIDTH))):
        sharp = np.abs(np.diff(values, axis=axis))
        soft = np.abs(np.diff(cv2.blur(values, kernel), axis=axis))
        total = float(sharp.sum())
        worst = max(worst, 1 - float(np.maximum(sharp - soft, 0).sum()) / total if total else 1.0)
    return worst


def frozen_share(frames: np.ndarray, source_fps: float) -> float:
    """Returns the share of frames that repeat the one before, less the share that a slower source must repeat on our
    clock.
    """
    if len(frames) < 2:
        return 1.0
    small = frames[:, ::4, ::4].astype(np.int16)
    still = (np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)) < 0.15).mean()
    expected = max(0.0, 1 - source_fps / VIDEO_FPS) if source_fps else 0.0
    return float(np.clip((still - expected) / max(1 - expected, 1e-6), 0, 1))


def text_share(frames: Sequence[np.ndarray], landmarks: np.ndarray | None = None) -> float:
    """Returns the share of the picture covered by lines of lettering that stay in place; a face is left out.

    Lettering: thin strokes, bright or dark against both sides, packed in wide low blocks, in the same place in most of
    up to seven pictures. Coarse: it misses single large letters, and a fence that stands still can count.
    """
    if len(frames) == 0:
        return 0.0
    import cv2

    masks = []
    for index in np.linspace(0, len(frames) - 1, min(7, len(frames))).astype(int):
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        strokes = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        around = np.ones((7, 7), np.uint8)
        light, dark = (cv2.morphologyEx(grey, kind, around) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
        mask = ((strokes > 50) & (cv2.max(light, dark) > 40)).astype(np.uint8)
        if landmarks is not None:
            cv2.fillConvexPoly(mask, cv2.convexHull(np.round(landmarks[index]).astype(np.int32)), 0)
        masks.append(mask)
    steady = (np.mean(masks, axis=0) >= 0.6).astype(np.uint8)
    lines = cv2.morphologyEx(steady, cv2.MORPH_CLOSE, np.ones((3, 13), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines)
    area = 0
    for x, y, w, h, pixels in stats[1:count]:
        dense = steady[y : y + h, x : x + w].mean()
        line = 6 <= h <= 60 and w >= 1.8 * h and pixels >= 0.4 * w * h and dense >= 0.12
        block = 20 <= h <= len(steady) / 3 and w >= 0.8 * h and pixels >= 0.55 * w * h and dense >= 0.3
        if line or block:  # a block: several lines that touch
            area += int(w * h)
    return area / steady.size
