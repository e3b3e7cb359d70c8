"""The fit gets back shapes, expressions and poses from the landmarks that they project to."""

from dataclasses import replace

import numpy as np
import pytest

from models.errors import InputError
from models.face.camera import default_camera, project, rotation_matrix
from models.face.model import deform, load_face_model
from models.face.render import render_preview
from pipelines.stages.face_fit import FitConfig, axis_angles, face_size, fit_clip
from tests.models.face.released import embedding, flame_2020

FRAMES = 61
CONFIG = FitConfig(bucket=64)


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
    # A landmark's pixel starts at its centre, a camera's at its edge.
    landmarks = project(vertices, pose, default_camera()) - 0.5 + rng.normal(0, noise, (FRAMES, 68, 2))
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
    fit = fit_clip(landmarks, model, CONFIG)
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
    fit = fit_clip(landmarks, model, CONFIG)
    column = model.expression_index("blink_left")
    assert np.corrcoef(fit.expression[:, column], expression[:, column])[0, 1] > 0.8


def test_large_turns_are_followed(model):
    _, _, pose, landmarks = talking_head(model, 4, yaw=0.8)
    assert rotation_errors(fit_clip(landmarks, model, CONFIG).pose, pose).mean() < 3


def test_expression_stays_in_bounds_and_padding_changes_nothing(model):
    *_, landmarks = talking_head(model, 5, noise=1.5)
    fit = fit_clip(landmarks, model, CONFIG)
    lower, upper = model.expression_range.T
    assert (fit.expression >= lower).all() and (fit.expression <= upper).all()
    assert fit.expression.shape == (FRAMES, model.num_expression) and fit.pose.shape == (FRAMES, 6)
    again = fit_clip(landmarks, model, CONFIG)
    assert np.array_equal(fit.expression, again.expression) and np.array_equal(fit.pose, again.pose)
    # 61 frames are solved in a bucket of 64; the same clip cut to one frame fewer must hardly differ.
    shorter = fit_clip(landmarks[:-1], model, CONFIG)
    assert np.abs(shorter.pose[:50] - fit.pose[:50]).max() < 0.02


def test_scale_of_the_crop_does_not_matter(model):
    _, expression, pose, landmarks = talking_head(model, 6)
    far = pose.copy()
    far[:, 3:] *= 2
    vertices = deform(model.landmark_model(), np.zeros(model.num_shape, np.float32), expression)
    small = project(vertices, far, default_camera()).astype(np.float32) - 0.5
    fit = fit_clip(small, model, CONFIG)
    assert rotation_errors(fit.pose, pose).mean() < 3
    assert abs(np.median(fit.pose[:, 5]) / np.median(far[:, 5]) - 1) < 0.1


@pytest.mark.parametrize(
    "bad", [np.zeros((5, 67, 2)), np.zeros((0, 68, 2)), np.full((5, 68, 2), np.nan), np.ones((5, 68, 2))]
)
def test_wrong_landmarks_are_refused(model, bad):
    with pytest.raises(InputError, match="landmarks"):
        fit_clip(bad, model, CONFIG)


def test_frames_far_apart_are_smoothed_less(model):
    _, _, pose, landmarks = talking_head(model, 7, noise=0.3)
    apart = fit_clip(landmarks[::6], model, CONFIG, stride=6)
    assert rotation_errors(apart.pose, pose[::6]).mean() < 3
    # The same rows, taken for neighbours, may hardly turn.
    near = fit_clip(landmarks[::6], model, FitConfig(bucket=64, rotation_smoothness=2e6, steps=60))
    assert np.ptp(near.pose[:, 1]) < 0.8 * np.ptp(apart.pose[:, 1])


