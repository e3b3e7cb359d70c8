"""What stands behind a person of the embedded corpus: still pictures of a dozen kinds of place, out of focus."""

import numpy as np

# kind -> setting of the description schema
KINDS = {
    "plain wall": "indoors",
    "gradient": "studio",
    "spotlit screen": "studio",
    "blurred room": "indoors",
    "window": "indoors",
    "bookshelf": "indoors",
    "brick wall": "indoors",
    "curtain": "indoors",
    "panelled wall": "indoors",
    "park": "outdoors",
    "seaside": "outdoors",
    "city at night": "outdoors",
}


def draw_backdrop(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, str]:
    """Returns a picture (height, width, 3) uint8 and its kind, a key of ``KINDS``."""
    import cv2

    kind = tuple(KINDS)[int(rng.integers(len(KINDS)))]
    # Drawn small: everything is out of focus, and a clip should not wait for its wall.
    rows = 256
    columns = round(rows * width / height)
    image = _PAINTERS[kind](rng, columns, rows).astype(np.float32)
    blur = 1.0 if kind in ("plain wall", "gradient", "spotlit screen") else rng.uniform(1.2, 5.0)
    image = cv2.GaussianBlur(image, (0, 0), blur)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    image *= (1 - 0.3 * (x**2 + y**2))[..., None]
    dither = rng.random((height, width, 1), dtype=np.float32) - 0.5  # against banding in smooth areas
    return np.clip(image * 255 + dither, 0, 255).astype(np.uint8), kind


def _color(rng, low, high, spread=0.15):
    return np.clip(rng.uniform(low, high) * (1 + rng.uniform(-spread, spread, 3)), 0, 1)


def _canvas(columns, rows, color):
    return np.ones((rows, columns, 3)) * color


def _axes(columns, rows):
    return np.linspace(0, columns / rows, columns)[None], np.linspace(0, 1, rows)[:, None]


def _plaster(rng, columns, rows):
    import cv2

    noise = cv2.GaussianBlur(rng.standard_normal((rows, columns)), (0, 0), rng.uniform(2, 12))
    return 1 + 0.02 * (noise / noise.std())[..., None]


def _shade(rng, columns, rows, strength=0.35):
    """Light that falls off over a wall, (rows, columns, 1)."""
    x, y = _axes(columns, rows)
    cx, cy = rng.uniform(-0.2, columns / rows + 0.2), rng.uniform(-0.3, 0.5)
    return (1 + strength * (0.5 - np.hypot(x - cx, y - cy)))[..., None]


def _box(image, x0, y0, x1, y1, color):
    rows = image.shape[0]
    image[max(0, int(y0 * rows)) : max(0, int(y1 * rows)), max(0, int(x0 * rows)) : max(0, int(x1 * rows))] = color


def _plain(rng, columns, rows):
    wall = _canvas(columns, rows, _color(rng, 0.35, 0.88))
    return wall * _plaster(rng, columns, rows) * _shade(rng, columns, rows)


def _gradient(rng, columns, rows):
    x, y = _axes(columns, rows)
    angle = rng.uniform(0, np.pi)
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return (1 - t) * _color(rng, 0.2, 0.8, 0.25) + t * _color(rng, 0.2, 0.85, 0.25)


def _spotlit(rng, columns, rows):
    x, y = _axes(columns, rows)
    r = np.hypot((x - columns / rows / 2) / 1.1, y - rng.uniform(0.3, 0.6))[..., None]
    return _color(rng, 0.08, 0.25, 0.3) + _color(rng, 0.3, 0.6, 0.3) * np.exp(-((r / rng.uniform(0.3, 0.6)) ** 2))


