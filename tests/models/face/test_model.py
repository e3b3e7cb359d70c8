import numpy as np
import pytest

from models.face.camera import rotation_matrix
from models.face.model import (
    POSE_NAMES,
    channel_effects,
    deform,
    dense_landmarks,
    joint_rotations,
    joint_transforms,
    landmarks68,
    load_face_model,
    pose_features,
)


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def _random(model, rng, frames):
    low, high = model.expression_range.T
    shape = rng.normal(size=model.num_shape).astype(np.float32)
    return shape, (low + (high - low) * rng.random((frames, model.num_expression))).astype(np.float32)


def test_without_pose_a_face_is_mean_plus_bases(model):
    shape = np.zeros(model.num_shape, np.float32)
    expression = np.zeros((3, model.num_expression), np.float32)
    np.testing.assert_array_equal(deform(model, shape, expression[0]), model.vertices)
    shape[2], expression[1, 5], expression[2, 5] = 1.5, 0.5, 1.0
    out = deform(model, shape, expression)
    assert out.shape == (3, *model.vertices.shape) and out.dtype == np.float32
    expected = model.vertices + 1.5 * model.shape_basis[..., 2] + 0.5 * model.expression_basis[..., 5]
    np.testing.assert_allclose(out[1], expected, atol=1e-6)


def test_names_and_sizes(model):
    assert model.expression_names[-5:] == POSE_NAMES
    assert model.num_expression == len(model.expression_names) == model.num_blend + 5 == len(model.expression_range)
    assert model.joints.shape == (len(model.joint_names), 3) and len(model.joint_parents) == 4
    vector = model.expression(jaw_x=0.2, smile=0.5)
    assert vector[model.expression_index("jaw_x")] == np.float32(0.2) and np.count_nonzero(vector) == 2


def test_a_vertex_of_one_joint_turns_about_it(model):
    """Against the textbook: rest, subtract the joint, rotate, add it again; a child's motion after its parent's."""
    shape = np.random.default_rng(1).normal(size=model.num_shape).astype(np.float32)
    expression = model.expression(jaw_x=0.3, jaw_y=0.05, gaze_x=0.3)
    neck = np.array([0.1, -0.2, 0.05], np.float32)
    rest = deform(model, shape, np.zeros(model.num_expression, np.float32))
    posed = deform(model, shape, expression, neck)
    joints = model.joints + model.joint_basis @ shape
    turn_neck, turn_jaw = rotation_matrix(neck), rotation_matrix(np.array([0.3, 0.05, 0], np.float32))
    for joint, turn in ((1, turn_jaw), (0, np.eye(3))):
        alone = (model.skin_weights[:, joint] == 1) & (np.abs(model.pose_basis).max((1, 2)) == 0)
        assert alone.sum() > 50
        moved = (rest[alone] - joints[joint]) @ turn.T + joints[joint]
        expected = (moved - joints[0]) @ turn_neck.T + joints[0]
        np.testing.assert_allclose(posed[alone], expected, atol=1e-6)
    root = model.skin_weights.sum(1) == 0
    np.testing.assert_allclose(posed[root], rest[root], atol=1e-6)


def test_joints_move_with_the_identity(model):
    shape = np.random.default_rng(2).normal(size=model.num_shape).astype(np.float32)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    np.testing.assert_allclose(model.joints + model.joint_basis @ shape, model.joint_regressor @ person, atol=1e-5)


def test_pose_features_are_the_rotations_less_the_identity(model):
    rotations = joint_rotations(model.expression(gaze_y=0.3)[None])
    features = pose_features(rotations)
    assert features.shape == (1, 36)
    assert np.abs(features[:, :18]).max() == 0  # neck and jaw are straight
    np.testing.assert_allclose(features[0, 18:27].reshape(3, 3) + np.eye(3), rotations[0, 2], atol=1e-7)
    np.testing.assert_allclose(rotations[0, 2] @ [0, 0, 1], [0, np.sin(0.3), np.cos(0.3)], atol=1e-6)


