import numpy as np

from models.face import transfer
from models.face.camera import rotation_matrix
from models.face.model import landmarks68, load_face_model
from models.labels import LABEL_INDEX


def test_a_similarity_is_found():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(10, 3))
    turn = rotation_matrix(np.array([0.4, -0.3, 0.2]))
    scale, rotation, shift = transfer.similarity(points, points @ turn.T * 1.7 + [1, 2, 3])
    np.testing.assert_allclose(scale, 1.7)
    np.testing.assert_allclose(rotation, turn, atol=1e-9)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-9)


def test_the_overlay_meets_the_landmarks_of_another_face():
    head = load_face_model()
    rng = np.random.default_rng(1)
    shape = rng.normal(size=head.num_shape)
    other = head.vertices + head.shape_basis @ shape
    target = landmarks68(head, other) * 1.1 + [0.1, 0.2, 0.3]
    placed = transfer.overlay(target, head.vertices.astype(np.float64))
    np.testing.assert_allclose(landmarks68(head, placed), target, atol=1.5e-3)
    skin = head.labels == LABEL_INDEX["face"]
    error = np.linalg.norm(placed - (other * 1.1 + [0.1, 0.2, 0.3]), axis=1)[skin & (head.vertices[:, 2] > 0.05)]
    assert error.mean() < 3e-3


def test_nearest_places_on_a_mesh():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [9, 9, 9.0]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    points = np.array([[0.2, 0.3, 0.5], [0.9, 0.8, -0.1], [2, 2, 0], [-1, 0.5, 0]])
    ids, weights = transfer.nearest_on_mesh(points, vertices, faces)
    reached = (vertices[faces[ids]] * weights[..., None]).sum(1)
    np.testing.assert_allclose(reached, [[0.2, 0.3, 0], [0.9, 0.8, 0], [1, 1, 0], [0, 0.5, 0]], atol=1e-6)
    assert ids[0] == 0 and ids[1] == 1


def test_triangles_are_turned_outward():
    head = load_face_model()
    np.testing.assert_array_equal(transfer.outward(head.vertices, head.faces[:, ::-1]), head.faces)
    np.testing.assert_array_equal(transfer.outward(head.vertices, head.faces), head.faces)


def test_an_eyeballs_parts():
    angles = np.radians([0, 20, 60])
    points = 0.012 * np.stack([np.sin(angles), np.zeros(3), np.cos(angles)], -1) + [1, 1, 1]
    names = [LABEL_INDEX[n] for n in ("pupil", "iris", "sclera")]
    assert transfer.eyeball_labels(points, np.ones(3)).tolist() == names
