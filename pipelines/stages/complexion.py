"""The look of a person's surfaces: colours, highlights and material of the face model's vertices, and the textures of
skin, beard, hair and cloth.

Vertex colours hold what is larger than a few millimetres (blush, lips, the region of a beard); textures hold what is
smaller (pores, freckles, bristles, strands, weave). A texture's column is the angle round the head's vertical axis, its
row the way down over the head in millimetres; cloth lies flat on the body's front. Colours are sRGB-like 0..1 (square
root of linear light). Array letters: V vertices, F triangles, R, C texture rows and columns.
"""

import numpy as np

from models.face.surface import smoothstep
from models.labels import LABEL_INDEX
from pipelines.stages.shading import CLOTH, EYE, HAIR, PLAIN, SKIN

SKIN_TONES = {
    "pale": (0.95, 0.79, 0.71),
    "fair": (0.90, 0.72, 0.61),
    "rosy": (0.92, 0.70, 0.62),
    "light olive": (0.83, 0.65, 0.51),
    "tan": (0.75, 0.56, 0.42),
    "brown": (0.60, 0.42, 0.31),
    "deep brown": (0.49, 0.34, 0.255),
    "dark brown": (0.40, 0.275, 0.21),
}
DARK_TONES = ("brown", "deep brown", "dark brown")
HAIR_COLORS = {
    "black": (0.09, 0.08, 0.08),
    "dark brown": (0.20, 0.13, 0.10),
    "brown": (0.34, 0.22, 0.14),
    "auburn": (0.45, 0.20, 0.11),
    "red": (0.62, 0.28, 0.12),
    "dark blond": (0.56, 0.43, 0.27),
    "blond": (0.76, 0.61, 0.37),
    "grey": (0.55, 0.54, 0.53),
    "white": (0.82, 0.81, 0.79),
}
EYE_COLORS = {
    "brown": (0.36, 0.21, 0.11),
    "dark brown": (0.20, 0.12, 0.08),
    "hazel": (0.42, 0.32, 0.15),
    "blue": (0.32, 0.48, 0.68),
    "green": (0.33, 0.46, 0.30),
    "grey": (0.46, 0.51, 0.54),
}
CLOTHES_COLORS = {
    "red": (0.66, 0.16, 0.15),
    "burgundy": (0.38, 0.10, 0.15),
    "navy": (0.13, 0.17, 0.34),
    "blue": (0.20, 0.38, 0.66),
    "light blue": (0.58, 0.71, 0.85),
    "white": (0.88, 0.88, 0.86),
    "beige": (0.78, 0.70, 0.58),
    "black": (0.10, 0.10, 0.11),
    "green": (0.18, 0.40, 0.25),
    "olive": (0.37, 0.38, 0.20),
    "grey": (0.47, 0.48, 0.50),
    "yellow": (0.85, 0.70, 0.25),
    "teal": (0.15, 0.45, 0.48),
    "purple": (0.39, 0.23, 0.47),
    "pink": (0.86, 0.55, 0.62),
    "orange": (0.83, 0.46, 0.18),
    "brown": (0.40, 0.27, 0.19),
}
PATTERNS = ("plain", "plain", "plain", "heather", "striped", "checked", "dotted", "fine stripes")

ROWS, COLUMNS = 512, 1024
SKIN_TEXTURE, BEARD_TEXTURE, HAIR_TEXTURE, CLOTH_TEXTURE, NO_TEXTURE = 0, 1, 2, 3, 255
# Rows of the head's textures go from the crown (165 mm of way above the eye line) to the collar.
_TOP, _BOTTOM = 165.0, -260.0
_FLAT = (LABEL_INDEX["clothes"],)


