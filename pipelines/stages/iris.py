"""Where the irises are in the pixels of a clip: all frames and both eyes at once, in NumPy.

Each eye is sampled on a small grid along its corners, so that an iris has one known size there (anatomy: 11.7 mm in an
opening of about 30 mm). A disc is slid over the opening; the iris is where it covers the most darkness.

Array letters: T frames, H W the grid's rows and columns.
"""

import numpy as np

# The grid in lengths of the eye from corner to corner: columns along, rows across it.
_ALONG, _ACROSS = np.linspace(-0.62, 0.62, 42), np.linspace(-0.38, 0.38, 26)
# Where the disc's centre may be, its radius, and how far the lids' landmarks are trusted, in the same unit.
_PLACES_ALONG, _PLACES_ACROSS = np.linspace(-0.32, 0.32, 33), np.linspace(-0.10, 0.10, 6)
_RADIUS, _SLACK = 0.20, 0.02
# An eye less open than this share of its length, or shorter than this in pixels, shows too little.
_LEAST_OPENING, _LEAST_LENGTH = 0.12, 8.0
# Levels of 255 by which an iris is darker than the rest of the opening.
_CONTRAST = 25.0


def find_irises(frames: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the irises of a clip.

    Args:
        frames: uint8 (T, S, S, 3), RGB.
        landmarks: float32 (T, 68, 2), pixels (the centre of a first pixel is 0).

    Returns:
        centres float32 (T, 2, 2) in the landmarks' pixels, the eye on the image's left first; trust float32 (T, 2) in
        0..1: 0 where the eye is too closed or too small, lower where the iris hardly stands out.
    """
    eyes = np.stack([landmarks[:, 36:42], landmarks[:, 42:48]], 1).astype(np.float32)  # (T, 2, 6, 2)
    axis = eyes[:, :, 3] - eyes[:, :, 0]
    length = np.linalg.norm(axis, axis=-1)
    axis = axis / np.maximum(length, 1e-3)[..., None]
    normal = np.stack([-axis[..., 1], axis[..., 0]], -1)
    middle = eyes.mean(2)
    across, along = (grid.ravel() for grid in np.meshgrid(_ACROSS, _ALONG, indexing="ij"))
    places = along[:, None] * axis[:, :, None] + across[:, None] * normal[:, :, None]
    light = _sample_light(frames, middle[:, :, None] + places * length[..., None, None])  # (T, 2, H * W)

    # The opening, in the grid's own coordinates: between the curves through the lids' landmarks.
    scaled = (eyes - middle[:, :, None]) / np.maximum(length, 1e-3)[..., None, None]
    u = np.einsum("tekc,tec->tek", scaled, axis)
    v = np.einsum("tekc,tec->tek", scaled, normal)
    upper = _curve(u[..., [0, 1, 2, 3]], v[..., [0, 1, 2, 3]], along)
    lower = _curve(u[..., [0, 5, 4, 3]], v[..., [0, 5, 4, 3]], along)
    inside = (across > upper - _SLACK) & (across < lower + _SLACK)
    inside &= (along > u[..., :1]) & (along < u[..., 3:4])

    count = np.maximum(inside.sum(-1), 1)
    bright = np.nanpercentile(np.where(inside, light, np.nan), 70, axis=-1) if inside.any() else np.zeros(length.shape)
    dark = np.clip(np.nan_to_num(bright)[..., None] - light, 0, None) * inside
    y, x = (grid.ravel() for grid in np.meshgrid(_PLACES_ACROSS, _PLACES_ALONG, indexing="ij"))
    disc = ((along - x[:, None]) ** 2 + (across - y[:, None]) ** 2 < _RADIUS**2).astype(np.float32)
    covered = dark.astype(np.float32) @ disc.T  # (T, 2, places)
    visible = np.maximum(inside.astype(np.float32) @ disc.T, 1)
    # Darkness per visible pixel inside the disc, less what the disc leaves outside.
    outside = (dark.sum(-1)[..., None] - covered) / np.maximum(count[..., None] - visible, 1)
    score = covered / visible - outside
    # The mean place of the best scores: finer than the grid of places.
    best = score.max(-1, keepdims=True)
    weight = np.clip(score - 0.9 * best, 0, None) + 1e-6
    weight /= weight.sum(-1, keepdims=True)
    centre = middle + length[..., None] * ((weight @ x)[..., None] * axis + (weight @ y)[..., None] * normal)

    opening = (v[..., [5, 4]] - v[..., [1, 2]]).mean(-1)
    trust = np.clip(best[..., 0] / _CONTRAST, 0, 1) * np.clip((opening - _LEAST_OPENING) / 0.08, 0, 1)
    trust = trust * (length >= _LEAST_LENGTH)
    return centre.astype(np.float32), trust.astype(np.float32)


def _curve(u: np.ndarray, v: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Reads the polyline (T, 2, 4) of knots u (rising), values v at positions (N,): (T, 2, N)."""
    out = np.repeat(v[..., :1], len(at), -1)
    for k in range(u.shape[-1] - 1):
        share = (at - u[..., k : k + 1]) / np.maximum(u[..., k + 1 : k + 2] - u[..., k : k + 1], 1e-3)
        here = v[..., k : k + 1] + np.clip(share, 0, 1) * (v[..., k + 1 : k + 2] - v[..., k : k + 1])
        out = np.where(share >= 0, here, out)
    return out


def _sample_light(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Reads luma between pixels: uint8 (T, S, S, 3), points (T, ..., 2) -> float32 (T, ...)."""
    size = frames.shape[1]
    at = np.clip(points, 0, size - 1.001)
    low = at.astype(np.int32)
    share = at - low
    t = np.arange(len(frames)).reshape(-1, *(1,) * (points.ndim - 2))
    x, y = low[..., 0], low[..., 1]

    def tap(dy, dx):
        return frames[t, y + dy, x + dx].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)

    fx, fy = share[..., 0], share[..., 1]
    upper = tap(0, 0) * (1 - fx) + tap(0, 1) * fx
    lower = tap(1, 0) * (1 - fx) + tap(1, 1) * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)
