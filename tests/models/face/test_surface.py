import numpy as np

from models.face import surface


def test_directions_and_points_are_inverse_in_front():
    rng = np.random.default_rng(0)
    y = rng.uniform(-100, 90, 200)
    x = rng.uniform(-0.9, 0.9, 200) * surface.profile(y)[0]
    points = surface.skin_points(surface.directions_of(x, y))
    np.testing.assert_allclose(points[:, 0], x, atol=1e-6)
    np.testing.assert_allclose(points[:, 1], y, atol=1e-6)
    np.testing.assert_allclose(points[:, 2], surface.front_depth(x, y), atol=1e-6)


def test_nose_tip_stands_out_of_the_face():
    tip, eye, lip, chin = (
        surface.front_depth(np.array([x]), np.array([y]))[0] for x, y in ((0, -36), (32, -9), (0, -70), (0, -105))
    )
    assert tip > lip + 8 and tip > chin + 8 and tip > eye + 25
    # The bridge rises steadily from the eyes to the tip.
    ridge = surface.front_depth(np.zeros(30), np.linspace(0, -35, 30))
    assert (np.diff(ridge) > 0).all()


def test_skin_covers_the_eyeballs():
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in (0.0, 4.0, 8.0, 11.0):
        x, y = surface.EYE_X + radius * np.cos(angle), surface.EYE_Y + radius * np.sin(angle)
        ball = surface.EYE_Z + np.sqrt(surface.EYE_RADIUS**2 - radius**2)
        assert (surface.front_depth(x, y) > ball + 0.8).all()


def test_head_is_as_large_as_a_head():
    directions = np.random.default_rng(0).normal(size=(5000, 3))
    points = surface.skin_points(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    low, high = points.min(0), points.max(0)
    width, height, depth = high - low
    assert 140 < width < 165 and 215 < height < 240 and 185 < depth < 225


def test_through_passes_its_points():
    curve = surface.through(surface.BROW, 4)
    np.testing.assert_allclose(curve[::4], surface.BROW, atol=1e-9)


def test_points_inside_a_polygon():
    polygon = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4.0]])  # a notch from above
    points = np.array([[1, 1], [2, 3], [3.8, 3], [5, 1], [2, 0.5]])
    assert surface.inside_polygon(points, polygon).tolist() == [True, False, True, False, True]
