"""Training examples of the segmenter: a stored picture becomes a crop as a camera, a codec and a room may have made it.

Rendered heads are clean, real ones are not: pictures are turned, scaled, mirrored (landmarks change sides with them),
put before other backgrounds, re-lit, re-coloured (whole or class by class), covered in part, blurred, made noisy and
compressed. Labels follow what moves and what covers.
"""

from dataclasses import dataclass

import numpy as np

from models.labels import EVERY_LABEL, LABEL_INDEX, label_set
from models.segmenter import MAP_SIZE, WINDOWS
from models.signals import CROP_SIZE
from pipelines.stages.detail_windows import MIRROR, cut_windows, jitter_matrices, window_matrices

# What covers a face: a hand, a microphone, a cup. It has no class of its own, but it is nothing of the head.
COVER = label_set("background", "clothes", "accessory")

# Classes that are dyed together.
_DYES = (
    ("face", "nose", "ears", "neck"),
    ("hair",),
    ("brows",),
    ("beard",),
    ("clothes",),
    ("headwear",),
    ("lips",),
    ("iris",),
    ("glasses",),
    ("tongue",),
)


@dataclass(frozen=True)
class AugmentConfig:
    """Chances (0..1) and strengths; ``strength`` scales those of geometry and windows."""

    strength: float = 1.0
    background: float = 0.6
    dye: float = 0.5
    light: float = 0.5
    cover: float = 0.3
    grey: float = 0.08
    blur: float = 0.3
    small: float = 0.25
    noise: float = 0.4
    compress: float = 0.5


def plain_example(item: dict) -> dict[str, np.ndarray]:
    """The crop as it is: picture uint8 (256, 256, 3), sets uint32 (128, 128), windows uint8 (3, 64, 64, 3),
    window_sets uint32 (3, 64, 64).
    """
    x0, y0, side = item["box"]
    matrix = _crop_matrix(x0, y0, side)
    picture, codes = _warp(item, matrix, edge=False)
    return _finish(picture, codes, _tables(item), _points(item, matrix), None, 0.0)


def augmented_example(item: dict, rng: np.random.Generator, config: AugmentConfig) -> dict[str, np.ndarray]:
    """The arrays of ``plain_example`` from one random draw."""
    x0, y0, side = item["box"]
    s = config.strength
    scale = np.exp(s * rng.uniform(-0.25, 0.3))
    angle = np.clip(s * rng.normal(0, 0.16), -0.5, 0.5)
    shift = s * rng.normal(0, 0.05, 2) * side
    mirror = rng.random() < 0.5
    step = side / CROP_SIZE * scale
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirror:
        turn[:, 0] *= -1
    middle = np.array([x0, y0]) + side / 2 - 0.5 + shift
    half = (CROP_SIZE - 1) / 2
    matrix = np.concatenate([turn, (middle - turn @ [half, half])[:, None]], 1)
    picture, codes = _warp(item, matrix, edge=rng.random() < 0.7)
    points = _points(item, matrix)
    if points is not None and mirror:
        points = points[MIRROR]
    tables = _tables(item)
    sets = tables["sets"]
    picture = picture.astype(np.float32)
    if rng.random() < config.dye:
        picture = _dyed(picture, codes, sets, rng)
    if rng.random() < config.background:
        picture = _before_another_background(picture, codes, sets, rng)
    if rng.random() < config.cover:
        picture, codes = _covered(picture, codes, tables["cover"], points, rng)
    if rng.random() < config.light:
        picture = picture * _light(rng)
    picture = _recoloured(picture, rng, config)
    picture = _degraded(picture, rng, config)
    return _finish(picture, codes, tables, points, rng, s)


# --- Geometry ---


def _crop_matrix(x0: float, y0: float, side: float) -> np.ndarray:
    step = side / CROP_SIZE
    return np.array([[step, 0, x0 + step / 2 - 0.5], [0, step, y0 + step / 2 - 0.5]])


def _tables(item: dict) -> dict:
    """Sets with two more at their end: "any class" for what lies outside the picture, and what covers a face."""
    sets = np.concatenate([item["sets"], np.array([EVERY_LABEL, COVER], np.uint32)])
    return {"sets": sets, "outside": len(sets) - 2, "cover": len(sets) - 1}