def _room(rng, columns, rows):
    image = _plain(rng, columns, rows)
    wide = columns / rows
    for _ in range(int(rng.integers(5, 11))):
        x, y = rng.uniform(-0.1, wide), rng.uniform(0.05, 0.9)
        _box(image, x, y, x + rng.uniform(0.08, 0.35), y + rng.uniform(0.1, 0.5), _color(rng, 0.12, 0.85, 0.25))
    floor = rng.uniform(0.75, 0.95)
    _box(image, 0, floor, wide, 1, _color(rng, 0.2, 0.5))
    if rng.random() < 0.6:  # a lamp
        x, y = _axes(columns, rows)
        glow = np.exp(-(((x - rng.uniform(0, wide)) ** 2 + (y - rng.uniform(0.1, 0.4)) ** 2) / 0.012))[..., None]
        image = image + glow * np.array([1.0, 0.82, 0.55])
    return np.clip(image, 0, 1.1)


def _window(rng, columns, rows):
    image = _plain(rng, columns, rows) * 0.8
    wide = columns / rows
    left, broad = rng.uniform(-0.1, 0.6) * wide, rng.uniform(0.45, 0.8)
    top, bottom = rng.uniform(-0.1, 0.1), rng.uniform(0.55, 0.8)
    frame = _color(rng, 0.6, 0.95, 0.05)
    _box(image, left - 0.03, top - 0.03, left + broad + 0.03, bottom + 0.03, frame)
    y = np.linspace(0, 1, rows)[:, None, None]
    sky = np.array([0.80, 0.90, 1.0]) * (1.05 - 0.2 * y) * np.ones((rows, columns, 1))
    green = _canvas(columns, rows, _color(rng, 0.35, 0.6, 0.1) * np.array([0.8, 1.05, 0.7])) * _plaster(
        rng, columns, rows
    )
    out = np.where(y < rng.uniform(0.35, 0.6), sky, green)
    r0, r1 = max(0, int(top * rows)), int(bottom * rows)
    c0, c1 = max(0, int(left * rows)), max(0, int((left + broad) * rows))
    image[r0:r1, c0:c1] = out[r0:r1, c0:c1]
    middle = left + broad / 2
    _box(image, middle - 0.015, top, middle + 0.015, bottom, frame)
    if rng.random() < 0.5:  # blinds
        for at in np.arange(top, bottom, 0.035):
            _box(image, left, at, left + broad, at + 0.014, frame * 0.9)
    return image


def _bookshelf(rng, columns, rows):
    wood = _color(rng, 0.2, 0.55, 0.1) * np.array([1.15, 0.9, 0.7])
    image = _canvas(columns, rows, wood * 0.45)
    wide, pitch = columns / rows, rng.uniform(0.22, 0.32)
    top = rng.uniform(-0.2, 0)
    while top < 1:
        x = 0.0
        while x < wide:
            thick, tall = rng.uniform(0.015, 0.05), rng.uniform(0.6, 0.9) * pitch
            if rng.random() < 0.88:
                _box(image, x, top + pitch - tall, x + thick, top + pitch, _color(rng, 0.12, 0.8, 0.35))
            x += thick + 0.003
        _box(image, 0, top + pitch, wide, top + pitch + 0.025, wood)
        top += pitch + 0.025
    return image * _shade(rng, columns, rows, 0.5)


def _brick(rng, columns, rows):
    white = rng.random() < 0.35
    base = _color(rng, 0.65, 0.85, 0.04) if white else _color(rng, 0.4, 0.6, 0.06) * np.array([1.15, 0.72, 0.6])
    image = _canvas(columns, rows, base * (0.88 if white else 1.3))
    high, gap = rng.uniform(0.04, 0.06), 0.006
    for k, y in enumerate(np.arange(-0.02, 1, high)):
        for x in np.arange(-(k % 2) * high * 1.2, columns / rows, high * 2.4):
            _box(image, x + gap, y + gap, x + high * 2.4, y + high, np.clip(base * rng.uniform(0.8, 1.15), 0, 1))
    return image * _plaster(rng, columns, rows) * _shade(rng, columns, rows)


def _curtain(rng, columns, rows):
    x, y = _axes(columns, rows)
    folds = np.sin(x * rng.uniform(30, 60) + 1.2 * np.sin(x * 9 + rng.uniform(0, 6)) + 0.3 * np.sin(y * 5))
    return _color(rng, 0.25, 0.75, 0.3) * (0.8 + 0.25 * folds)[..., None] * _shade(rng, columns, rows)