def biased_clip(model, seed: int):
    """A clip under a detector that sees the nose and the mouth lower than they are, more so in some frames.

    Returns landmarks, frames, the true gaze, and a function of a fit: mean landmark error in pixels, mean rotation
    error in degrees.
    """
    shape, expression, pose, _ = talking_head(model, seed, yaw=0.2, noise=1.0)
    expression[:, model.expression_index("blink_left")] = expression[:, model.expression_index("blink_right")] = 0
    expression[:, -2] = 0.3 * np.sin(np.arange(FRAMES) / 6)
    pose[:, 5] -= 0.3
    frames = render_preview(model, shape, expression, pose)
    truth = project(deform(model.landmark_model(), shape, expression), pose, default_camera())
    landmarks = truth - 0.5 + np.random.default_rng(0).normal(0, 0.7, truth.shape)
    landmarks[:, 27:, 1] += 1 + np.sin(np.arange(FRAMES) / 4)[:, None]

    def errors(fit):
        seen = project(deform(model.landmark_model(), fit.shape, fit.expression), fit.pose, fit.camera)
        return np.linalg.norm(seen - truth, axis=-1).mean(), rotation_errors(fit.pose, pose).mean()

    return landmarks.astype(np.float32), frames, expression[:, -2], errors


def test_colours_improve_on_biased_landmarks_and_tell_the_gaze(model):
    landmarks, frames, gaze, errors = biased_clip(model, 8)
    colours = replace(CONFIG, refine=False)
    blind, seeing = fit_clip(landmarks, model, colours), fit_clip(landmarks, model, colours, frames)
    assert np.isnan(blind.photometric_error) and 0 < seeing.photometric_error < 0.1
    assert (blind.expression[:, -2:] == 0).all()
    assert (np.array(errors(seeing)) < 0.85 * np.array(errors(blind))).all()
    assert np.corrcoef(seeing.expression[:, -2], gaze)[0, 1] > 0.9


def test_pixels_improve_on_the_average_of_several_clips(model):
    """As annotate fits, with the refiner, which can turn a single head without texture by some tenths of a degree."""
    blind, seeing = [], []
    for seed in (8, 9, 10):
        landmarks, frames, _, errors = biased_clip(model, seed)
        blind.append(errors(fit_clip(landmarks, model, CONFIG)))
        seeing.append(errors(fit_clip(landmarks, model, CONFIG, frames)))
    assert (np.mean(seeing, 0) < 0.85 * np.mean(blind, 0)).all(), (seeing, blind)
    assert (np.array(seeing)[:, 1] < np.array(blind)[:, 1] + 0.3).all()


def test_a_model_of_flames_layout_is_fitted(tmp_path):
    (tmp_path / "generic_model.pkl").write_bytes(flame_2020())
    np.savez(tmp_path / "flame_static_embedding_68.npz", **embedding())
    flame = load_face_model(tmp_path / "generic_model.pkl")
    rng = np.random.default_rng(0)
    frames = 6
    shape = rng.normal(0, 0.5, flame.num_shape).astype(np.float32)
    expression = np.zeros((frames, flame.num_expression), np.float32)
    expression[:, flame.expression_index("jaw_x")] = np.linspace(0, 0.25, frames)
    pose = np.zeros((frames, 6), np.float32)
    pose[:, 1], pose[:, 5] = np.linspace(-0.3, 0.3, frames), 1.6
    truth = project(deform(flame.landmark_model(), shape, expression), pose, default_camera())
    fit = fit_clip((truth - 0.5).astype(np.float32), flame, FitConfig(bucket=frames))
    assert fit.shape.shape == (300,) and fit.expression.shape == (frames, 105)
    assert rotation_errors(fit.pose, pose).mean() < 3 and fit.reprojection_error < 0.01 * fit.face_size
    assert np.corrcoef(fit.expression[:, 100], expression[:, 100])[0, 1] > 0.95


@pytest.mark.parametrize("bad", [np.zeros((5, 128, 128, 3), np.uint8), np.zeros((4, 256, 256, 3), np.uint8)])
def test_wrong_frames_are_refused(model, bad):
    *_, landmarks = talking_head(model, 9)
    with pytest.raises(InputError, match="frames"):
        fit_clip(landmarks[:5], model, CONFIG, bad)
