"""What the procedural head wears: hair, shoulders with clothes, headwear and glasses as meshes round it.

Everything is in millimetres in the face model's axes, laid round the mean head's skin; who dresses a person moves it
with the person's identity.
"""

import numpy as np

from models.face.model import landmarks68
from models.face.procedural import grid_faces
from models.face.rig import follow_head
from models.face.surface import profile, skin_points, smoothstep
from models.labels import LABEL_INDEX

HAIR_STYLES = ("bald", "bob", "bun", "buzz", "curly", "long", "medium", "receding", "short")


def sphere(rows, columns):
    """Returns unit directions of a sphere grid (rows from +y to -y, columns round y) and its triangles."""
    polar = np.linspace(0.02, np.pi - 0.02, rows)
    turn = np.linspace(0, 2 * np.pi, columns + 1)[:-1]
    a, b = np.meshgrid(polar, turn, indexing="ij")
    directions = np.stack([np.sin(a) * np.sin(b), np.cos(a), np.sin(a) * np.cos(b)], -1).reshape(-1, 3)
    return directions, grid_faces(rows, columns, True)


def _outward(points, rows, columns):
    """Returns unit normals of a wrapped rows x columns grid of points (mm)."""
    p = points.reshape(rows, columns, 3)
    across = np.roll(p, -1, 1) - np.roll(p, 1, 1)
    down = np.gradient(p, axis=0)
    normal = np.cross(down, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    return normal.reshape(-1, 3)


def _streaks(rng, angle, height, strength, count=90):
    """Returns brightness factors (N,) that look like strands: stripes in ``angle`` that waver with ``height``."""
    table = rng.normal(0, 1, (6, count))
    at = (angle / (2 * np.pi) % 1) * count
    row = np.clip((height + 200) / 320 * 5, 0, 4.999)
    i, j = row.astype(int), at.astype(int) % count
    f = row - i
    return 1 + strength * np.clip(table[i, j] * (1 - f) + table[i + 1, j] * f, -1.8, 1.8)


class Extras:
    """Meshes collected one after another."""

    def __init__(self):
        self.parts, self.count = [], 0

    def add(self, xyz, faces, color, label, gloss=0.05, follow=1.0, attach=True, two_sided=0):
        """Adds a mesh.

        Args:
          xyz: (N, 3) millimetres.
          faces: (F, 3) ids into ``xyz``.
          color: (3,) or (N, 3) albedo.
          label: a label's name, or (N,) classes.
          gloss: strength of the highlight.
          follow: scalar or (N,), 1 moves with the head, 0 stays with the torso.
          attach: whether the person's identity moves it with the skin beneath.
          two_sided: 1 for sheets that may show their back.
        """
        n = len(xyz)
        labels = np.broadcast_to(np.asarray(LABEL_INDEX[label] if isinstance(label, str) else label, np.uint8), (n,))
        color = np.broadcast_to(np.asarray(color, np.float64), (n, 3))
        values = (np.asarray(xyz), color, labels, np.full(n, gloss), np.broadcast_to(follow, (n,)), np.full(n, attach))
        self.parts.append((*values, faces + self.count, np.full(len(faces), two_sided, np.uint8)))
        self.count += n

    def arrays(self):
        """Returns xyz, color, label, gloss, follow, attach, faces, two_sided of all meshes together."""
        return [np.concatenate(x) for x in zip(*self.parts, strict=True)]


def _hair_field(style, x, y, z, front):
    """Returns millimetres into the hair region (negative outside) at skin points."""
    ax = np.abs(x)
    line = {"receding": 90.0, "bald": 140.0, "buzz": 72.0, "short": 72.0, "curly": 66.0, "bun": 72.0}.get(style, 64.0)
    line = line - 0.006 * ax**2 * (2.2 if style == "receding" else 1.0)
    line = line + 1.6 * np.sin(0.33 * x + 0.7) + 1.1 * np.sin(0.81 * x) + 0.8 * np.sin(1.7 * x + 2)  # no ruled edge
    line = line + (26 * np.exp(-(((ax - 34) / 16) ** 2)) if style == "receding" else 0)
    over_front = y - line
    # At the sides the hair ends above the ear, with a sideburn in front of it, and goes down to the nape behind it.
    burn = np.minimum(y + 24, 5 - np.abs(z - 16))
    side = np.minimum(ax - 61, np.where(z > -22, np.maximum(y - 4, burn), y + 56))
    back = np.minimum(-z - 20, y + 58)
    field = np.maximum(over_front, np.maximum(np.minimum(side, 40 - z), back))
    if style == "bald":
        field = np.minimum(np.maximum(side, back), 42 - y)
        field = np.minimum(field, 34 - z)
    return field


def add_hair(extras, attributes, color, rng):
    style = attributes["hair_style"]
    rows, columns = 74, 110
    directions, faces = sphere(rows, columns)
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
        directions, faces = sphere(24, 36)
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
    """Adds hair that hangs from the sides and back of the head down to ``bottom`` (mm); ``opening``: half angle of the
    face, degrees.
    """
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
        points,
        grid_faces(rows, columns, False),
        np.clip(color * shade[:, None], 0, 1),
        "hair",
        0.10,
        follow,
        two_sided=1,
    )