def _panels(rng, columns, rows):
    base = _color(rng, 0.35, 0.8, 0.12)
    image = _canvas(columns, rows, base)
    pitch = rng.uniform(0.12, 0.4)
    for x in np.arange(rng.uniform(-0.2, 0), columns / rows, pitch):
        _box(image, x, 0, x + 0.008, 1, base * 0.6)
        _box(image, x + 0.008, 0, x + 0.014, 1, np.clip(base * 1.15, 0, 1))
    return image * _shade(rng, columns, rows, 0.5)


def _leaves(rng, columns, rows, tint):
    import cv2

    out = np.zeros((rows, columns))
    for size in (2.5, 7, 16):
        noise = cv2.GaussianBlur(rng.standard_normal((rows, columns)), (0, 0), size)
        out += noise / noise.std()
    return np.clip(tint * (1 + 0.11 * out)[..., None], 0, 1.1)


def _park(rng, columns, rows):
    x, y = _axes(columns, rows)
    sky = np.array([0.62, 0.78, 0.95]) * (1.1 - 0.15 * y)[..., None] * np.ones((1, columns, 1))
    trees = _leaves(rng, columns, rows, _color(rng, 0.28, 0.5, 0.05) * np.array([0.85, 1.1, 0.55]))
    grass = _leaves(rng, columns, rows, np.array([0.38, 0.52, 0.22])) * 0.9
    line = rng.uniform(0.15, 0.4) + 0.06 * np.sin(x * 7 + rng.uniform(0, 6)) + 0.03 * np.sin(x * 19)
    image = np.where((y > line)[..., None], trees, sky)
    return np.where((y > rng.uniform(0.7, 0.85))[..., None], grass, image)


def _seaside(rng, columns, rows):
    x, y = _axes(columns, rows)
    horizon = rng.uniform(0.4, 0.6)
    evening = rng.random() < 0.4
    low = np.array([1.0, 0.75, 0.55]) if evening else np.array([0.85, 0.92, 0.98])
    high = np.array([0.45, 0.50, 0.72]) if evening else np.array([0.45, 0.66, 0.92])
    t = np.clip(y / horizon, 0, 1)[..., None]
    sky = (1 - t) * high + t * low + 0 * x[..., None]
    waves = 0.04 * np.sin(y * 160 + 3 * np.sin(x * 6))
    sea = np.array([0.22, 0.42, 0.52]) * (1.1 + waves)[..., None] + 0.15 * (low - 0.5)
    sand = np.array([0.82, 0.74, 0.58]) * _plaster(rng, columns, rows)
    image = np.where((y > horizon)[..., None], sea, sky)
    return np.where((y > rng.uniform(0.75, 1.0) + 0.02 * np.sin(x * 5))[..., None], sand, image)


def _night(rng, columns, rows):
    x, y = _axes(columns, rows)
    image = _canvas(columns, rows, np.array([0.06, 0.07, 0.12])) * (1.4 - 0.6 * y)[..., None]
    for _ in range(int(rng.integers(25, 60))):
        cx, cy, r = rng.uniform(0, columns / rows), rng.beta(2, 2), rng.uniform(0.012, 0.045)
        hue = ((1.0, 0.75, 0.4), (1.0, 0.9, 0.7), (0.6, 0.8, 1.0), (1.0, 0.4, 0.35), (0.5, 1.0, 0.7))[
            int(rng.integers(5))
        ]
        disc = 1 / (1 + np.exp(np.clip((np.hypot(x - cx, y - cy) - r) / 0.003, -30, 30)))
        image = image + (rng.uniform(0.15, 0.7) * disc)[..., None] * np.array(hue)
    return np.clip(image, 0, 1.05)


_PAINTERS = {
    "plain wall": _plain,
    "gradient": _gradient,
    "spotlit screen": _spotlit,
    "blurred room": _room,
    "window": _window,
    "bookshelf": _bookshelf,
    "brick wall": _brick,
    "curtain": _curtain,
    "panelled wall": _panels,
    "park": _park,
    "seaside": _seaside,
    "city at night": _night,
}
