"""Flicker counts label changes where the picture stands still, and only there."""

import numpy as np
import pytest

from pipelines.stages.steadiness import label_flicker


def test_changes_in_still_places_count():
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (1, 64, 64, 3), np.uint8), 3, 0)
    labels = np.zeros((3, 64, 64), np.uint8)
    assert label_flicker(frames, labels) == 0
    labels[1, :16] = 3
    assert label_flicker(frames, labels) == pytest.approx(0.25)


def test_changes_where_something_moves_do_not_count():
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    frames[1, :, 32:] = 200
    labels = np.zeros((2, 64, 64), np.uint8)
    labels[1, :, 32:] = 1
    assert label_flicker(frames, labels) == 0
    labels[1, :, :10] = 1
    assert label_flicker(frames, labels) > 0.2


def test_a_picture_in_which_everything_moves_says_nothing():
    frames = np.stack([np.full((16, 16, 3), v, np.uint8) for v in (0, 100)])
    assert np.isnan(label_flicker(frames, np.zeros((2, 16, 16), np.uint8)))
