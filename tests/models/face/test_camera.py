import numpy as np
import pytest

from models.face.camera import default_camera, pose_from_rotation, project, rotation_matrix, to_camera


def test_projection_by_hand():
    # A point 0.1 m to the image's right, 0.05 m up and 0.2 m nearer than the head's centre, which is 2 m away.
    point = np.array([[0.1, 0.05, 0.2]], np.float32)
    pose = np.array([0, 0, 0, 0, 0, 2.0], np.float32)
    camera = np.array([1200, 128, 120], np.float32)
    expected = [128 + 1200 * 0.1 / 1.8, 120 - 1200 * 0.05 / 1.8]
    np.testing.assert_allclose(project(point, pose, camera)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("turn", "sign_x", "sign_y"),
    [((0.3, 0, 0), 0, 1), ((-0.3, 0, 0), 0, -1), ((0, 0.3, 0), -1, 0), ((0, -0.3, 0), 1, 0)],
)
def test_nose_goes_where_the_docstring_says(turn, sign_x, sign_y):
    nose = np.array([[0, 0, 0.1]], np.float32)
    pixel = project(nose, np.array([*turn, 0, 0, 1.0], np.float32), np.array([100, 0, 0], np.float32))[0]
    assert np.sign(np.round(pixel, 4)).tolist() == [sign_x, sign_y]


def test_roll_is_clockwise():
    right = np.array([[0.1, 0, 0]], np.float32)
    pixel = project(right, np.array([0, 0, 0.3, 0, 0, 1.0], np.float32), np.array([100, 0, 0], np.float32))[0]
    assert pixel[1] > 1


def test_numpy_equals_jax_with_batches():
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.1, (5, 68, 3)).astype(np.float32)
    pose = np.concatenate([rng.normal(0, 0.4, (5, 3)), rng.normal(0, 0.1, (5, 2)), np.full((5, 1), 1.5)], -1).astype(
        np.float32
    )
    camera = default_camera(256)
    out = project(jnp.asarray(points), jnp.asarray(pose), jnp.asarray(camera))
    np.testing.assert_allclose(np.asarray(out), project(points, pose, camera), atol=2e-3)
    one = project(points[2], pose[2], camera)
    np.testing.assert_allclose(project(points, pose, camera)[2], one, atol=1e-4)


def test_rotation_is_orthogonal_and_right_handed():
    rng = np.random.default_rng(1)
    rotation = rotation_matrix(rng.normal(0, 1.5, (20, 3)))
    np.testing.assert_allclose(rotation @ np.swapaxes(rotation, -1, -2), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_gradient_at_zero_rotation_is_finite():
    import jax
    import jax.numpy as jnp

    jacobian = jax.jacobian(lambda v: rotation_matrix(v) @ jnp.array([0.0, 0.0, 1.0]))(jnp.zeros(3))
    # d(R z)/dv = v x z
    np.testing.assert_allclose(np.asarray(jacobian), [[0, 1, 0], [-1, 0, 0], [0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.01, 1.0, 3.0])
def test_pose_from_rotation_is_the_inverse(angle):
    axis = np.array([0.48, -0.6, 0.64]) * angle
    pose = pose_from_rotation(rotation_matrix(axis), [0.1, 0.2, 1.0])
    np.testing.assert_allclose(pose, [*axis, 0.1, 0.2, 1.0], atol=1e-5)


def test_to_camera_flips_axes():
    out = to_camera(np.array([[1.0, 2.0, 3.0]]), np.array([0, 0, 0, 0, 0, 10.0]))
    np.testing.assert_allclose(out, [[1, -2, 7]])
