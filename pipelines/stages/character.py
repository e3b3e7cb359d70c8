"""A person for the embedded corpus: identity, colours, hair, clothes and extras as one mesh that rides on the face model.

A character is drawn from a random generator. Its mesh is the face model's vertices followed by extra vertices (hair, torso, glasses, ...);
extras are placed on the person's own head (identity applied) and do not move with expressions. Array letters: V all vertices, F triangles.
"""

import dataclasses

import numpy as np

from models.face.model import FaceModel, deform
from models.face.surface import profile, skin_points, smoothstep
from models.labels import LABEL_INDEX

SKIN_TONES = {
    "pale": (0.93, 0.76, 0.68),
    "fair": (0.88, 0.69, 0.58),
    "light olive": (0.80, 0.61, 0.48),
    "tan": (0.71, 0.52, 0.39),
    "brown": (0.54, 0.37, 0.27),
    "dark brown": (0.42, 0.285, 0.215),
}
HAIR_COLORS = {
    "black": (0.07, 0.06, 0.06),
    "dark brown": (0.17, 0.11, 0.08),
    "brown": (0.31, 0.19, 0.11),
    "auburn": (0.42, 0.17, 0.09),
    "blond": (0.72, 0.55, 0.29),
    "grey": (0.55, 0.54, 0.53),
    "white": (0.82, 0.81, 0.79),
}
EYE_COLORS = {
    "brown": (0.30, 0.17, 0.08),
    "dark brown": (0.17, 0.10, 0.06),
    "blue": (0.26, 0.44, 0.66),
    "green": (0.28, 0.42, 0.24),
    "grey": (0.42, 0.47, 0.50),
}
CLOTHES_COLORS = {
    "red": (0.62, 0.12, 0.12),
    "navy": (0.10, 0.14, 0.30),
    "white": (0.86, 0.86, 0.84),
    "black": (0.09, 0.09, 0.10),
    "green": (0.15, 0.36, 0.21),
    "grey": (0.45, 0.46, 0.48),
    "yellow": (0.83, 0.66, 0.20),
    "teal": (0.12, 0.42, 0.45),
    "purple": (0.35, 0.19, 0.42),
    "orange": (0.80, 0.41, 0.15),
}
HAIR_STYLES = {
    "female": ("long", "bob", "bun", "short", "curly", "long", "bob"),
    "male": ("short", "buzz", "receding", "curly", "short", "medium", "short", "bald"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Character:
    """A person ready to be rendered.

    Attributes: shape (Ns,) float32; vertices (V, 3) float32 metres at rest, identity applied, the first ``base`` of them the face model's;
    faces (F, 3) int32; colors (V, 3) float32 albedo; gloss (V,) float32; labels (V,) uint8; follow (V,) float32: 1 moves with the head, 0
    stays with the torso; two_sided (F,) uint8: 1 for sheets that may show their back; base: the face model's vertex count; attributes: what a description would say.
    """

    shape: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    gloss: np.ndarray
    labels: np.ndarray
    follow: np.ndarray
    two_sided: np.ndarray
    base: int
    attributes: dict


def _pick(rng, table):
    names = list(table)
    return names[int(rng.integers(len(names)))]


def draw_attributes(rng: np.random.Generator) -> dict:
    """Returns the description attributes of a new person."""
    gender = ("female", "male")[int(rng.integers(2))]
    tone = _pick(rng, SKIN_TONES)
    hair_colors = ("black", "dark brown") if tone in ("brown", "dark brown") else tuple(HAIR_COLORS)
    styles = HAIR_STYLES[gender]
    age = ("young", "middle-aged", "older")[int(rng.choice(3, p=[0.45, 0.4, 0.15]))]
    hair_color = hair_colors[int(rng.integers(len(hair_colors)))]
    if age == "older" and rng.random() < 0.8:
        hair_color = ("grey", "white")[int(rng.integers(2))]
    elif age == "young" and hair_color in ("grey", "white"):
        hair_color = "brown"
    style = styles[int(rng.integers(len(styles)))]
    headwear = "none" if rng.random() > 0.1 or style in ("bun", "curly") else "beanie"
    return {
        "gender": gender,
        "age": age,
        "skin": tone,
        "hair_style": style,
        "hair_color": hair_color,
        "eye_color": _pick(rng, EYE_COLORS)
        if tone not in ("brown", "dark brown")
        else ("brown", "dark brown")[int(rng.integers(2))],
        "clothes": ("crew neck", "v-neck", "turtleneck")[int(rng.integers(3))],
        "clothes_color": _pick(rng, CLOTHES_COLORS),
        "beard": ("none", "none", "stubble", "full")[int(rng.integers(4))] if gender == "male" else "none",
        "glasses": ("none", "none", "none", "round", "rectangular")[int(rng.integers(5))],
        "headwear": headwear,
        "earrings": bool(gender == "female" and rng.random() < 0.5),
    }


def draw_shape(model: FaceModel, attributes: dict, rng: np.random.Generator) -> np.ndarray:
    """Returns identity coefficients (Ns,) float32, N(0, 0.8) within +-2, leaning to what the gender makes likely."""
    shape = np.clip(rng.normal(0, 0.8, model.num_shape), -2, 2)
    lean = {
        "jaw_width": 0.6,
        "chin_width": 0.5,
        "brow_ridge": 0.8,
        "nose_length": 0.3,
        "neck_width": 0.9,
        "face_height": 0.3,
        "upper_lip": -0.4,
    }
    lean |= {"lower_lip": -0.4, "eye_opening": -0.5, "brow_height": -0.4, "nose_width": 0.3}
    sign = 1 if attributes["gender"] == "male" else -1
    for name, amount in lean.items():
        shape[model.shape_names.index(name)] += sign * amount
    for name in ("mouth_slant", "eye_slant", "jaw_side"):
        shape[model.shape_names.index(name)] *= 0.5
    return np.clip(shape, -2.2, 2.2).astype(np.float32)


def _sphere(rows, columns):
    """Returns unit directions of a sphere grid (rows from +y to -y, columns round y) and its triangles."""
    polar = np.linspace(0.02, np.pi - 0.02, rows)
    turn = np.linspace(0, 2 * np.pi, columns + 1)[:-1]
    a, b = np.meshgrid(polar, turn, indexing="ij")
    directions = np.stack([np.sin(a) * np.sin(b), np.cos(a), np.sin(a) * np.cos(b)], -1).reshape(-1, 3)
    return directions, _grid(rows, columns, True)


def _grid(rows, columns, wrap):
    from models.face.procedural import grid_faces

    return grid_faces(rows, columns, wrap)


def _outward(points, rows, columns):
    """Returns unit normals of a wrapped rows x columns grid of points (mm)."""
    p = points.reshape(rows, columns, 3)
    across = np.roll(p, -1, 1) - np.roll(p, 1, 1)
    down = np.gradient(p, axis=0)
    normal = np.cross(down, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    return normal.reshape(-1, 3)


def _streaks(rng, angle, height, strength, count=90):
    """Returns brightness factors (N,) that look like strands: stripes in ``angle`` that waver slowly with ``height``."""
    table = rng.normal(0, 1, (6, count))
    at = (angle / (2 * np.pi) % 1) * count
    row = np.clip((height + 200) / 320 * 5, 0, 4.999)
    i, j = row.astype(int), at.astype(int) % count
    f = row - i
    return 1 + strength * np.clip(table[i, j] * (1 - f) + table[i + 1, j] * f, -1.8, 1.8)


class _Extras:
    def __init__(self):
        self.parts, self.count = [], 0

    def add(self, xyz, faces, color, label, gloss=0.05, follow=1.0, attach=True, two_sided=0):
        n = len(xyz)
        labels = np.broadcast_to(np.asarray(LABEL_INDEX[label] if isinstance(label, str) else label, np.uint8), (n,))
        color = np.broadcast_to(np.asarray(color, np.float64), (n, 3))
        values = (np.asarray(xyz), color, labels, np.full(n, gloss), np.broadcast_to(follow, (n,)), np.full(n, attach))
        self.parts.append((*values, faces + self.count, np.full(len(faces), two_sided, np.uint8)))
        self.count += n

    def arrays(self):
        return [np.concatenate(x) for x in zip(*self.parts, strict=True)]


def _hair_field(style, x, y, z, front):
    """Returns millimetres into the hair region (negative outside) at skin points."""
    ax = np.abs(x)
    line = {"receding": 88.0, "bald": 140.0, "buzz": 62.0, "short": 60.0, "curly": 58.0, "bun": 66.0}.get(style, 62.0)
    line = line - 0.006 * ax**2 * (2.2 if style == "receding" else 1.0)
    line = line + (26 * np.exp(-(((ax - 34) / 16) ** 2)) if style == "receding" else 0)
    over_front = y - line
    # At the sides the hair comes down in front of the ear to the sideburn, and behind it to the nape.
    side = np.minimum(ax - 61, np.where(z > 12, y - 2, y + 56))
    back = np.minimum(-z + 14, y + 58)
    field = np.maximum(over_front, np.maximum(np.minimum(side, 40 - z), back))
    if style == "bald":
        field = np.minimum(np.maximum(side, back), 42 - y)
        field = np.minimum(field, 34 - z)
    return field


def _hair(extras, attributes, color, rng):
    style = attributes["hair_style"]
    rows, columns = 74, 110
    directions, faces = _sphere(rows, columns)
    skin = skin_points(directions)
    normal = _outward(skin, rows, columns)
    x, y, z = skin.T
    angle = np.arctan2(x, z)
    field = _hair_field(style, x, y, z, directions[:, 2] > 0)
    thickness = {
        "buzz": 2.0,
        "bald": 2.0,
        "receding": 5.0,
        "short": 9.0,
        "medium": 14.0,
        "curly": 24.0,
        "bun": 7.0,
    }.get(style, 11.0)
    ramp = {"curly": 14.0, "buzz": 8.0, "bald": 10.0}.get(style, 12.0)
    rise = np.sqrt(np.clip(field / ramp, 0, 1)) * (0.75 + 0.25 * smoothstep(y, 20, 90))
    out = np.where(field > 0, 0.6 + thickness * rise, -6.0 * np.clip(-field / 4, 0, 1))
    if style == "curly":
        waves = np.sin(angle * 13 + 1.7 * np.sin(y / 9)) * np.sin(y / 7.0 + 2 * np.sin(angle * 5))
        out = out + np.where(field > 3, 3.0 * waves, 0)
    if style in ("short", "medium"):
        part = rng.uniform(-30, 30)
        out = out + np.where(
            field > 0, 5.0 * smoothstep(z, 10, 70) * smoothstep(y, 55, 80) * (0.6 + 0.4 * np.tanh((x - part) / 20)), 0
        )
    points = skin + normal * out[:, None]
    keep = field > -9
    used = keep[faces].all(1)
    shade = _streaks(rng, angle, y, 0.16 if style != "buzz" else 0.05) * (0.8 + 0.25 * smoothstep(y, -60, 100))
    tint = np.clip(color * shade[:, None], 0, 1)
    gloss = 0.03 if style in ("buzz", "curly") else 0.10
    extras.add(points, faces[used], tint, "hair", gloss)
    if style in ("long", "bob", "medium"):
        bottom = {"long": rng.uniform(-215, -170), "bob": rng.uniform(-105, -85), "medium": -72.0}[style]
        _curtain(extras, color, bottom, rng, opening={"long": 62, "bob": 60, "medium": 86}[style])
    if style == "bun":
        directions, faces = _sphere(24, 36)
        angle = np.arctan2(directions[:, 0], directions[:, 2])
        bun = directions * [34, 28, 32] + [0, 112, -52]
        extras.add(
            bun,
            faces,
            np.clip(color * _streaks(rng, angle + directions[:, 1] * 2, bun[:, 1], 0.14, 40)[:, None], 0, 1),
            "hair",
            gloss,
        )


def _curtain(extras, color, bottom, rng, opening):
    """Adds hair that hangs from the sides and back of the head down to ``bottom`` (mm); ``opening``: half angle of the face, degrees."""
    rows, columns = 34, 96
    turn = np.radians(np.linspace(opening, 360 - opening, columns))
    top = 84.0
    heights = top + (bottom - top) * np.linspace(0, 1, rows)
    y, angle = np.meshgrid(heights, turn, indexing="ij")
    # Down to the ears the hair lies on the skull, below it hangs straight, a little wider.
    on = np.maximum(y, -8.0)
    w, zc, zf, zb = (v.reshape(y.shape) for v in profile(on.ravel()))
    fall = smoothstep(-y, 5, 120)
    half = w + 13 + 5 * fall
    depth = np.where(np.cos(angle) > 0, zf - zc, zc - zb) + 8
    x = half * np.sin(angle)
    z = zc + np.where(np.cos(angle) > 0, depth * np.cos(angle) * 0.75, depth * np.cos(angle) * (1 - 0.25 * fall))
    edge = np.radians(opening)
    near_edge = np.minimum(angle - edge, 2 * np.pi - edge - angle)
    tuck = np.exp(-near_edge / 0.12)
    x = x * (1 - 0.05 * tuck) + 1.5 * np.sin(angle * 23) * fall
    z = z - 6 * tuck * fall
    ragged = rng.normal(0, 1, columns)
    y = y + np.linspace(0, 1, rows)[:, None] ** 4 * (6 * np.convolve(ragged, np.ones(5) / 5, "same"))
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    shade = _streaks(rng, angle.ravel(), y.ravel(), 0.17) * (0.72 + 0.28 * smoothstep(y.ravel(), -180, 60))
    follow = 1 - 0.75 * smoothstep(-y.ravel(), 95, 200)
    extras.add(
        points, _grid(rows, columns, False), np.clip(color * shade[:, None], 0, 1), "hair", 0.10, follow, two_sided=1
    )


def _torso(extras, attributes, skin, color, rng):
    heights = np.array(
        [-118, -128, -138, -146, -153, -160, -167, -174, -181, -188, -196, -206, -220, -245, -290, -350, -430.0]
    )
    half = np.interp(-heights, [118, 138, 153, 167, 181, 196, 220, 260, 430], [36, 45, 64, 96, 134, 166, 190, 204, 214])
    deep = np.interp(-heights, [118, 138, 153, 181, 220, 430], [34, 42, 58, 74, 92, 118])
    back = np.interp(-heights, [118, 160, 220, 430], [-21, -28, -34, -34])
    wide = 1.05 if attributes["gender"] == "male" else 0.90
    wide *= rng.uniform(0.95, 1.05)
    half = np.where(heights < -146, half * wide, half)
    turn = np.linspace(0, 2 * np.pi, 73)[:-1]
    dense = np.interp(np.linspace(0, len(heights) - 1, 60), np.arange(len(heights)), heights)
    half, deep, back = (np.interp(-dense, -heights, v) for v in (half, deep, back))
    front = np.cos(turn)
    kind = attributes["clothes"]
    collar = {"crew neck": -152.0, "v-neck": -148.0, "turtleneck": -114.0}[kind] - np.where(front > 0, 14 * front**3, 0)
    if kind == "v-neck":
        collar = collar - np.where(front > 0, 62 * np.clip(1 - np.abs(np.sin(turn)) / 0.42, 0, 1), 0)

    def body(y, out):
        """Returns torso points at heights y (rows, 72), ``out`` mm off the skin."""
        w, d, c = (np.interp(-y, -dense, v) for v in (half, deep, back))
        x = (w + out) * np.sin(turn)
        return np.stack([x, y, c + (d + out) * np.sign(front) * np.abs(front) ** 0.8], -1)

    skin_y = np.repeat(np.linspace(-116, -245 if kind == "v-neck" else -190, 44)[:, None], 72, 1)
    bare = body(skin_y, 0.0).reshape(-1, 3)
    shadow = 1 - 0.12 * np.exp(-(((skin_y - collar) / 5.0) ** 2))
    tone = (skin * 0.94 * shadow[..., None]).reshape(-1, 3)
    extras.add(bare, _grid(44, 72, True), tone, "neck", 0.04, _follow(bare[:, 1]), attach=False)
    # Cloth starts at the collar, so that its edge is smooth: rows lie between the collar and the frame's bottom.
    below = 320.0 * np.linspace(0, 1, 90)[:, None] ** 1.6 + 0 * turn
    y = -160 - below + (collar + 160) * np.exp(-below / 90)  # the collar's shape fades downward
    points = body(y, 2.2 + 1.2 * np.exp(-below / 4)).reshape(-1, 3)
    x = points[:, 0].reshape(y.shape)
    folds = 1 + 0.05 * np.sin(x / 17 + y / 23 + rng.uniform(0, 6)) + 0.03 * np.sin(x / 7 - y / 11)
    seam = 1 - 0.30 * np.exp(-((below / 2.0) ** 2)) - 0.18 * np.exp(-(((below - 13) / 2.5) ** 2))
    tint = color * (folds * seam)[..., None]
    stripes = rng.random() < 0.25
    if stripes:
        dark = (0.5 + 0.5 * np.tanh(4 * np.sin(y / rng.uniform(5, 9)))) * smoothstep(below, 50, 60)
        tint = tint * (1 - 0.45 * dark[..., None]) + 0.05 * dark[..., None]
    extras.add(points, _grid(90, 72, True), tint.reshape(-1, 3), "clothes", 0.015, _follow(points[:, 1]), attach=False)
    return {"pattern": "striped" if stripes else "plain"}


def _follow(y):
    """Returns how much neck and torso points at height y (mm) move with the head: 1 above the chin's height, 0 at the collar."""
    return 1 - smoothstep(-y, 95, 165)


def _beanie(extras, color, rng):
    rows, columns = 56, 110
    directions, faces = _sphere(rows, columns)
    skin = skin_points(directions)
    normal = _outward(skin, rows, columns)
    x, y, z = skin.T
    field = y - (46 - 0.12 * (90 - np.maximum(z, -60)) * 0.5)
    cuff = (field > -1) & (field < 26)
    out = np.where(field > -1, np.where(cuff, 17.0, 14.5), -8) + np.where(y > 90, 4, 0)
    ribs = 1 + 0.10 * np.sin(np.arctan2(x, z) * 60)
    tint = np.clip(color * ribs[:, None] * np.where(cuff, 0.85, 1.0)[:, None], 0, 1)
    keep = (field > -8)[faces].all(1)
    extras.add(skin + normal * out[:, None], faces[keep], tint, "headwear", 0.01)


def _glasses(extras, model, vertices, kind, color):
    """Adds a frame of two rims, a bridge and two temples (tubes of square section) in front of the person's own eyes (vertices in mm)."""
    eyes = {1: vertices[model.landmarks68[42:48]].mean(0), -1: vertices[model.landmarks68[36:42]].mean(0)}
    nose = vertices[model.landmarks68[27]]
    depth = max(eyes[1][2], nose[2] - 2) + 9.0
    power = 2.0 if kind == "round" else 5.0
    size = (23.0, 20.0) if kind == "round" else (26.0, 17.0)
    for sign, eye in eyes.items():
        turn = np.linspace(0, 2 * np.pi, 65)[:-1]
        c, s = np.cos(turn), np.sin(turn)
        radius = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
        rim = np.stack(
            [
                eye[0] + sign * 1.5 + size[0] * radius * c,
                eye[1] - 2 + size[1] * radius * s,
                np.full(64, depth) - 0.004 * (size[0] * radius * c + eye[0]) ** 2,
            ],
            -1,
        )
        _tube(extras, rim, 1.5, color, True)
        hinge = np.array([eye[0] + sign * (size[0] + 2), eye[1] + 4, depth - 0.004 * (eye[0] + sign * size[0]) ** 2])
        ear = np.array([sign * (np.abs(vertices[:, 0]).max() * 0.0 + 79), eye[1] + 8, -8.0])
        _tube(extras, hinge + np.linspace(0, 1, 12)[:, None] * (ear - hinge), 1.4, color, False)
    inner = eyes[1][0] - size[0] + 1.5
    bridge = np.linspace(-inner, inner, 9)
    middle = (eyes[1] + eyes[-1]) / 2
    line = np.stack(
        [
            middle[0] + bridge,
            middle[1] + 2 + 2.5 * (1 - (bridge / max(inner, 1e-3)) ** 2),
            np.full(9, depth) + 1.5 * (1 - (bridge / max(inner, 1e-3)) ** 2),
        ],
        -1,
    )
    _tube(extras, line, 1.5, color, False)


def _tube(extras, line, radius, color, closed):
    ahead = np.roll(line, -1, 0) - np.roll(line, 1, 0) if closed else np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    up = (
        np.where(np.abs(ahead[:, 1:2]) > 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
        if not closed
        else np.tile([[0, 0, 1.0]], (len(line), 1))
    )
    a = np.cross(ahead, up)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    b = np.cross(ahead, a)
    turn = np.linspace(0, 2 * np.pi, 7)[:-1]
    rings = line[:, None] + radius * (
        np.cos(turn)[None, :, None] * a[:, None] + np.sin(turn)[None, :, None] * b[:, None]
    )
    if closed:
        rings = np.concatenate([rings, rings[:1]])
    extras.add(
        rings.reshape(-1, 3), _grid(len(rings), 6, True)[:, ::-1], color, "glasses", 0.25, attach=False, two_sided=1
    )


def _paint_face(model, attributes, shape, rng):
    """Returns albedo, gloss and labels of the face model's vertices."""
    xyz = model.vertices * 1000.0
    x, y, z = xyz.T
    skin = np.array(SKIN_TONES[attributes["skin"]]) * rng.uniform(0.95, 1.05)
    hair = np.array(HAIR_COLORS[attributes["hair_color"]]) * rng.uniform(0.9, 1.1)
    labels = model.labels.copy()
    light = skin.mean()
    colors = np.tile(skin, (len(xyz), 1))

    def bump(cx, cy, sx, sy):
        return np.exp(-0.5 * (((np.abs(x) - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)) * (z > 20)

    red = 0.10 * bump(42, -36, 14, 13) + 0.10 * bump(0, -38, 13, 8) + 0.05 * bump(0, -104, 14, 8)
    colors *= 1 + red[:, None] * np.array([0.35, -0.9, -0.8])
    # Baked shadow: sockets, beside and under the nose, under the lip; detectors and eyes read faces by these.
    shadow = (
        0.34 * bump(29, 8, 13, 5)
        + 0.26 * bump(17, 2, 4.5, 7)
        + 0.14 * bump(32, -9, 13, 4)
        + 0.30 * bump(16.5, -46, 4, 4.5)
    )
    shadow += (
        0.28 * bump(0, -52.5, 11, 2.5)
        + 0.18 * bump(0, -91, 14, 3.5)
        + 0.12 * bump(27, -58, 4, 10)
        + 0.10 * bump(28, -74.5, 4, 4)
    )
    if attributes["age"] == "older":
        shadow += 0.16 * bump(31, -14, 12, 2.0) + 0.18 * bump(25, -60, 2.2, 12)
        for k, line in enumerate((50, 60, 70)):
            shadow += (
                (0.12 - 0.02 * k) * np.exp(-0.5 * ((y - line - 0.002 * x**2) / 1.8) ** 2) * (np.abs(x) < 42) * (z > 40)
            )
    colors *= 1 - np.clip(shadow, 0, 0.6)[:, None]
    gloss = np.full(len(xyz), 0.06) + 0.10 * bump(0, -34, 5, 6) + 0.05 * bump(0, 60, 30, 20)

    def where(name):
        return labels == LABEL_INDEX[name]

    makeup = attributes["gender"] == "female" and rng.random() < 0.6
    lip = skin * (0.86, 0.58, 0.56) if not makeup else 0.35 * skin + 0.65 * np.array([0.68, 0.16, 0.20])
    seam = np.exp(-(((y + 74.2) / 1.3) ** 2))
    colors[where("lips")] = (lip * (1 - 0.5 * seam[:, None] * (np.abs(x) < 24)[:, None]))[where("lips")]
    gloss[where("lips")] = 0.16 if makeup else 0.10
    colors[where("nostrils")] = skin * 0.16
    colors[where("ears")] *= (1.0, 0.90, 0.88)
    neck = where("neck")
    colors[neck] = skin * 0.93
    chin_shadow = 0.45 * smoothstep(y, -150, -108) * smoothstep(z, -40, 10)
    colors[neck] *= (1 - chin_shadow[:, None])[neck]
    eye_x = np.abs(x) - 31.5
    up = np.clip(y / 6, -1, 1)
    white = (
        np.array([0.90, 0.88, 0.86])
        * (1 - 0.22 * np.clip(up, 0, 1) - 0.3 * np.clip((np.abs(eye_x) - 7) / 7, 0, 1))[:, None]
    )
    colors[where("sclera")] = white[where("sclera")]
    iris = np.array(EYE_COLORS[attributes["eye_color"]])
    r = np.hypot(eye_x, y)
    ring = 1.25 - 0.75 * smoothstep(r, 4.2, 5.8)
    colors[where("iris")] = (iris * ring[:, None])[where("iris")]
    colors[where("pupil")] = 0.02
    gloss[where("iris") | where("pupil")] = 0.9
    gloss[where("sclera")] = 0.2
    colors[where("lashes")] = 0.06 if attributes["gender"] == "female" else hair * 0.35
    brow = 0.75 * hair + 0.05 if light > 0.4 else hair * 0.6
    if attributes["hair_color"] in ("white", "grey"):
        brow = hair * 0.6
    colors[where("brows")] = 0.88 * brow + 0.12 * skin
    gloss[where("brows")] = 0
    tooth = np.array([0.90, 0.87, 0.79]) * (1 - 0.45 * np.clip(np.abs(x) / 24, 0, 1) ** 1.5)[:, None]
    gap = 0.75 + 0.25 * np.clip(np.abs(np.sin(x / 23 * np.pi * 4 / 1.0)) * 3, 0, 1)
    colors[where("teeth")] = (tooth * gap[:, None])[where("teeth")]
    gloss[where("teeth")] = 0.2
    colors[where("tongue")] = (0.62, 0.27, 0.27)
    deep = np.clip((92 - z) / 40, 0, 1)
    mouth = np.array([0.30, 0.08, 0.08]) * (1 - 0.85 * deep)[:, None]
    colors[where("other-in-mouth")] = mouth[where("other-in-mouth")]
    if attributes["beard"] != "none":
        ax = np.abs(x)
        face = where("face")
        jaw = np.minimum(-46 - y + 0.45 * np.maximum(ax - 30, 0), 200) * (ax < 74)
        cheek = np.where(
            ax < 32, np.where(y > -66, 1 - ((np.abs(y + 59.5)) / 4.5), 1), 1
        )  # moustache, then the gap beside the lips
        region = (jaw > 0) & (cheek > 0) & (z > -5) & (y > -118) & face
        region &= ~((ax < 14) & (y > -92) & (y < -86))
        density = (0.85 if attributes["beard"] == "full" else 0.42) * smoothstep(jaw, 0, 10) * region
        density *= rng.uniform(0.75, 1.0, len(xyz))
        colors = colors * (1 - density[:, None]) + density[:, None] * hair * 0.85
        labels[region & (density > 0.25)] = LABEL_INDEX["beard"]
        gloss = gloss * (1 - density)
    return np.clip(colors, 0, 1), gloss, labels, skin, hair


def build_character(model: FaceModel, rng: np.random.Generator) -> Character:
    """Draws a person: the same generator state gives the same person.

    Raises:
      ValueError: ``model`` has no names for its identity directions (only the procedural head can be dressed).
    """
    if not model.shape_names:
        raise ValueError(
            f"face model {model.name} has no named identity directions; characters need the procedural head"
        )
    attributes = draw_attributes(rng)
    shape = draw_shape(model, attributes, rng)
    colors, gloss, labels, skin, hair = _paint_face(model, attributes, shape, rng)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    extras = _Extras()
    attributes |= _torso(extras, attributes, skin, np.array(CLOTHES_COLORS[attributes["clothes_color"]]), rng)
    _hair(extras, attributes, hair, rng)
    if attributes["headwear"] == "beanie":
        _beanie(extras, np.array(CLOTHES_COLORS[_pick(rng, CLOTHES_COLORS)]), rng)
    if attributes["glasses"] != "none":
        _glasses(
            extras, model, person * 1000.0, attributes["glasses"], np.array([0.06, 0.05, 0.05]) * rng.uniform(0.6, 3.0)
        )
    if attributes["earrings"] and attributes["hair_style"] in ("bun", "short"):
        directions, faces = _sphere(8, 12)
        for sign in (1, -1):
            extras.add(directions * 3.5 + [sign * 78, -46, -6], faces, (0.85, 0.68, 0.25), "accessory", 0.6)
    else:
        attributes["earrings"] = False
    xyz, tint, label, shine, follow, attach, faces, two_sided = extras.arrays()
    xyz = xyz + attach[:, None] * _identity_motion(model, person, xyz)
    neck = model.labels == LABEL_INDEX["neck"]
    follow_face = np.where(neck, _follow(person[:, 1] * 1000), 1.0)
    count = len(model.vertices)
    return Character(
        shape=shape,
        vertices=np.concatenate([person, xyz / 1000]).astype(np.float32),
        faces=np.concatenate([model.faces, faces + count]).astype(np.int32),
        colors=np.concatenate([colors, tint]).astype(np.float32),
        gloss=np.concatenate([gloss, shine]).astype(np.float32),
        labels=np.concatenate([labels, label]).astype(np.uint8),
        follow=np.concatenate([follow_face, follow]).astype(np.float32),
        two_sided=np.concatenate([_face_sides(model), two_sided]),
        base=count,
        attributes=attributes,
    )


def _face_sides(model):
    """Returns which triangles of the face model are sheets (F,) uint8: teeth, lashes and brows; the rest is a closed surface."""
    sheets = np.isin(model.labels, [LABEL_INDEX[n] for n in ("teeth", "lashes", "brows", "other-in-mouth")])
    return sheets[model.faces].any(1).astype(np.uint8)


def _identity_motion(model, person, xyz):
    """Returns how far (mm) the identity has moved the skin near each extra vertex: hair keeps its distance to every head."""
    from scipy.spatial import cKDTree

    skin = np.isin(model.labels, [LABEL_INDEX[n] for n in ("face", "ears", "neck")])
    rest = model.vertices[skin] * 1000.0
    moved = person[skin] * 1000.0 - rest
    distance, near = cKDTree(rest).query(xyz, k=8)
    weight = 1 / (distance + 4.0)
    weight /= weight.sum(1, keepdims=True)
    return (moved[near] * weight[..., None]).sum(1)
