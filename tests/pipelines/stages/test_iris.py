"""Irises drawn into eyes are found where they were drawn."""

import cv2
import numpy as np
import pytest

from pipelines.stages.iris import find_irises

FRAMES = 12


def eyes(opening: float = 0.34, tilt: float = 0.2):
    """Returns frames, landmarks and the irises' centres: two eyes 26 pixels long, tilted, the irises moving."""
    length = 26.0
    outline = np.array([[-0.5, 0], [-0.18, -0.5], [0.18, -0.5], [0.5, 0], [0.18, 0.5], [-0.18, 0.5]])
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    landmarks = np.zeros((FRAMES, 68, 2), np.float32)
    centres = np.zeros((FRAMES, 2, 2), np.float32)
    frames = np.full((FRAMES, 256, 256, 3), (190, 145, 120), np.uint8)
    for t in range(FRAMES):
        for eye, middle in enumerate(([90.0, 110.0], [160.0, 112.0])):
            shape = outline * [length, opening * length] @ turn.T + middle
            landmarks[t, 36 + 6 * eye : 42 + 6 * eye] = shape
            centres[t, eye] = np.array([0.2 * length * np.sin(t / 2), 0]) @ turn.T + middle
            picture = np.full((256, 256, 3), (225, 220, 215), np.uint8)
            cv2.circle(
                picture, np.round(centres[t, eye] * 16).astype(int).tolist(), int(5.0 * 16), (70, 50, 35), -1, 16, 4
            )
            inside = np.zeros((256, 256), np.uint8)
            cv2.fillPoly(inside, [np.round(shape * 16).astype(np.int32)], 1, shift=4)
            frames[t][inside > 0] = picture[inside > 0]
    return frames, landmarks, centres


@pytest.mark.parametrize("tilt", [0.0, 0.2, -0.3])
def test_irises_are_found(tilt):
    frames, landmarks, truth = eyes(tilt=tilt)
    centres, trust = find_irises(frames, landmarks)
    assert centres.shape == (FRAMES, 2, 2) and centres.dtype == np.float32 and trust.shape == (FRAMES, 2)
    assert np.linalg.norm(centres - truth, axis=-1).mean() < 1.0
    assert (trust > 0.6).all()


def test_closed_and_tiny_eyes_are_not_trusted():
    frames, landmarks, _ = eyes(opening=0.08)
    assert (find_irises(frames, landmarks)[1] == 0).all()
    frames, landmarks, _ = eyes()
    assert (find_irises(frames, landmarks * 0.2)[1] == 0).all()


def test_an_even_eye_is_not_trusted():
    frames, landmarks, _ = eyes()
    assert (find_irises(np.full_like(frames, 128), landmarks)[1] == 0).all()