def _warp(item: dict, matrix: np.ndarray, edge: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cuts picture and codes; outside the stored picture is black, or with ``edge`` its border repeated."""
    import cv2

    size = (CROP_SIZE, CROP_SIZE)
    picture, codes = item["picture"], item["codes"]
    step = np.linalg.norm(matrix[:, 0])
    if step > 1.4:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.35 * step)
    border = cv2.BORDER_REPLICATE if edge else cv2.BORDER_CONSTANT
    picture = cv2.warpAffine(
        picture, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border, borderValue=0
    )
    codes = cv2.warpAffine(
        codes,
        matrix,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=len(item["sets"]),
    )
    return picture, codes


def _points(item: dict, matrix: np.ndarray) -> np.ndarray | None:
    """Landmarks in the cut's pixels."""
    if not np.isfinite(item["landmarks"]).all():
        return None
    inverse = np.linalg.inv(matrix[:, :2])
    return (item["landmarks"] - matrix[:, 2]) @ inverse.T


def _finish(picture, codes, tables, points, rng, strength) -> dict[str, np.ndarray]:
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    step = CROP_SIZE // MAP_SIZE
    row, column = (step // 2, step // 2) if rng is None else rng.integers(0, step, 2)
    sets = tables["sets"]
    if points is None:
        # Windows without a place: the middle of the picture, with nothing to learn from it.
        base = np.array([[1, 0, 96], [0, 1, 96]], np.float32)
        matrices, known = np.stack([base] * len(WINDOWS)), False
    else:
        if rng is not None:
            points = points + strength * rng.normal(0, 0.6, points.shape)
        matrices, known = window_matrices(points), True
        matrices = jitter_matrices(matrices, rng, strength) if rng is not None else matrices
    window_codes = cut_windows(codes, matrices, nearest=True)
    return {
        "picture": picture,
        "sets": sets[codes[row::step, column::step]],
        "windows": cut_windows(picture, matrices),
        "window_sets": sets[window_codes] if known else np.full(window_codes.shape, EVERY_LABEL, np.uint32),
    }


# --- Looks ---


def _noise(rng: np.random.Generator, cells: int, channels: int) -> np.ndarray:
    """Smooth noise in 0..1 with about ``cells`` bumps a side: float32 (256, 256, channels)."""
    import cv2

    small = rng.random((cells + 1, cells + 1, channels), dtype=np.float32)
    return np.atleast_3d(cv2.resize(small, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC))


def _dyed(picture, codes, sets, rng):
    """Gives skin, hair, clothes ... other colours, each with a light texture of its own."""
    gains = np.ones((256, 3), np.float32)
    for names in _DYES:
        if rng.random() < 0.5:
            continue
        dye = np.exp(rng.normal(0, 0.3) + rng.normal(0, 0.07 if names[0] == "face" else 0.25, 3))
        allowed = label_set(*names)
        for code, members in enumerate(int(s) for s in sets):
            if members & allowed and not members & ~allowed:
                gains[code] = dye
    picture = picture * gains[codes]
    if rng.random() < 0.6:
        cells = int(rng.choice([6, 16, 40, 90]))
        picture = picture * (1 + rng.uniform(0.05, 0.35) * (_noise(rng, cells, 1) - 0.5))
    return picture


def _before_another_background(picture, codes, sets, rng):
    import cv2

    background = np.flatnonzero(sets == 1 << LABEL_INDEX["background"])
    mask = np.isin(codes, background).astype(np.float32)
    if mask.mean() < 0.02:
        return picture
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 1.5))[..., None]
    return picture * (1 - mask) + mask * _backdrop(rng)


def _backdrop(rng: np.random.Generator) -> np.ndarray:
    """Draws a background: colours, smooth noise of several scales, boxes, lines and discs: float32 (256, 256, 3)."""
    import cv2

    out = np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), (CROP_SIZE, CROP_SIZE, 3)).copy()
    for cells in (2, 6, 20, 60):
        if rng.random() < 0.6:
            out += rng.uniform(20, 160) * (_noise(rng, cells, 3 if rng.random() < 0.5 else 1) - 0.5)
    out = np.clip(out, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        colour = [float(c) for c in rng.uniform(0, 255, 3)]
        a, b = (tuple(int(v) for v in p) for p in rng.integers(-40, CROP_SIZE + 40, (2, 2)))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(out, a, b, colour, -1 if rng.random() < 0.7 else 3)
        elif kind == 1:
            cv2.line(out, a, b, colour, int(rng.integers(1, 12)))
        elif kind == 2:
            cv2.circle(out, a, int(rng.integers(3, 60)), colour, -1)
        else:
            word = "".join(chr(c) for c in rng.integers(65, 91, 5))
            cv2.putText(out, word, a, cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.5, 3)), colour, 2)
    if rng.random() < 0.6:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 8)))
    return out.astype(np.float32)


