"""The windows in which small classes are looked at again: ears with what hangs on them, eyes with their brows, and
mouth with nostrils.

Landmarks place them: upright in the face, as large as the face, the second of two mirrored so that an eye's outer
corner is always on the left. Later ones are pasted over earlier ones. A window is described by the matrix (2, 3) from
its pixels to the picture's (the centre of a first pixel is 0, 0 in both).
"""

import numpy as np

from models.segmenter import DETAIL_SIZE

# iBUG-68 with left and right exchanged: landmark i of a mirrored picture is landmark MIRROR[i] of the picture.
MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)

# Millimetres of a typical face, which set the scale: between outer eye corners, from nasion to the nose's base.
_EYES_APART, _NOSE_LENGTH = 90.0, 50.0
# A window's side, and how far its middle lies above the middle of eye or mouth, in millimetres.
_EYE_SIDE, _EYE_RAISE = 64.0, 8.0
_MOUTH_SIDE, _MOUTH_RAISE = 72.0, 8.0
# An ear lies outside the jaw line's upper end; below it hangs what is worn.
_EAR_SIDE, _EAR_RAISE, _EAR_OUT = 80.0, -10.0, 8.0


def window_matrices(landmarks: np.ndarray) -> np.ndarray:
    """Places the windows of one face: landmarks float (68, 2) -> float32 (R, 2, 3), in the order of WINDOWS."""
    points = np.asarray(landmarks, np.float64)
    across = points[45] - points[36]
    down = points[33] - points[27]
    # A turned head keeps its height, a nodding one its width.
    millimetre = max(np.linalg.norm(across) / _EYES_APART, np.linalg.norm(down) / _NOSE_LENGTH, 0.05)
    angle = np.arctan2(across[1], across[0])
    x = np.array([np.cos(angle), np.sin(angle)])
    y = np.array([-x[1], x[0]])
    out = _EAR_OUT * millimetre * x
    places = (
        (points[0:3].mean(0) - out, _EAR_SIDE, _EAR_RAISE, 1),
        (points[14:17].mean(0) + out, _EAR_SIDE, _EAR_RAISE, -1),
        (points[36:42].mean(0), _EYE_SIDE, _EYE_RAISE, 1),
        (points[42:48].mean(0), _EYE_SIDE, _EYE_RAISE, -1),
        (points[48:60].mean(0), _MOUTH_SIDE, _MOUTH_RAISE, 1),
    )
    matrices = np.empty((len(places), 2, 3), np.float32)
    for matrix, (middle, side, lift, direction) in zip(matrices, places, strict=True):
        step = side * millimetre / DETAIL_SIZE
        matrix[:, 0], matrix[:, 1] = direction * step * x, step * y
        half = (DETAIL_SIZE - 1) / 2
        matrix[:, 2] = middle - lift * millimetre * y - half * (matrix[:, 0] + matrix[:, 1])
    return matrices


def jitter_matrices(matrices: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Moves, turns and scales each window a little about its middle, as landmarks that are off would."""
    out = matrices.copy()
    half = (DETAIL_SIZE - 1) / 2
    for matrix in out:
        middle = matrix @ np.array([half, half, 1.0])
        angle, scale = strength * rng.normal(0, 0.07), np.exp(strength * rng.normal(0, 0.08))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        step = np.linalg.norm(matrix[:, 0])
        matrix[:, :2] = turn @ matrix[:, :2]
        middle = middle + strength * step * rng.normal(0, 2.5, 2)
        matrix[:, 2] = middle - half * (matrix[:, 0] + matrix[:, 1])
    return out


def cut_windows(picture: np.ndarray, matrices: np.ndarray, nearest: bool = False) -> np.ndarray:
    """Cuts the windows out of a picture: uint8 (H, W) or (H, W, C) -> uint8 (R, 64, 64) or (R, 64, 64, C)."""
    import cv2

    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
    size = (DETAIL_SIZE, DETAIL_SIZE)
    return np.stack([cv2.warpAffine(picture, m, size, flags=flags, borderMode=cv2.BORDER_REPLICATE) for m in matrices])


def taper(border: int = 8) -> np.ndarray:
    """How much a window's pixels count against the whole picture's: 1 inside, falling to 0 at its border, (64, 64)."""
    ramp = np.minimum(np.arange(DETAIL_SIZE) + 0.5, DETAIL_SIZE - 0.5 - np.arange(DETAIL_SIZE)) / border
    ramp = np.clip(ramp, 0, 1).astype(np.float32)
    return np.minimum(ramp[:, None], ramp[None])


def paste_windows(shares: np.ndarray, windows: np.ndarray, matrices: np.ndarray) -> None:
    """Blends the windows' class shares into the picture's, in place.

    Args:
        shares: float32 (K, H, W), of the whole picture.
        windows: float32 (R, K, 64, 64).
        matrices: (R, 2, 3).
    """
    import cv2

    _, height, width = shares.shape
    weight = taper()
    last = DETAIL_SIZE - 1
    for window, matrix in zip(windows, matrices, strict=True):
        corners = np.array([[0, 0], [0, last], [last, 0], [last, last]]) @ matrix[:, :2].T + matrix[:, 2]
        x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, (width, height))
        x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        # From the window's pixels to those of the picture's part that it covers.
        placed = matrix.astype(np.float64)
        placed[:, 2] -= (x0, y0)
        size = (int(x1 - x0), int(y1 - y0))
        place = shares[:, y0:y1, x0:x1]
        place *= 1 - cv2.warpAffine(weight, placed, size)
        for plane, values in zip(place, window * weight, strict=True):
            plane += cv2.warpAffine(values, placed, size)
