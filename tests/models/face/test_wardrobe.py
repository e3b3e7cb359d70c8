import numpy as np
import pytest

from models.face.model import landmarks68, load_face_model
from models.face.surface import skin_points
from models.face.wardrobe import HAIR_STYLES, Extras, add_beanie, add_glasses, add_hair, add_torso, sphere
from models.labels import LABEL_INDEX


def _mesh(add, *args):
    extras = Extras()
    add(extras, *args)
    xyz, color, label, gloss, follow, attach, faces, two_sided = extras.arrays()
    assert faces.min() >= 0 and faces.max() < len(xyz) == len(color) == len(label) == len(gloss) == len(follow) == len(
        attach
    )
    assert len(two_sided) == len(faces) and np.isfinite(xyz).all()
    return xyz, label, faces


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_leaves_the_face_free(style):
    xyz, label, faces = _mesh(add_hair, {"hair_style": style}, np.array([0.2, 0.1, 0.1]), np.random.default_rng(0))
    assert (label == LABEL_INDEX["hair"]).all()
    x, y, z = xyz[np.unique(faces)].T
    # Nothing in front of eyes, nose and mouth (the shell's hidden rim may lie just inside the skin).
    assert not ((np.abs(x) < 45) & (np.abs(y + 35) < 55) & (z > 60)).any()
    if style not in ("bald", "receding"):
        assert y.max() > 112  # the crown is covered


def test_long_hair_is_longer_than_a_bob():
    lowest = {}
    for style in ("short", "bob", "long"):
        xyz, _, faces = _mesh(add_hair, {"hair_style": style}, np.array([0.2, 0.1, 0.1]), np.random.default_rng(0))
        lowest[style] = xyz[np.unique(faces), 1].min()
    assert lowest["long"] < lowest["bob"] - 40 < lowest["short"] - 40


@pytest.mark.parametrize("kind", ["crew neck", "v-neck", "turtleneck"])
def test_collars(kind):
    attributes = {"clothes": kind, "gender": "female"}
    xyz, label, _ = _mesh(
        add_torso, attributes, np.array([0.8, 0.6, 0.5]), np.array([0.1, 0.2, 0.6]), np.random.default_rng(0)
    )
    cloth = xyz[label == LABEL_INDEX["clothes"]]
    front = cloth[(np.abs(cloth[:, 0]) < 6) & (cloth[:, 2] > 0)]
    top = front[:, 1].max()
    low, high = {"crew neck": (-175, -155), "v-neck": (-230, -190), "turtleneck": (-135, -118)}[kind]
    assert low < top < high
    assert 300 < np.ptp(cloth[:, 0]) < 480 and cloth[:, 1].min() < -400  # shoulders fill the frame's bottom


def test_beanie_covers_the_crown_and_not_the_brows():
    xyz, label, faces = _mesh(add_beanie, np.array([0.5, 0.1, 0.1]), np.random.default_rng(0))
    used = xyz[np.unique(faces)]
    assert (label == LABEL_INDEX["headwear"]).all() and used[:, 1].max() > 125
    assert used[used[:, 2] > 70, 1].min() > 33


@pytest.mark.parametrize("kind", ["round", "rectangular"])
def test_glasses_stand_before_the_eyes(kind):
    model = load_face_model()
    xyz, label, _ = _mesh(add_glasses, model, model.vertices * 1000.0, kind, np.array([0.1, 0.1, 0.1]))
    assert (label == LABEL_INDEX["glasses"]).all()
    rims = xyz[(np.abs(xyz[:, 0]) < 50) & (xyz[:, 2] > 60)]
    eye = landmarks68(model, model.vertices)[36:48] * 1000
    assert (
        rims[:, 2].max() > eye[:, 2].max()
        and rims[:, 1].max() > eye[:, 1].max() + 8
        and rims[:, 1].min() < eye[:, 1].min() - 8
    )


def test_sphere_looks_outward_on_the_skin():
    directions, faces = sphere(20, 30)
    points = skin_points(directions)
    a, b, c = (points[faces[:, k]] for k in range(3))
    outward = (np.cross(b - a, c - a) * ((a + b + c) / 3)).sum(1)
    assert (outward > 0).mean() > 0.95
