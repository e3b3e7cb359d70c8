import dataclasses

import numpy as np
import pytest

from models.face.model import landmarks68, load_face_model
from models.face.procedural import Parts, build_head, build_skin
from models.labels import LABEL_INDEX


@pytest.fixture(scope="module")
def model():
    return load_face_model()


@pytest.fixture(scope="module")
def landmarks(model):
    return landmarks68(model, model.vertices) * 1000


def _landmark_ids(model):
    return model.faces[model.landmark_faces, model.landmark_barycentric.argmax(1)]


def test_sizes_and_types(model):
    count = len(model.vertices)
    assert 3000 <= count <= 8000
    assert model.faces.min() == 0 and model.faces.max() == count - 1
    assert model.vertices.dtype == model.shape_basis.dtype == model.expression_basis.dtype == np.float32
    assert model.labels.shape == (count,) and 20 <= model.num_shape <= 40 and 20 <= model.num_expression <= 30
    assert len(set(model.expression_names)) == model.num_expression and len(set(model.shape_names)) == model.num_shape
    for array in (model.vertices, model.shape_basis, model.expression_basis):
        assert np.isfinite(array).all()


def test_building_twice_gives_the_same_bytes(model):
    again = build_head()
    for key in [f.name for f in dataclasses.fields(model) if isinstance(getattr(model, f.name), np.ndarray)]:
        assert getattr(again, key).tobytes() == getattr(model, key).tobytes()


def test_landmarks_are_distinct_and_mirror_each_other(model, landmarks):
    ids = _landmark_ids(model)
    assert len(set(ids.tolist())) == 68
    pairs = [(k, 16 - k) for k in range(8)] + [(17 + k, 26 - k) for k in range(5)] + [(31, 35), (32, 34)]
    pairs += [
        (36, 45),
        (37, 44),
        (38, 43),
        (39, 42),
        (40, 47),
        (41, 46),
        (48, 54),
        (50, 52),
        (60, 64),
        (61, 63),
        (67, 65),
        (58, 56),
    ]
    for right, left in pairs:
        assert landmarks[right, 0] < 0 < landmarks[left, 0]  # the subject's right is the image's left
        np.testing.assert_allclose(landmarks[right] * [-1, 1, 1], landmarks[left], atol=0.05)


def test_proportions_are_human(landmarks):
    pupils = (landmarks[42:48].mean(0) - landmarks[36:42].mean(0))[0]
    assert 60 < pupils < 66
    assert 27 < landmarks[45, 0] - landmarks[42, 0] < 32  # eye width
    assert 132 < landmarks[16, 0] - landmarks[0, 0] < 150  # face width
    assert 105 < landmarks[27, 1] - landmarks[8, 1] < 122  # nasion to chin
    assert 46 < landmarks[54, 0] - landmarks[48, 0] < 56  # mouth width
    assert 22 < landmarks[35, 0] - landmarks[31, 0] < 34  # the wings' roots
    assert 0 < landmarks[62, 1] - landmarks[66, 1] < 2  # lips closed


def test_landmarks_stand_in_order(landmarks):
    y = landmarks[:, 1]
    assert (np.diff(y[:9]) < 0).all() and (np.diff(y[27:31]) < 0).all() and (np.diff(landmarks[:17, 0]) > 0).all()
    assert y[17:27].min() > y[36:48].max() > y[36:48].min() > y[31:36].max() > y[48:68].max() > y[8]
    assert landmarks[30, 2] == landmarks[:, 2].max()  # the nose's tip is nearest


def test_labels_of_the_bare_head(model):
    have = set(np.unique(model.labels).tolist())
    names = (
        "face",
        "neck",
        "ears",
        "brows",
        "lashes",
        "pupil",
        "iris",
        "sclera",
        "lips",
        "teeth",
        "tongue",
        "nostrils",
        "other-in-mouth",
        "nose",
    )
    assert have == {LABEL_INDEX[n] for n in names}
    ids = _landmark_ids(model)
    lips = ids[48:68]
    assert (model.labels[lips] == LABEL_INDEX["lips"]).all()
    assert (model.labels[ids[17:27]] == LABEL_INDEX["brows"]).all()


def test_skin_faces_look_outward(model):
    skin = np.isin(model.labels, [LABEL_INDEX["face"], LABEL_INDEX["nose"]])
    faces = model.faces[skin[model.faces].all(1)]
    a, b, c = (model.vertices[faces[:, k]] for k in range(3))
    normal, centre = np.cross(b - a, c - a), (a + b + c) / 3
    outward = (normal * (centre - [0, 0, -0.02])).sum(1) > 0
    assert outward.mean() > 0.985  # the nose's underside and the sockets look elsewhere


def test_mouth_and_eyes_are_open_holes_in_the_skin(model):
    skin = np.isin(model.labels, [LABEL_INDEX[n] for n in ("face", "nose", "lips", "nostrils")])
    faces = model.faces[skin[model.faces].all(1)]
    centres = model.vertices[faces].mean(1) * 1000
    for eye in (-31.5, 31.5):
        assert not ((np.abs(centres[:, 0] - eye) < 8) & (np.abs(centres[:, 1]) < 2.5) & (centres[:, 2] > 0)).any()


def test_the_skin_is_whole_but_for_eyes_and_mouth():
    """Every edge of the skin has two triangles, except round the three openings."""
    from collections import Counter

    parts = Parts([], [], [], [], [], [], [], [], [])
    _, eyes, lips = build_skin(parts)
    faces = np.concatenate(parts.faces)
    edges = Counter(tuple(sorted(edge)) for a, b, c in faces.tolist() for edge in ((a, b), (b, c), (c, a)))
    openings = set(np.concatenate([eyes[1][0], eyes[-1][0], lips[-1]]).tolist())
    border = [edge for edge, count in edges.items() if count == 1]
    assert set(edges.values()) == {1, 2} and len(border) == len(openings) == 30 + 30 + 48
    assert all(set(edge) <= openings for edge in border)


def test_ears_have_a_rim_and_a_hollow(model):
    ear = model.vertices[(model.labels == LABEL_INDEX["ears"]) & (model.vertices[:, 0] > 0)] * 1000
    assert 55 < np.ptp(ear[:, 1]) < 68 and 15 < np.ptp(ear[:, 0]) < 32
