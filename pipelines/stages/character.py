"""A person for the embedded corpus: identity, colours, hair, clothes and extras as one mesh that rides on the face
model.

A character is drawn from a random generator. Its mesh is the face model's vertices followed by extra vertices (hair,
torso, glasses, ...); extras are placed on the person's own head (identity applied) and do not move with expressions.
Array letters: V all vertices, F triangles, M textures of R x C texels.
"""

import dataclasses

import numpy as np

from models.face.model import FaceModel, deform
from models.face.rig import follow_head
from models.face.surface import smoothstep
from models.face.wardrobe import Extras, add_beanie, add_glasses, add_hair, add_torso, sphere
from models.labels import LABEL_INDEX
from pipelines.stages.complexion import (
    CLOTHES_COLORS,
    DARK_TONES,
    EYE_COLORS,
    HAIR_COLORS,
    PATTERNS,
    SKIN_TONES,
    materials,
    paint_face,
    texture_coordinates,
    texture_of,
    textures,
)

HAIR_STYLES = {
    "female": ("long", "bob", "bun", "short", "curly", "long", "bob", "medium"),
    "male": ("short", "buzz", "receding", "curly", "short", "medium", "short", "bald"),
}
BEARDS = ("none", "none", "none", "stubble", "full", "goatee", "moustache")
GLASSES = ("none", "none", "none", "round", "rectangular")
# Directions and size of the probes by which the sky seen from each vertex is measured.
_PROBES, _PROBE_TEXELS, _PROBE_METRES = 40, 128, 0.62


@dataclasses.dataclass(frozen=True, eq=False)
class Character:
    """A person ready to be rendered.

    Attributes:
      shape: (Ns,) float32.
      vertices: (V, 3) float32 metres at rest, identity applied, the first ``base`` of them the face model's.
      faces: (F, 3) int32.
      colors: (V, 3) float32 albedo, linear.
      gloss: (V,) float32 strength of highlights.
      labels: (V,) uint8.
      material: (V,) uint8, how a vertex takes light (shading.py).
      follow: (V,) float32, 1 moves with the head, 0 stays with the torso.
      ao: (V,) float32, the share of the sky that a vertex sees at rest.
      weight: (V,) float32, how strongly its texture shows.
      two_sided: (F,) uint8, 1 for sheets that may show their back.
      groups: (F,) uint8, triangles of one surface.
      uv: (F, 3, 2) float32 texel coordinates; texture (F,) uint8.
      textures: (M, R, C) int32, see complexion.textures.
      base: the face model's vertex count.
      attributes: what a description would say.
    """

    shape: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    gloss: np.ndarray
    labels: np.ndarray
    material: np.ndarray
    follow: np.ndarray
    ao: np.ndarray
    weight: np.ndarray
    two_sided: np.ndarray
    groups: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    textures: np.ndarray
    base: int
    attributes: dict


def _pick(rng, table):
    names = list(table)
    return names[int(rng.integers(len(names)))]