def _covered(picture, codes, cover, points, rng):
    """Lays a blob (skin-coloured, dark or any) over a part of the picture, often over the lower face."""
    import cv2

    middle = rng.uniform(20, 236, 2)
    if points is not None and rng.random() < 0.6:
        middle = points[int(rng.integers(68))] + rng.normal(0, 12, 2)
    size = rng.uniform(8, 45, 2)
    corners = int(rng.integers(3, 12))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.6, 1.2, (corners, 1))
    blob = middle + radii * size * np.stack([np.cos(angles), np.sin(angles)], 1)
    mask = np.zeros(codes.shape, np.uint8)
    cv2.fillPoly(mask, [blob.round().astype(np.int32)], 1)
    if rng.random() < 0.5:
        end = middle + rng.normal(0, 1, 2) * 30 + [0, 220]
        ends = [tuple(int(v) for v in p) for p in (middle, end)]
        cv2.line(mask, *ends, 1, int(rng.integers(4, 30)))
    inside = codes < cover - 1
    colour = rng.uniform(0, 255, 3)
    if rng.random() < 0.5 and points is not None:
        x, y = np.clip(points[[2, 14, 30][int(rng.integers(3))]].round().astype(int), 0, CROP_SIZE - 1)
        colour = picture[y, x] * rng.uniform(0.6, 1.2)
    texture = colour * (1 + 0.5 * (_noise(rng, int(rng.choice([3, 12, 40])), 1) - 0.5))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
    return picture * (1 - soft) + soft * texture, np.where(mask.astype(bool) & inside, cover, codes).astype(np.uint8)


def _light(rng: np.random.Generator) -> np.ndarray:
    """A light that falls off across the picture, with a tint: float32 (256, 256, 3)."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
    grid = np.linspace(-1, 1, CROP_SIZE, dtype=np.float32)
    ramp = float(np.cos(angle)) * grid[None] + float(np.sin(angle)) * grid[:, None]
    tint = 0.12 * rng.normal(0, 1, 3).astype(np.float32)
    return (1 + float(strength) * ramp)[..., None] * (1 + tint * ramp[..., None])


def _recoloured(picture, rng, config):
    # Plain floats and float32 arrays: numpy's own scalars would make every picture float64.
    picture = np.clip(picture, 0, 255).astype(np.float32) / 255
    picture = picture ** float(np.exp(rng.normal(0, 0.25)))
    picture = picture * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3)).astype(np.float32)
    middle = float(picture.mean())
    picture = middle + (picture - middle) * float(np.exp(rng.normal(0, 0.2)))
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    keep = 0.0 if rng.random() < config.grey else float(np.exp(rng.normal(0, 0.3)))
    picture = grey[..., None] + keep * (picture - grey[..., None])
    return np.clip(picture + float(rng.normal(0, 0.04)), 0, 1) * np.float32(255)


def _degraded(picture, rng, config):
    import cv2

    if rng.random() < config.blur:
        if rng.random() < 0.6:
            picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.2)))
        else:
            length = int(rng.integers(3, 10))
            kernel = np.zeros((length, length), np.float32)
            angle = rng.uniform(0, np.pi)
            half = (length - 1) / 2
            offset = half * np.array([np.cos(angle), np.sin(angle)])
            ends = [tuple(int(round(v)) for v in half + s * offset) for s in (-1, 1)]
            cv2.line(kernel, *ends, 1.0)
            picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    if rng.random() < config.small:
        side = int(rng.integers(80, 220))
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < config.noise:
        noise = rng.normal(0, rng.uniform(1, 12), (CROP_SIZE, CROP_SIZE, 1 if rng.random() < 0.5 else 3))
        picture = picture + noise.astype(np.float32)
    if rng.random() < config.compress:
        options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))]
        coded = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), options)[1]
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32)
    return picture
