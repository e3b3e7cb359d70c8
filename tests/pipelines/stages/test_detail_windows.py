"""Windows on ears, eyes and mouth: where landmarks put them, and that what is cut goes back where it was."""

import numpy as np
import pytest

from models.segmenter import WINDOWS
from pipelines.stages.detail_windows import (
    MIRROR,
    cut_windows,
    jitter_matrices,
    paste_windows,
    taper,
    window_matrices,
)


def turned(points, degrees, middle=(128, 128)):
    a = np.radians(degrees)
    return (points - middle) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + middle


@pytest.fixture
def points(person):
    return person[1][4].astype(float)


def seen(matrix, x, y):
    """Where a window's pixel lies in the picture."""
    return matrix @ np.array([x, y, 1.0])


def test_mirroring_twice_changes_nothing_and_sides_are_exchanged(points):
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))
    mirrored = (np.array([255, 0]) + points * np.array([-1, 1]))[MIRROR]
    # In a mirrored picture the jaw still runs from left to right, and the first eye is the left one.
    assert np.all(np.diff(mirrored[:17, 0]) > 0) and mirrored[36:42, 0].mean() < mirrored[42:48, 0].mean()


@pytest.mark.parametrize("degrees", [-25, 0, 18])
def test_windows_stand_upright_around_their_parts(points, degrees):
    points = turned(points, degrees)
    right_ear, left_ear, first, second, mouth = window_matrices(points)
    for matrix, corner in ((first, points[36]), (second, points[45])):
        # An eye's outer corner is left of the middle and its height is that of the inner corner.
        x, y = np.linalg.solve(matrix[:, :2], corner - matrix[:, 2])
        assert 5 < x < 25 and 30 < y < 48
    inner = np.linalg.solve(mouth[:, :2], (points[[48, 54]] - mouth[:, 2]).T).T
    assert inner[0, 0] < 20 and inner[1, 0] > 44 and abs(inner[0, 1] - inner[1, 1]) < 3
    nostril = np.linalg.solve(mouth[:, :2], points[33] - mouth[:, 2])
    assert 3 < nostril[1] < 30
    for matrix, jaw in ((right_ear, points[1]), (left_ear, points[15])):
        # The jaw line's upper end is right of the middle, toward the face.
        x, y = np.linalg.solve(matrix[:, :2], jaw - matrix[:, 2])
        assert 32 < x < 50 and 10 < y < 40
    assert np.linalg.det(first[:, :2]) > 0 > np.linalg.det(second[:, :2])


def test_what_is_cut_goes_back_where_it_was(points):
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.random((16, 16, 3)), np.ones((16, 16, 1)))
    picture = (255 * smooth).astype(np.uint8)
    matrices = window_matrices(turned(points, 12))
    windows = cut_windows(picture, matrices).astype(np.float32)
    shares = np.zeros((3, 256, 256), np.float32)
    paste_windows(shares, windows.transpose(0, 3, 1, 2).copy(), matrices)
    shares = shares.transpose(1, 2, 0)
    for matrix in matrices:
        x, y = np.round(seen(matrix, 31.5, 31.5)).astype(int)
        place = (slice(y - 5, y + 6), slice(x - 5, x + 6))
        assert np.abs(shares[place] - picture[place]).mean() < 12
    assert shares[:40].max() == 0


def test_pasting_keeps_shares_shares(points):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(21), (256, 256)).astype(np.float32).transpose(2, 0, 1).copy()
    windows = rng.dirichlet(np.ones(21), (len(WINDOWS), 64, 64)).astype(np.float32).transpose(0, 3, 1, 2).copy()
    paste_windows(shares, windows, window_matrices(points))
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)


def test_windows_beyond_the_picture_are_left_out(points):
    shares = np.zeros((2, 256, 256), np.float32)
    paste_windows(shares, np.ones((len(WINDOWS), 2, 64, 64), np.float32), window_matrices(points + 1000))
    assert shares.max() == 0


def test_jitter_moves_a_window_a_little(points):
    matrices = window_matrices(points)
    moved = jitter_matrices(matrices, np.random.default_rng(0))
    for a, b in zip(matrices, moved, strict=True):
        step = np.linalg.norm(a[:, 0])
        shift = np.linalg.norm(seen(a, 31.5, 31.5) - seen(b, 31.5, 31.5)) / step
        assert 0 < shift < 12 and 0.7 < np.linalg.norm(b[:, 0]) / step < 1.4
    np.testing.assert_allclose(jitter_matrices(matrices, np.random.default_rng(0), 0.0), matrices, atol=1e-3)


def test_a_window_fades_out_toward_its_border():
    weight = taper()
    assert weight[32, 32] == 1 and weight[0].max() < 0.1 and np.array_equal(weight, weight.T)