def draw_attributes(rng: np.random.Generator) -> dict:
    """Returns the description attributes of a new person."""
    gender = ("female", "male")[int(rng.integers(2))]
    tone = _pick(rng, SKIN_TONES)
    hair_colors = ("black", "dark brown") if tone in DARK_TONES else tuple(HAIR_COLORS)
    styles = HAIR_STYLES[gender]
    age = ("young", "middle-aged", "older")[int(rng.choice(3, p=[0.45, 0.37, 0.18]))]
    hair_color = hair_colors[int(rng.integers(len(hair_colors)))]
    if age == "older" and rng.random() < 0.8:
        hair_color = ("grey", "white")[int(rng.integers(2))]
    elif age == "young" and hair_color in ("grey", "white"):
        hair_color = "brown"
    style = styles[int(rng.integers(len(styles)))]
    headwear = "none" if rng.random() > 0.12 or style in ("bun", "curly") else "beanie"
    eyes = ("brown", "dark brown") if tone in DARK_TONES else tuple(EYE_COLORS)
    return {
        "gender": gender,
        "age": age,
        "skin": tone,
        "freckles": bool(tone not in DARK_TONES and rng.random() < 0.25),
        "makeup": bool(gender == "female" and rng.random() < 0.55),
        "hair_style": style,
        "hair_color": hair_color,
        "eye_color": eyes[int(rng.integers(len(eyes)))],
        "clothes": ("crew neck", "v-neck", "turtleneck")[int(rng.integers(3))],
        "clothes_color": _pick(rng, CLOTHES_COLORS),
        "pattern": PATTERNS[int(rng.integers(len(PATTERNS)))],
        "beard": BEARDS[int(rng.integers(len(BEARDS)))] if gender == "male" else "none",
        "glasses": GLASSES[int(rng.integers(len(GLASSES)))],
        "headwear": headwear,
        "earrings": bool(gender == "female" and style in ("bun", "short") and rng.random() < 0.7),
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
    colors, gloss, labels, weight, skin, hair = paint_face(model, attributes, rng)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    extras = Extras()
    add_torso(extras, attributes, skin, np.array(CLOTHES_COLORS[attributes["clothes_color"]]), rng)
    add_hair(extras, attributes, hair, rng)
    if attributes["headwear"] == "beanie":
        add_beanie(extras, np.array(CLOTHES_COLORS[_pick(rng, CLOTHES_COLORS)]), rng)
    if attributes["glasses"] != "none":
        frame = ((0.06, 0.05, 0.05), (0.30, 0.18, 0.10), (0.55, 0.50, 0.42), (0.35, 0.08, 0.10))[int(rng.integers(4))]
        add_glasses(extras, model, person * 1000.0, attributes["glasses"], np.array(frame))
    if attributes["earrings"]:
        directions, triangles = sphere(8, 12)
        for sign in (1, -1):
            extras.add(directions * 3.5 + [sign * 78, -46, -6], triangles, (0.9, 0.75, 0.35), "accessory", 0.6)
    xyz, tint, label, shine, follow, attach, faces, two_sided = extras.arrays()
    placed = xyz + attach[:, None] * _identity_motion(model, person, xyz)
    neck = model.labels == LABEL_INDEX["neck"]
    follow_face = np.where(neck, follow_head(person[:, 1] * 1000), 1.0)
    count = len(model.vertices)
    labels = np.concatenate([labels, label]).astype(np.uint8)
    faces = np.ascontiguousarray(np.concatenate([model.faces, faces + count]), np.int32)
    vertices = np.concatenate([person, placed / 1000]).astype(np.float32)
    two_sided = np.concatenate([_face_sides(model), two_sided])
    rest = np.concatenate([model.vertices * 1000.0, xyz])
    # Lips are creased along, much more finely and weakly than hair.
    texture_weight = np.concatenate([weight, np.ones(len(xyz))])
    texture_weight[labels == LABEL_INDEX["lips"]] = 0.35
    texture_weight[labels == LABEL_INDEX["brows"]] = 0.9
    return Character(
        shape=shape,
        vertices=vertices,
        faces=faces,
        colors=(np.concatenate([colors, tint]) ** 2).astype(np.float32),
        gloss=np.concatenate([gloss, shine]).astype(np.float32),
        labels=labels,
        material=materials(labels),
        follow=np.concatenate([follow_face, follow]).astype(np.float32),
        ao=_openness(vertices, faces, two_sided, labels, rest),
        weight=texture_weight.astype(np.float32),
        two_sided=two_sided,
        groups=surfaces(labels, faces),
        uv=texture_coordinates(rest, labels, faces),
        texture=texture_of(labels, faces),
        textures=textures(attributes, rng),
        base=count,
        attributes=attributes,
    )


def _openness(vertices, faces, two_sided, labels, rest):
    """Returns ``sky_seen``, but for what the rest position hides: a neck whose two meshes overlap, a closed mouth."""
    ao = sky_seen(vertices, faces, two_sided)
    neck = labels == LABEL_INDEX["neck"]
    ao[neck] = (0.45 + 0.45 * smoothstep(-rest[:, 1], 100, 165))[neck]
    for name, least in (("teeth", 0.75), ("tongue", 0.55), ("other-in-mouth", 0.35), ("lips", 0.55)):
        inside = labels == LABEL_INDEX[name]
        ao[inside] = np.maximum(ao[inside], least)
    return ao


def surfaces(labels: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the surface (F,) uint8 of each triangle: skin is one, every other class its own; a triangle between two
    classes counts as the one of its first corner.
    """
    table = np.arange(len(LABEL_INDEX), dtype=np.uint8)
    for name in ("nose", "neck", "ears", "beard", "nostrils"):
        table[LABEL_INDEX[name]] = LABEL_INDEX["face"]
    return table[labels[faces[:, 0]]]


def sky_seen(vertices: np.ndarray, faces: np.ndarray, two_sided: np.ndarray) -> np.ndarray:
    """Returns the cosine-weighted share of the sphere about each vertex's normal that nothing blocks (V,) float32:
    ambient occlusion, by depth maps from directions all round.
    """
    from pipelines.stages.shading import FAR, cast, lit_share, normals_of, seen_from

    normals, seen = np.empty_like(vertices), np.empty_like(vertices)
    normals_of(vertices, faces, normals)
    depth = np.empty((_PROBE_TEXELS, _PROBE_TEXELS), np.float32)
    lit = np.empty(len(vertices), np.float32)
    open_, whole = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-6, np.float32)
    k = np.arange(_PROBES) + 0.5
    polar, turn = np.arccos(1 - 2 * k / _PROBES), np.pi * (1 + 5**0.5) * k
    centre = np.array([0, -0.06, 0], np.float32)
    for theta, phi in zip(polar, turn, strict=True):
        toward = np.array([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)])
        frame = light_frame(toward, centre)
        seen_from(vertices, frame, np.float32(_PROBE_TEXELS / _PROBE_METRES), _PROBE_TEXELS, seen)
        depth[:] = FAR
        cast(seen, faces, two_sided, 0, len(faces), depth)
        lit_share(seen, depth, np.float32(0.008), 1, lit)
        facing = np.maximum(normals @ toward.astype(np.float32), 0)
        open_ += facing * lit
        whole += facing
    return np.clip(open_ / whole * 1.15, 0.05, 1).astype(np.float32)


def light_frame(toward: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns ``seen_from``'s frame (4, 3) float32 of a light from ``toward`` (3,) that looks at ``centre``."""
    ahead = -np.asarray(toward, np.float64) / np.linalg.norm(toward)
    side = np.cross([0.0, 1.0, 0.0] if abs(ahead[1]) < 0.9 else [1.0, 0.0, 0.0], ahead)
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(ahead, side), ahead, centre]).astype(np.float32)


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
