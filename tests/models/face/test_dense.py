import numpy as np
import pytest

from models.face.dense import SPACING, vertex_embedding
from models.face.model import dense_landmarks, landmarks68, load_face_model
from models.labels import LABEL_INDEX


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def test_several_hundred_points_in_every_region(model):
    assert 300 <= len(model.dense_names) <= 800 and len(set(model.dense_names)) == len(model.dense_names)
    assert set(model.dense_regions) == set(SPACING)
    for region in SPACING:
        assert model.dense_regions.count(region) >= 6, region


def test_points_are_spread_and_none_is_a_landmark(model):
    points = dense_landmarks(model, model.vertices) * 1000
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert distance.min() > 1.7
    sixty_eight = landmarks68(model, model.vertices) * 1000
    assert np.linalg.norm(points[:, None] - sixty_eight[None], axis=-1).min() > 1.0


def test_sides_mirror_each_other(model):
    points = dense_landmarks(model, model.vertices) * 1000
    regions = np.array(model.dense_regions)
    for name in ("brow", "eye", "cheek", "jaw"):
        left, right = points[regions == f"{name}_left"], points[regions == f"{name}_right"]
        assert len(left) == len(right) and left[:, 0].min() > 0 > right[:, 0].max()
        gap = np.linalg.norm(left[:, None] - (right * [-1, 1, 1])[None], axis=-1)
        assert gap.min(1).max() < 0.1


def test_regions_are_where_their_names_say(model):
    points = dense_landmarks(model, model.vertices) * 1000
    marks = landmarks68(model, model.vertices) * 1000
    middle = {name: points[np.array(model.dense_regions) == name].mean(0) for name in SPACING}
    assert middle["forehead"][1] > middle["brow_left"][1] > middle["eye_left"][1] > middle["cheek_left"][1]
    assert middle["lip_upper"][1] > middle["lip_lower"][1] > middle["chin"][1]
    assert np.linalg.norm(middle["eye_left"] - marks[42:48].mean(0)) < 4
    assert abs(middle["nose"][0]) < 1 and marks[33, 1] < middle["nose"][1] < marks[27, 1]
    ids = model.faces[model.dense_faces, model.dense_barycentric.argmax(1)]
    lips = np.isin(model.dense_regions, ("lip_upper", "lip_lower"))
    np.testing.assert_array_equal(lips, model.labels[ids] == LABEL_INDEX["lips"])


def test_vertices_on_triangles():
    faces = np.array([[4, 2, 0], [1, 2, 3]])
    triangles, weights = vertex_embedding(faces, [2, 3, 4])
    assert (faces[triangles, weights.argmax(1)] == [2, 3, 4]).all() and (weights.sum(1) == 1).all()
    with pytest.raises(ValueError, match="no triangle"):
        vertex_embedding(faces, [5])
