"""The measure of fits: what it says of perfect fits, of wrong ones, and of a rendered corpus."""

import argparse
import dataclasses

import numpy as np
import pytest

from infra.measure_command import MEASURES
from models.errors import InputError
from models.face.camera import default_camera, project, rotation_matrix
from models.face.model import deform, load_face_model
from pipelines.measure import fits
from pipelines.stages.face_fit import FaceFit

FRAMES = 20


@pytest.fixture(scope="module")
def model():
    return load_face_model()


@pytest.fixture(scope="module")
def exact(model):
    """A fit that is the truth."""
    rng = np.random.default_rng(0)
    shape = rng.normal(0, 0.7, model.num_shape).astype(np.float32)
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    expression[:, model.expression_index("jaw_x")] = 0.1 * (1 - np.cos(np.arange(FRAMES)))
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 1], pose[:, 5] = np.linspace(-0.3, 0.3, FRAMES), 1.6
    landmarks = project(deform(model.landmark_model(), shape, expression), pose, default_camera())
    truth = {
        "shape": shape,
        "expression": expression,
        "rotation": rotation_matrix(pose[:, :3]),
        "landmarks": landmarks.astype(np.float32),
    }
    return FaceFit(shape, expression, pose, default_camera(), 0.0, 100.0), truth


def test_a_perfect_fit_has_no_errors(model, exact):
    row = fits.against_truth(*exact, model)
    assert row.pop("mouth_correlation") == pytest.approx(1)
    assert row == pytest.approx(dict.fromkeys(row, 0), abs=1e-3)
    assert set(row) >= {"rotation_degrees", "landmark_percent", "identity_mm", "gaze_degrees"}


def test_errors_are_in_their_units(model, exact):
    fit, truth = exact
    turned = fit.pose.copy()
    turned[:, 0] += np.radians(5)
    turned[:, 1] = fit.pose[:, 1]
    row = fits.against_truth(dataclasses.replace(fit, pose=turned), truth, model)
    assert row["rotation_degrees"] == pytest.approx(5, abs=0.3) and row["landmark_percent"] > 0.5
    looking = fit.expression.copy()
    looking[:, -2] += 0.1
    row = fits.against_truth(dataclasses.replace(fit, expression=looking), truth, model)
    assert row["gaze_degrees"] == pytest.approx(np.degrees(0.1), abs=1e-3)
    # A head that is a tenth larger is the same identity.
    mean = dataclasses.replace(fit, shape=np.zeros_like(fit.shape))
    assert 1 < fits.against_truth(mean, truth, model)["identity_mm"] < 6


def test_still_mouths_correlate_with_nothing(model, exact):
    fit, truth = exact
    still = dataclasses.replace(fit, expression=np.zeros_like(fit.expression))
    assert fits.against_truth(still, truth, model)["mouth_correlation"] == 0


def test_jitter_is_measured_against_the_landmarks_own(model, exact):
    fit, truth = exact
    rng = np.random.default_rng(0)
    noisy = truth["landmarks"] + rng.normal(0, 1, truth["landmarks"].shape)
    calm = fits.against_landmarks(fit, noisy, model)
    shaken = fit.pose + rng.normal(0, 0.02, fit.pose.shape).astype(np.float32)
    nervous = fits.against_landmarks(dataclasses.replace(fit, pose=shaken), noisy, model)
    assert calm["jitter_of_landmarks"] < 0.3 < 1 < nervous["jitter_of_landmarks"]


def test_truth_is_cut_and_turned_with_the_crop(model):
    """The same head, seen by the source's camera and, through a crop beside the middle, by the crop's."""
    shape, expression = np.zeros(model.num_shape, np.float32), np.zeros((2, model.num_expression), np.float32)
    pose = np.array([[0.1, 0.2, 0, 0.3, 0.1, 2.3], [0.1, 0.2, 0, 0.3, 0.1, 2.3]], np.float32)
    camera = np.array([2400.0, 320, 240], np.float32)
    seen = project(deform(model.landmark_model(), shape, expression), pose, camera)
    middle = seen[0].mean(0)
    clip = {"start_frame": 1, "end_frame": 2, "box": np.array([*(middle - 150), 300], np.float32)}
    arrays = {"shape": shape, "expression": expression, "pose": pose, "camera": camera, "landmarks": seen}
    truth = fits.cut_truth(arrays, clip)
    assert truth["landmarks"].shape == (1, 68, 2) and np.allclose(truth["landmarks"].mean(1), 128, atol=1e-2)
    # A camera that looks straight at the crop sees the same landmarks with the turned head.
    focal = 2400 * 256 / 300
    points = deform(model.landmark_model(), shape, expression[0]) * [1, -1, -1] @ truth["rotation"][0].T
    points = points + [0, 0, np.linalg.norm(pose[0, 3:])]
    again = points[:, :2] / points[:, 2:] * focal
    ours = truth["landmarks"][0] - truth["landmarks"][0].mean(0)
    assert np.abs(again - again.mean(0) - ours).max() < 2.0  # off-axis, pixels are a little wider


def test_the_command_asks_for_something_to_measure():
    assert "fits" in MEASURES
    parser = argparse.ArgumentParser()
    fits.register(parser)
    with pytest.raises(InputError, match="--corpus"):
        fits.measure(parser.parse_args([]))


@pytest.mark.slow
def test_a_rendered_clip_is_measured(tmp_path):
    from pipelines.synthesize import SynthesizeConfig, synthesize

    synthesize(SynthesizeConfig(1, str(tmp_path), seed=900, workers=1, quiet=True))
    figures = fits.measure_corpus(tmp_path)
    assert figures["synthetic_clips"] == 1 and set(fits.TARGETS) >= {"rotation_degrees", "landmark_percent"}
    assert figures["rotation_degrees"] < 6 and figures["landmark_percent"] < 3
    assert figures["landmark_percent_from_true_landmarks"] < 1


@pytest.mark.slow
def test_real_clips_are_fitted_within_two_percent(real_clips, tmp_path, model):
    from pipelines.curate import CurateConfig, curate

    curate(CurateConfig((str(real_clips / "liveportrait_d10.mp4"),), str(tmp_path)))
    figures = fits.measure_dataset(str(tmp_path), model)
    assert figures["real_clips"] == 2
    assert figures["reprojection_percent_worst"] < 2 and figures["jitter_of_landmarks_real_worst"] < 1
