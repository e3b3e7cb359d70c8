"""A person for the embedded corpus: identity, colours, hair, clothes and extras as one mesh that rides on the face
model.

A character is drawn from a random generator. Its mesh is the face model's vertices followed by extra vertices (hair,
torso, glasses, ...); extras are placed on the person's own head (identity applied) and do not move with expressions.
Array letters: V all vertices, F triangles.
"""

import dataclasses

import numpy as np

from models.face.model import FaceModel, deform
from models.face.rig import follow_head
from models.face.surface import smoothstep
from models.face.wardrobe import Extras, add_beanie, add_glasses, add_hair, add_torso, sphere
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

    Attributes: shape (Ns,) float32; vertices (V, 3) float32 metres at rest, identity applied, the first ``base`` of
    them the face model's; faces (F, 3) int32; colors (V, 3) float32 albedo; gloss (V,) float32; labels (V,) uint8;
    follow (V,) float32: 1 moves with the head, 0 stays with the torso; two_sided (F,) uint8: 1 for sheets that may show
    their back; base: the face model's vertex count; attributes: what a description would say.
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
    # Skin in shadow keeps its red: light that comes through it has lost the rest.
    colors *= 1 - np.clip(shadow, 0, 0.6)[:, None] * np.array([0.82, 1.0, 1.08])
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
            ax < 32, np.where(y > -70, 1 - np.abs(y + 62.5) / 7.5, 1), 1
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
    extras = Extras()
    attributes |= add_torso(extras, attributes, skin, np.array(CLOTHES_COLORS[attributes["clothes_color"]]), rng)
    add_hair(extras, attributes, hair, rng)
    if attributes["headwear"] == "beanie":
        add_beanie(extras, np.array(CLOTHES_COLORS[_pick(rng, CLOTHES_COLORS)]), rng)
    if attributes["glasses"] != "none":
        add_glasses(
            extras, model, person * 1000.0, attributes["glasses"], np.array([0.06, 0.05, 0.05]) * rng.uniform(0.6, 3.0)
        )
    if attributes["earrings"] and attributes["hair_style"] in ("bun", "short"):
        directions, faces = sphere(8, 12)
        for sign in (1, -1):
            extras.add(directions * 3.5 + [sign * 78, -46, -6], faces, (0.85, 0.68, 0.25), "accessory", 0.6)
    else:
        attributes["earrings"] = False
    xyz, tint, label, shine, follow, attach, faces, two_sided = extras.arrays()
    xyz = xyz + attach[:, None] * _identity_motion(model, person, xyz)
    neck = model.labels == LABEL_INDEX["neck"]
    follow_face = np.where(neck, follow_head(person[:, 1] * 1000), 1.0)
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
    """Returns which triangles of the face model are sheets (F,) uint8: teeth, lashes and brows; the rest is a closed
    surface.
    """
    sheets = np.isin(model.labels, [LABEL_INDEX[n] for n in ("teeth", "lashes", "brows", "other-in-mouth")])
    return sheets[model.faces].any(1).astype(np.uint8)


def _identity_motion(model, person, xyz):
    """Returns how far (mm) the identity has moved the skin near each extra vertex: hair keeps its distance to every
    head.
    """
    from scipy.spatial import cKDTree

    skin = np.isin(model.labels, [LABEL_INDEX[n] for n in ("face", "ears", "neck")])
    rest = model.vertices[skin] * 1000.0
    moved = person[skin] * 1000.0 - rest
    distance, near = cKDTree(rest).query(xyz, k=8)
    weight = 1 / (distance + 4.0)
    weight /= weight.sum(1, keepdims=True)
    return (moved[near] * weight[..., None]).sum(1)
