"""A refiner trained on drawn faces finds the landmarks of others, from wherever it starts."""

import cv2
import numpy as np
import pytest

from models.errors import InputError
from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.io import save_model
from models.landmark_refiner import (
    EMBEDDED,
    RefinerConfig,
    load_refiner,
    luma,
    mean_landmarks,
    save_refiner,
    similarity,
    train,
)

LINES = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68))


def drawn(count: int, seed: int):
    """Returns pictures (N, 128, 128, 3) of faces drawn as lines, where a detector would see them, and the truth."""
    model, rng = load_face_model(), np.random.default_rng(seed)
    points = model.landmark_model()
    frames, truth = [], []
    for _ in range(count):
        shape = rng.normal(0, 0.8, model.num_shape).astype(np.float32)
        face = deform(points, shape, model.expression(jaw_x=rng.uniform(0, 0.3), smile=rng.uniform(0, 1)))
        pose = np.array([*rng.normal(0, (0.1, 0.2, 0.1)), 0, 0.03, 2.0], np.float32)
        seen = (project(face, pose, default_camera()) - 0.5) / 2
        frame = np.full((128, 128, 3), rng.integers(120, 220), np.uint8)
        for first, last in LINES:
            line = np.round(seen[first:last] * 16).astype(np.int32)
            cv2.polylines(frame, [line], first >= 36, (60, 50, 45), 2, cv2.LINE_AA, 4)
        frames.append(frame)
        truth.append(seen)
    truth = np.stack(truth).astype(np.float32)
    # It errs: a habit of its own, and a different mistake in each picture.
    habit = np.zeros((68, 2))
    habit[17:27, 1], habit[48:, 0] = 2.5, 2
    detected = truth + habit + rng.normal(0, 1.5, (count, 1, 2)) + rng.normal(0, 0.7, truth.shape)
    return np.stack(frames), detected.astype(np.float32), truth


def errors(landmarks, truth):
    return np.linalg.norm(landmarks - truth, axis=-1).mean()


@pytest.fixture(scope="module")
def refiner():
    frames, detected, truth = drawn(120, 0)
    return train(luma(frames), detected, truth, RefinerConfig(starts=2))


def test_others_are_refined(refiner):
    frames, detected, truth = drawn(40, 1)
    refined = refiner.refine(frames, detected)
    assert refined.shape == truth.shape and refined.dtype == np.float32
    assert errors(refined, truth) < 0.6 * errors(detected, truth)
    # It follows pixels, not the detector's habit: landmarks that are right stay about where they are.
    assert errors(refiner.refine(frames, truth), truth) < 0.6 * errors(detected, truth)


def test_what_it_does_not_know_keeps_its_landmarks(refiner):
    frames, detected, _ = drawn(9, 5)
    assert refiner.known_share(frames, detected) > 0.9
    noise = np.random.default_rng(6).integers(0, 255, frames.shape, np.uint8)
    assert refiner.known_share(noise, detected) == 0
    np.testing.assert_array_equal(refiner.refine(noise, detected), detected)


def test_a_moved_picture_moves_the_landmarks(refiner):
    frames, detected, _ = drawn(3, 2)
    moved = np.roll(frames, (3, 5), (1, 2))
    there = refiner.refine(moved, detected + np.float32([5, 3]))
    np.testing.assert_allclose(there - np.float32([5, 3]), refiner.refine(frames, detected), atol=0.1)


def test_it_is_saved_and_loaded(refiner, tmp_path):
    save_refiner(tmp_path / "refiner", refiner, {"frames": 120})
    frames, detected, _ = drawn(3, 3)
    again = load_refiner(str(tmp_path / "refiner"))
    np.testing.assert_allclose(again.refine(frames, detected), refiner.refine(frames, detected), atol=0.05)
    save_model(tmp_path / "other", "speech", {}, {"mean": np.zeros(3)})
    with pytest.raises(InputError, match="landmark-refiner"):
        load_refiner(str(tmp_path / "other"))


def test_the_embedded_one_is_small_and_says_where_it_is_from():
    refiner = load_refiner()
    assert refiner.config == RefinerConfig() and refiner.up.shape == (2, refiner.config.rank, 136)
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 4 << 20


def test_the_mean_is_upright_and_of_unit_size():
    *_, truth = drawn(20, 4)
    mean = mean_landmarks(truth)
    np.testing.assert_allclose(mean.mean(0), 0, atol=1e-5)
    assert np.sqrt((mean**2).sum(-1).mean()) == pytest.approx(1, abs=1e-5)
    assert mean[8, 1] > mean[27, 1] and abs(mean[36, 1] - mean[45, 1]) < 0.1


def test_similarities_are_found():
    points = np.random.default_rng(0).normal(size=(1, 68)) + 1j * np.random.default_rng(1).normal(size=(1, 68))
    a, b = similarity(points, (0.5 + 2j) * points + 3 - 1j)
    np.testing.assert_allclose([a[0, 0], b[0, 0]], [0.5 + 2j, 3 - 1j])
