"""The fit gets back shapes, expressions and poses from the landmarks that they project to."""

import numpy as np
import pytest

from models.errors import InputError
from models.face.camera import default_camera, project, rotation_matrix
from models.face.model import deform, load_face_model
from pipelines.stages.face_fit import axis_angles, expression_bounds, face_size, fit_clip

FRAMES = 61


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def talking_head(model, seed: int, yaw: float = 0.35, noise: float = 0.0):
    """A synthetic clip: identity, smooth head motion, a mouth that opens and closes, blinks; returns truth and
    landmarks.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(FRAMES) / 30
    shape = np.clip(rng.normal(0, 0.7, model.num_shape), -2, 2).astype(np.float32)
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    expression[:, model.expression_index("jaw_x")] = 0.07 * (1 - np.cos(2 * np.pi * 2.5 * time))
    expression[:, model.expression_index("smile")] = 0.3 + 0.2 * np.sin(time)
    for name in ("blink_left", "blink_right"):
        expression[:, model.expression_index(name)] = np.exp(-(((time - 1.0) / 0.08) ** 2))
    phase = rng.uniform(0, 6, 3)
    pose = np.stack(
        [
            0.15 * np.sin(1.7 * time + phase[0]),
            yaw * np.sin(2.1 * time + phase[1]),
            0.12 * np.sin(1.3 * time + phase[2]),
            0.02 * np.sin(time),
            0.01 * np.cos(time),
            1.7 + 0.05 * np.sin(time),
        ],
        1,
    ).astype(np.float32)
    vertices = deform(model.landmark_model(), shape, expression)
    landmarks = project(vertices, pose, default_camera()) + rng.normal(0, noise, (FRAMES, 68, 2))
    return shape, expression, pose, landmarks.astype(np.float32)


def rotation_errors(pose: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angles between two series of poses, in degrees."""
    left, right = rotation_matrix(pose[:, :3]), rotation_matrix(truth[:, :3])
    return np.degrees(np.linalg.norm(axis_angles(left @ right.transpose(0, 2, 1)), axis=1))


def mouth_opening(model, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
    vertices = deform(model.landmark_model(), shape, expression)
    return np.linalg.norm(vertices[:, 62] - vertices[:, 66], axis=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fit_recovers_what_was_projected(model, seed):
    shape, expression, pose, landmarks = talking_head(model, seed, noise=0.5)
    fit = fit_clip(landmarks, model)
    assert rotation_errors(fit.pose, pose).mean() < 3
    assert fit.reprojection_error < 0.015 * face_size(landmarks)
    assert np.abs(fit.pose[:, 3:5] - pose[:, 3:5]).mean() < 0.005
    opening = mouth_opening(model, fit.shape, fit.expression)
    truth = mouth_opening(model, shape, expression)
    assert np.corrcoef(opening, truth)[0, 1] > 0.95
    # A closed mouth comes back closed: on average within a tenth of its widest opening.
    assert np.abs(opening[truth < truth.min() + 1e-3] - truth.min()).mean() < 0.1 * truth.max()


def test_blinks_are_seen(model):
    _, expression, _, landmarks = talking_head(model, 3, yaw=0.2, noise=0.3)
    fit = fit_clip(landmarks, model)
    column = model.expression_index("blink_left")
    assert np.corrcoef(fit.expression[:, column], expression[:, column])[0, 1] > 0.8


def test_large_turns_are_followed(model):
    _, _, pose, landmarks = talking_head(model, 4, yaw=0.8)
    assert rotation_errors(fit_clip(landmarks, model).pose, pose).mean() < 3


def test_expression_stays_in_bounds_and_padding_changes_nothing(model):
    *_, landmarks = talking_head(model, 5, noise=1.5)
    fit = fit_clip(landmarks, model)
    lower, upper = expression_bounds(model)
    assert (fit.expression >= lower).all() and (fit.expression <= upper).all()
    assert fit.expression.shape == (FRAMES, model.num_expression) and fit.pose.shape == (FRAMES, 6)
    again = fit_clip(landmarks, model)
    assert np.array_equal(fit.expression, again.expression) and np.array_equal(fit.pose, again.pose)
    # 61 frames are solved in a bucket of 192; the same clip cut to one frame fewer must hardly differ.
    shorter = fit_clip(landmarks[:-1], model)
    assert np.abs(shorter.pose[:50] - fit.pose[:50]).max() < 0.02


def test_scale_of_the_crop_does_not_matter(model):
    _, expression, pose, landmarks = talking_head(model, 6)
    far = pose.copy()
    far[:, 3:] *= 2
    vertices = deform(model.landmark_model(), np.zeros(model.num_shape, np.float32), expression)
    small = project(vertices, far, default_camera()).astype(np.float32)
    fit = fit_clip(small, model)
    assert rotation_errors(fit.pose, pose).mean() < 3
    assert abs(np.median(fit.pose[:, 5]) / np.median(far[:, 5]) - 1) < 0.1


@pytest.mark.parametrize(
    "bad", [np.zeros((5, 67, 2)), np.zeros((0, 68, 2)), np.full((5, 68, 2), np.nan), np.ones((5, 68, 2))]
)
def test_wrong_landmarks_are_refused(model, bad):
    with pytest.raises(InputError, match="landmarks"):
        fit_clip(bad, model)