def add_torso(extras, attributes, skin, color, rng):
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
    extras.add(bare, grid_faces(44, 72, True), tone, "neck", 0.04, follow_head(bare[:, 1]), attach=False)
    # Cloth starts at the collar, so that its edge is smooth: rows lie between the collar and the frame's bottom.
    below = 320.0 * np.linspace(0, 1, 90)[:, None] ** 1.6 + 0 * turn
    y = -160 - below + (collar + 160) * np.exp(-below / 90)  # the collar's shape fades downward
    points = body(y, 2.2 + 1.2 * np.exp(-below / 4)).reshape(-1, 3)
    x = points[:, 0].reshape(y.shape)
    folds = 1 + 0.05 * np.sin(x / 17 + y / 23 + rng.uniform(0, 6)) + 0.03 * np.sin(x / 7 - y / 11)
    seam = 1 - 0.30 * np.exp(-((below / 2.0) ** 2)) - 0.18 * np.exp(-(((below - 13) / 2.5) ** 2))
    # Where the arm lies against the side.
    gap = np.abs(x) - 0.70 * np.interp(-y, -dense, half)
    arm = (
        1
        - 0.5 * np.exp(-((gap / 4.0) ** 2)) * smoothstep(-y, 235, 275)
        - 0.12 * smoothstep(-gap, 0, 30) * smoothstep(-y, 250, 300) * smoothstep(gap, -45, 0)
    )
    tint = color * (folds * seam * arm)[..., None]
    extras.add(
        points, grid_faces(90, 72, True), tint.reshape(-1, 3), "clothes", 0.015, follow_head(points[:, 1]), attach=False
    )


def add_beanie(extras, color, rng):
    rows, columns = 56, 110
    directions, faces = sphere(rows, columns)
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


def add_glasses(extras, model, vertices, kind, color):
    """Adds a frame of two rims, a bridge and two temples (tubes of square section) in front of the person's own eyes
    (vertices in mm).
    """
    points = landmarks68(model, vertices)
    eyes = {1: points[42:48].mean(0), -1: points[36:42].mean(0)}
    nose = points[27]
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
        hinge = np.array([eye[0] + sign * (size[0] + 1), eye[1] + 4, depth - 0.004 * (eye[0] + sign * size[0]) ** 2])
        jaw = points[16 if sign > 0 else 0]
        ear = np.array([jaw[0] + sign * 4.5, eye[1] + 8, -8.0])
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
        rings.reshape(-1, 3),
        grid_faces(len(rings), 6, True)[:, ::-1],
        color,
        "glasses",
        0.25,
        attach=False,
        two_sided=1,
    )
