"""Points on a face: where they are seen, and that the written derivatives are the true ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.face.camera import default_camera, project, rotation_matrix
from models.face.model import deform, load_face_model
from pipelines.stages.face_points import (
    FaceState,
    exponential,
    face_points,
    iris_points,
    small_logarithm,
    vertex_normals,
)

CAMERA = default_camera()


@pytest.fixture(scope="module")
def model():
    return load_face_model()


@pytest.fixture(scope="module")
def points(model):
    faces, corners = iris_points(model)
    return face_points(
        model,
        np.concatenate([model.landmark_faces, faces]),
        np.concatenate([model.landmark_barycentric, corners]),
    )


def state(model, frames=2):
    rng = np.random.default_rng(0)
    return FaceState(
        jnp.asarray(rng.normal(0, 0.5, model.num_shape), jnp.float32),
        jnp.asarray(rng.uniform(0.1, 0.3, (frames, model.num_expression)), jnp.float32),
        jnp.asarray(rotation_matrix(rng.normal(0, 0.2, (frames, 3)).astype(np.float32))),
        jnp.asarray([[0.01, -0.02, 1.5]] * frames, jnp.float32),
    )


def test_points_are_seen_where_the_camera_projects_them(model, points):
    pose = np.array([[0.1, -0.2, 0.05, 0.01, -0.02, 1.5]], np.float32)
    shape = np.random.default_rng(1).normal(0, 0.5, model.num_shape).astype(np.float32)
    expression = np.full((1, model.num_expression), 0.1, np.float32)
    at = FaceState(shape, expression, jnp.asarray(rotation_matrix(pose[:, :3])), jnp.asarray(pose[:, 3:]))
    expected = project(deform(model.landmark_model(), shape, expression), pose, CAMERA)
    np.testing.assert_allclose(points.see(at, CAMERA).pixels[:, :68], expected, atol=1e-3)


def test_jacobians_are_the_derivatives(model, points):
    at = state(model)
    count = model.num_shape

    def pixels(change):
        moved = FaceState(
            at.shape + change[:count],
            at.expression + change[count + 6 :],
            exponential(change[count : count + 3]) @ at.rotation,
            at.translation + change[count + 3 : count + 6],
        )
        return points.see(moved, CAMERA).pixels

    expected = jax.jacfwd(pixels)(jnp.zeros(count + 6 + model.num_expression))
    jacobian, shape_jacobian = points.jacobians(at, points.see(at, CAMERA), CAMERA)
    np.testing.assert_allclose(shape_jacobian, expected[..., :count], atol=2e-3)
    np.testing.assert_allclose(jacobian, expected[..., count:], atol=2e-3)


def test_irises_are_the_fronts_of_the_eyeballs(model, points):
    right, left = points.model.vertices[68:]
    assert right[0] < 0 < left[0] and min(right[2], left[2]) > 0.07
    joints = model.joints[[3, 2]]
    np.testing.assert_allclose(points.model.vertices[68:, :2], joints[:, :2], atol=2e-3)
    assert (points.normals[68:, 2] > 0.95).all()


def test_normals_point_out_of_the_head(model):
    normals = vertex_normals(model)
    for tip, least in ((30, 0.95), (27, 0.95), (8, 0.3)):  # nose, between the eyes, chin
        corners = model.faces[model.landmark_faces[tip]]
        assert (normals[corners] * model.landmark_barycentric[tip][:, None]).sum(0)[2] > least
    np.testing.assert_allclose(np.linalg.norm(normals[model.faces.ravel()], axis=1), 1, atol=1e-6)


def test_small_rotations_come_back_from_their_matrices():
    vectors = np.random.default_rng(0).normal(0, 0.01, (5, 3)).astype(np.float32)
    np.testing.assert_allclose(small_logarithm(exponential(vectors)), vectors, atol=1e-5)
