from collections import Counter

import numpy as np
import pytest

from models.face.mesh import facing_out, grid_faces, triangulate, with_edges


def _circle(radius, count):
    angle = np.linspace(0, 2 * np.pi, count + 1)[:-1]
    x, y = np.sin(radius) * np.cos(angle), np.sin(radius) * np.sin(angle)
    return np.stack([x, y, np.full(count, np.cos(radius))], -1)


def _edges(faces):
    return Counter(tuple(sorted(edge)) for a, b, c in faces.tolist() for edge in ((a, b), (b, c), (c, a)))


def test_grid_faces_cover_a_grid():
    assert len(grid_faces(3, 4)) == 2 * 2 * 3 and len(grid_faces(3, 4, wrap=True)) == 2 * 2 * 4
    assert set(grid_faces(3, 4).ravel().tolist()) == set(range(12))


def test_a_skin_with_narrow_rings_is_closed_but_for_its_opening():
    rng = np.random.default_rng(0)
    rings = np.concatenate([_circle(r, 24) for r in (0.4, 0.39, 0.385)])  # much closer than their points
    rest = rng.normal(size=(400, 3))
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    rest = rest[rest[:, 2] < np.cos(0.45)]
    directions = np.concatenate([rings, rest])
    ids = np.arange(72).reshape(3, 24)
    faces = triangulate(directions, [ids])
    edges = _edges(faces)
    border = {edge for edge, count in edges.items() if count == 1}
    assert set(edges.values()) == {1, 2}
    assert border == {tuple(sorted((48 + k, 48 + (k + 1) % 24))) for k in range(24)}
    np.testing.assert_array_equal(facing_out(directions, faces), faces)


def test_a_missing_edge_is_put_in_by_turning_the_one_that_crosses_it():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    turned = with_edges(faces, np.array([0, 3, 1]))
    assert _edges(turned)[0, 3] == 2 and (1, 2) not in _edges(turned)
    assert sorted(np.sort(turned, 1).tolist()) == [[0, 1, 3], [0, 2, 3]]
    with pytest.raises(ValueError, match="too far apart"):
        with_edges(np.array([[0, 1, 2], [3, 4, 5]]), np.array([0, 3, 4]))