def test_leading_dimensions_broadcast(model):
    rng = np.random.default_rng(3)
    _, expression = _random(model, rng, 2)
    shapes = rng.normal(size=(4, 1, model.num_shape)).astype(np.float32)
    small = model.landmark_model()
    out = deform(small, shapes, expression)
    assert out.shape == (4, 2, 68, 3)
    np.testing.assert_allclose(out[3, 1], deform(small, shapes[3, 0], expression[1]), atol=1e-6)
    alone = deform(small, shapes[:, 0], expression[0])
    np.testing.assert_allclose(alone[2], out[2, 0], atol=1e-6)
    transforms = joint_transforms(small, shapes, joint_rotations(expression))
    assert transforms.shape == (4, 2, 4, 3, 4)


def test_jax_equals_numpy_and_differentiates_at_rest(model):
    import jax
    import jax.numpy as jnp

    small = model.landmark_model()
    rng = np.random.default_rng(0)
    shape, expression = _random(model, rng, 4)
    neck = rng.normal(0, 0.1, (4, 3)).astype(np.float32)
    out = deform(small, jnp.asarray(shape), jnp.asarray(expression), jnp.asarray(neck))
    assert isinstance(out, jnp.ndarray)
    np.testing.assert_allclose(np.asarray(out), deform(small, shape, expression, neck), atol=1e-6)
    jacobian = jax.jacobian(lambda e: deform(small, jnp.asarray(shape), e))(jnp.zeros(model.num_expression))
    assert bool(jnp.isfinite(jacobian).all())
    chin = jacobian[8, :, model.expression_index("jaw_x")]
    assert chin[1] < -0.05  # opening brings the chin down


def test_the_effect_of_a_channel_is_how_far_it_moves_the_points(model):
    landmarks = model.landmark_model()
    rest, step = np.zeros(model.num_expression, np.float32), np.full(model.num_expression, 0.1, np.float32)
    effect = channel_effects(landmarks, rest, step)
    one = model.expression(jaw_x=0.1)
    still = np.zeros(model.num_shape, np.float32)
    moved = np.linalg.norm(deform(landmarks, still, one) - deform(landmarks, still, rest), axis=-1)
    assert effect[model.expression_index("jaw_x")] == pytest.approx(np.sqrt((moved**2).mean()), rel=1e-4)
    assert effect[model.expression_index("jaw_x")] > 10 * effect[model.expression_index("blink_left")]
    assert effect[model.expression_index("gaze_x")] == 0  # no landmark lies on an eyeball


@pytest.mark.parametrize("kind", ["landmark", "dense"])
def test_models_of_points_give_what_the_whole_model_gives(model, kind):
    rng = np.random.default_rng(5)
    shape, expression = _random(model, rng, 3)
    neck = rng.normal(0, 0.1, (3, 3)).astype(np.float32)
    whole = deform(model, shape, expression, neck)
    small, pick = (
        (model.landmark_model(), landmarks68) if kind == "landmark" else (model.dense_model(), dense_landmarks)
    )
    points = deform(small, shape, expression, neck)
    np.testing.assert_allclose(points, pick(model, whole), atol=1e-6)
    np.testing.assert_allclose(pick(small, points), points, atol=0)


def test_points_inside_triangles_follow_closely(model):
    """A point's weights are blended, not its motion: the difference stays far below what a fit can see."""
    rng = np.random.default_rng(6)
    ids = rng.choice(np.where(np.isin(model.faces, model.faces[model.dense_faces]).all(1))[0], 200)
    weights = rng.dirichlet([1, 1, 1], 200).astype(np.float32)
    shape, expression = _random(model, rng, 3)
    small = model.points_model(ids, weights)
    exact = (deform(model, shape, expression)[:, model.faces[ids]] * weights[..., None]).sum(2)
    assert np.abs(deform(small, shape, expression) - exact).max() < 3e-4


def test_landmarks_of_pixels_and_of_a_larger_mesh(model):
    points = np.concatenate([model.vertices, np.zeros((7, 3), np.float32)])[None]
    np.testing.assert_array_equal(landmarks68(model, points)[0], landmarks68(model, model.vertices))
    assert landmarks68(model, model.vertices[:, :2]).shape == (68, 2)