def paint_face(model, attributes: dict, rng: np.random.Generator):
    """Paints the face model.

    Returns:
      colors (V, 3), gloss (V,), labels (V,) uint8 (with beard where one grows), weight (V,) of the texture, and the
      person's skin and hair colours (3,).
    """
    xyz = model.vertices * 1000.0
    x, y, z = xyz.T
    ax = np.abs(x)
    skin = np.array(SKIN_TONES[attributes["skin"]]) * rng.uniform(0.96, 1.04) * (1 + rng.uniform(-0.02, 0.02, 3))
    hair = np.array(HAIR_COLORS[attributes["hair_color"]]) * rng.uniform(0.9, 1.12)
    labels = model.labels.copy()
    colors = np.tile(skin, (len(xyz), 1))
    weight = np.ones(len(xyz))

    def bump(cx, cy, sx, sy):
        return np.exp(-0.5 * (((ax - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)) * (z > 20)

    def where(name):
        return labels == LABEL_INDEX[name]

    # Blood near the surface: cheeks, nose, chin, ears; a little yellow on the forehead.
    blush = rng.uniform(0.5, 1.3) * (1.6 if attributes["makeup"] else 1.0)
    red = blush * (0.10 * bump(42, -34, 15, 13) + 0.09 * bump(0, -38, 13, 8) + 0.05 * bump(0, -104, 14, 8))
    colors *= 1 + red[:, None] * np.array([0.30, -0.80, -0.65])
    colors *= 1 + (0.03 * bump(0, 55, 40, 22))[:, None] * np.array([0.4, 0.2, -0.8])
    # What the sky's light at rest (ambient occlusion) does not darken: thin skin under the eyes, folds, lash lines.
    shadow = (
        0.16 * bump(30, 8, 13, 4.5)
        + 0.10 * bump(17, 2, 4.5, 7)
        + rng.uniform(0.06, 0.16) * bump(31, -11, 12, 4)
        + 0.16 * bump(16.5, -46, 4, 4.5)
        + 0.14 * bump(0, -52.5, 11, 2.5)
        + 0.10 * bump(0, -91, 14, 3.5)
        + 0.07 * bump(27, -58, 4, 10)
        + 0.08 * bump(28, -74.5, 4, 4)
    )
    if attributes["age"] != "young":
        old = 1.0 if attributes["age"] == "older" else 0.45
        shadow += old * (0.15 * bump(31, -14, 12, 2.0) + 0.17 * bump(25, -60, 2.2, 12) + 0.10 * bump(50, 2, 5, 1.5))
        for k, line in enumerate((50, 60, 70)):
            crease = np.exp(-0.5 * ((y - line - 0.002 * x**2) / 1.8) ** 2)
            shadow += old * (0.10 - 0.02 * k) * crease * (ax < 42) * (z > 40)
    # Skin in shadow keeps its red: light that comes through it has lost the rest.
    colors *= 1 - np.clip(shadow, 0, 0.6)[:, None] * np.array([0.80, 1.0, 1.08])
    sheen = rng.uniform(0.8, 1.5)
    gloss = sheen * (0.07 + 0.10 * bump(0, -34, 6, 8) + 0.07 * bump(0, 58, 34, 18) + 0.06 * bump(42, -28, 12, 10))
    gloss[z < 10] = 0.05

    lip = skin * (0.88, 0.62, 0.60)
    if attributes["makeup"]:
        tint = ((0.70, 0.16, 0.22), (0.78, 0.36, 0.38), (0.55, 0.14, 0.20), (0.80, 0.45, 0.42))[int(rng.integers(4))]
        lip = 0.4 * skin * np.array([0.9, 0.7, 0.7]) + 0.6 * np.array(tint)
    seam = np.exp(-(((y + 74.2) / 1.3) ** 2))
    colors[where("lips")] = (lip * (1 - 0.45 * seam[:, None] * (ax < 24)[:, None]))[where("lips")]
    gloss[where("lips")] = 0.30 if attributes["makeup"] else 0.16
    colors[where("nostrils")] = skin * 0.22
    colors[where("ears")] *= (1.02, 0.90, 0.87)
    neck = where("neck")
    colors[neck] = skin * 0.97
    eye_x = ax - 31.5
    if attributes["makeup"]:
        lid = 0.45 * np.exp(-0.5 * ((eye_x / 13) ** 2 + ((y - 7) / 3.5) ** 2)) * (z > 40) * where("face")
        colors = colors * (1 - lid[:, None]) + lid[:, None] * skin * np.array([0.62, 0.5, 0.55])
    white = np.array([0.93, 0.91, 0.89]) * (1 - 0.22 * np.clip((np.abs(eye_x) - 7) / 7, 0, 1))[:, None]
    white *= 1 - 0.04 * np.abs(np.clip(eye_x / 12, -1, 1))[:, None] * np.array([0.0, 1.0, 1.0])
    colors[where("sclera")] = white[where("sclera")]
    iris = np.array(EYE_COLORS[attributes["eye_color"]])
    r, turn = np.hypot(eye_x, y), np.arctan2(y, eye_x)
    spokes = 1 + 0.12 * np.sin(turn * 9 + rng.uniform(0, 6)) + 0.08 * np.sin(turn * 15 + rng.uniform(0, 6))
    ring = (1.3 - 0.85 * smoothstep(r, 4.2, 5.8)) * spokes
    colors[where("iris")] = (iris * ring[:, None])[where("iris")]
    colors[where("pupil")] = 0.02
    gloss[where("iris") | where("pupil")] = 1.0
    gloss[where("sclera")] = 0.35
    colors[where("lashes")] = 0.05 if attributes["gender"] == "female" else hair * 0.35
    brow = hair * (0.6 if skin.mean() < 0.45 or attributes["hair_color"] in ("white", "grey") else 0.75)
    brow = np.clip(brow + (0.03 if attributes["hair_color"] not in ("white", "grey") else 0), 0, 0.5)
    colors[where("brows")] = 0.88 * brow + 0.12 * skin
    gloss[where("brows")] = 0
    tooth = np.array([0.93, 0.90, 0.83]) * (1 - 0.35 * np.clip(ax / 24, 0, 1) ** 1.5)[:, None]
    gap = 0.8 + 0.2 * np.clip(np.abs(np.sin(x / 23 * np.pi * 4)) * 3, 0, 1)
    colors[where("teeth")] = (tooth * gap[:, None])[where("teeth")]
    gloss[where("teeth")] = 0.25
    colors[where("tongue")] = (0.68, 0.34, 0.34)
    gloss[where("tongue")] = 0.2
    deep = np.clip((92 - z) / 40, 0, 1)
    mouth = np.array([0.42, 0.15, 0.15]) * (1 - 0.8 * deep)[:, None]
    colors[where("other-in-mouth")] = mouth[where("other-in-mouth")]
    if attributes["beard"] != "none":
        density = beard_density(attributes["beard"], x, y, z) * where("face")
        density *= rng.uniform(0.85, 1.0, len(xyz))
        strength = 0.5 if attributes["beard"] == "stubble" else 0.92
        blend = (strength * density)[:, None]
        colors = colors * (1 - blend) + blend * hair * 0.9
        labels[density > 0.4] = LABEL_INDEX["beard"]
        gloss = gloss * (1 - density)
        weight = np.where(labels == LABEL_INDEX["beard"], np.maximum(density, 0.3), weight)
    return np.clip(colors, 0, 1), gloss, labels, weight, skin, hair


def beard_density(kind: str, x, y, z):
    """Returns how thick a beard grows (N,), 0..1, at skin points (mm): stubble, full, goatee, moustache."""
    ax = np.abs(x)
    jaw = np.minimum(-46 - y + 0.45 * np.maximum(ax - 30, 0), 200) * (ax < 76)
    lip = np.where(ax < 32, np.where(y > -70, 7.5 - np.abs(y + 62.5), 10), 10)  # a moustache, then round the lips
    density = smoothstep(jaw, 0, 10) * smoothstep(lip, 0, 3) * (z > -5) * (y > -120)
    density *= 1 - np.exp(-(((ax / 12) ** 4) + ((y + 89) / 4) ** 4))  # the bare spot under the lower lip
    if kind == "goatee":
        density *= 1 - smoothstep(ax, 24, 34)
    elif kind == "moustache":
        density *= smoothstep(y, -74, -70) * (1 - smoothstep(ax, 24, 32))
    return density


def materials(labels: np.ndarray) -> np.ndarray:
    """Returns the material (V,) uint8 that goes with labels (V,)."""
    table = np.full(len(LABEL_INDEX), PLAIN, np.uint8)
    for name in ("face", "nose", "neck", "ears", "lips", "nostrils", "beard", "tongue"):
        table[LABEL_INDEX[name]] = SKIN
    for name in ("pupil", "iris", "sclera"):
        table[LABEL_INDEX[name]] = EYE
    table[LABEL_INDEX["hair"]] = HAIR
    for name in ("clothes", "headwear"):
        table[LABEL_INDEX[name]] = CLOTH
    return table[labels]


def texture_of(labels: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns which texture each triangle (F, 3) wears, (F,) uint8, by the classes (V,) of its corners."""
    table = np.full(len(LABEL_INDEX), NO_TEXTURE, np.uint8)
    for name in ("face", "nose", "neck", "ears"):
        table[LABEL_INDEX[name]] = SKIN_TEXTURE
    for name in ("beard", "brows"):
        table[LABEL_INDEX[name]] = BEARD_TEXTURE
    for name in ("hair", "lips"):
        table[LABEL_INDEX[name]] = HAIR_TEXTURE
    table[LABEL_INDEX["clothes"]] = CLOTH_TEXTURE
    return table[labels[faces[:, 0]]]


def texture_coordinates(xyz: np.ndarray, labels: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns texel coordinates (F, 3, 2) float32 (column, row) of triangle corners; points (V, 3) in mm at rest."""
    x, y, z = xyz.T
    way = np.where(y <= 40, y, 40 + 80 * np.arctan2(y - 40, np.hypot(x, z)))
    column = np.arctan2(x, z) / (2 * np.pi) * COLUMNS
    row = (_TOP - way) / (_TOP - _BOTTOM) * ROWS
    flat = np.isin(labels, _FLAT)
    column, row = np.where(flat, x / 0.5, column), np.where(flat, -100 - y, row)
    uv = np.stack([column, row], -1)[faces]
    # A triangle across the back of the head has corners at both ends of the texture: bring them together.
    away = uv[:, :, 0] - uv[:, :1, 0]
    around = ~flat[faces[:, 0]]
    uv[:, :, 0] -= np.where(around[:, None], np.round(away / COLUMNS) * COLUMNS, 0)
    return uv.astype(np.float32)


def textures(attributes: dict, rng: np.random.Generator) -> np.ndarray:
    """Draws a person's textures: (4, R, C) int32 in the order skin, beard, hair, cloth; red + 256 green + 65536 blue,
    where 128 leaves a colour as it is.
    """
    out = np.empty((4, ROWS, COLUMNS), np.int32)
    for k, draw in enumerate((_skin, _beard, _hair, _cloth)):
        red, green, blue = np.moveaxis(np.clip(128 * draw(attributes, rng), 0, 255).astype(np.int32), -1, 0)
        out[k] = red + (green << 8) + (blue << 16)
    return out


def _noise(rng, across, along, shrink=1):
    """Returns noise (R, C) float32 of unit deviation, smooth over ``across`` columns and ``along`` rows."""
    import cv2

    small = rng.standard_normal((ROWS // shrink, COLUMNS // shrink), dtype=np.float32)
    small = cv2.GaussianBlur(small, (0, 0), sigmaX=across / shrink, sigmaY=along / shrink)
    small /= small.std() + 1e-9
    return small if shrink == 1 else cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)


def _skin(attributes, rng):
    fine = _noise(rng, 1.3, 0.8)
    spots = _noise(rng, 9, 6, 4)
    blotch = _noise(rng, 30, 20, 8)
    grain = {"young": 0.035, "middle-aged": 0.05, "older": 0.065}[attributes["age"]] * rng.uniform(0.8, 1.2)
    tint = np.array([0.6, 1.2, 1.2], np.float32)
    out = 1 + grain * fine[..., None] + 0.018 * spots[..., None] * tint + 0.02 * blotch[..., None] * tint
    marks = []
    if attributes["freckles"]:
        angle, height = rng.normal(0, 24, 420), rng.normal(-22, 18, 420)
        marks += [
            (a, h, rng.uniform(0.6, 1.1), rng.uniform(0.05, 0.22), (0.6, 1.0, 1.2))
            for a, h in zip(angle, height, strict=True)
        ]
    for _ in range(int(rng.integers(0, 7)) + (14 if attributes["age"] == "older" else 0)):
        size, depth = rng.uniform(1.0, 2.4), rng.uniform(0.25, 0.6)
        marks.append((rng.uniform(-75, 75), rng.uniform(-150, 90), size, depth, (0.8, 1.0, 1.05)))
    for _ in range(int(rng.integers(0, 8)) if attributes["age"] == "young" else 0):
        marks.append(
            (rng.normal(0, 35), rng.normal(-25, 45), rng.uniform(1.5, 3), rng.uniform(0.06, 0.16), (0.0, 1.2, 1.0))
        )
    for angle, height, size, depth, color in marks:
        _dab(out, angle, height, size, -depth * np.array(color, np.float32))
    return out


def _dab(out, angle, height, size, change):
    """Multiplies a round spot of ``size`` mm at an angle (degrees) and height (mm) into a texture."""
    column, row = angle / 360 * COLUMNS, (_TOP - height) / (_TOP - _BOTTOM) * ROWS
    reach = int(3 * size / 0.5) + 1
    c, r = np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)
    columns, rows = (int(column) + c) % COLUMNS, np.clip(int(row) + r, 0, ROWS - 1)
    spot = np.exp(-0.5 * ((c * 0.5 / size) ** 2 + ((r * 0.83 / size) ** 2)[:, None]))
    out[rows[:, None], columns] *= 1 + spot[..., None] * change


def _beard(attributes, rng):
    bristle = _noise(rng, 0.9, 1.6) + 0.5 * _noise(rng, 4, 4, 2)
    depth = 0.28 if attributes["beard"] == "stubble" else 0.22
    return np.repeat((1 + depth * bristle)[..., None], 3, 2)


def _hair(attributes, rng):
    if attributes["hair_style"] in ("curly", "afro"):
        strands = 0.6 * _noise(rng, 3.0, 2.0) + 0.8 * _noise(rng, 8, 5, 4)
    else:
        strands = 0.7 * _noise(rng, 0.8, 30) + 0.5 * _noise(rng, 3, 45, 2) + 0.5 * _noise(rng, 12, 60, 4)
    return np.repeat((1 + 0.20 * strands)[..., None], 3, 2)


def _cloth(attributes, rng):
    row, column = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    x, y = column * 0.5, row  # millimetres
    weave = 0.04 * _noise(rng, 0.8, 0.6) + 0.025 * _noise(rng, 40, 25, 8)
    out = np.repeat((1 + weave)[..., None], 3, 2)
    kind, pitch = attributes["pattern"], rng.uniform(14, 34)
    tint = rng.uniform(0.35, 0.75) * (1 + rng.uniform(-0.25, 0.25, 3))
    if rng.random() < 0.4:
        tint = 1 / np.maximum(tint, 0.55)

    def soft(v, edge):
        return (0.5 + 0.5 * np.tanh(v / edge))[..., None]

    if kind == "heather":
        out *= 1 + 0.10 * _noise(rng, 1.6, 0.7)[..., None]
    elif kind == "striped":
        out *= 1 + (tint - 1) * soft(np.sin(y * 2 * np.pi / pitch) - rng.uniform(-0.4, 0.4), 0.15)
    elif kind == "fine stripes":
        out *= 1 + 0.6 * (tint - 1) * soft(np.sin(x * 2 * np.pi / 9) - 0.4, 0.3)
    elif kind == "checked":
        out *= 1 + 0.55 * (tint - 1) * soft(np.sin(y * 2 * np.pi / pitch), 0.2)
        out *= 1 + 0.55 * (tint - 1) * soft(np.sin(x * 2 * np.pi / pitch), 0.2)
    elif kind == "dotted":
        odd = (np.floor(y / pitch) % 2) * pitch / 2
        u, v = (x + odd) % pitch - pitch / 2, y % pitch - pitch / 2
        out *= 1 + (tint - 1) * soft(0.22 * pitch - np.hypot(u, v), 0.8)
    return out
