"""Augmented examples: labels follow what moves and what covers, sides follow the mirror, chance follows the seed."""

import numpy as np
import pytest

from models.labels import EVERY_LABEL, LABEL_INDEX, label_set
from models.segmenter import WINDOWS
from pipelines.stages.augment import COVER, AugmentConfig, augmented_example, plain_example
from pipelines.stages.label_adapters import truth_labels

STILL = AugmentConfig(strength=0, background=0, dye=0, light=0, cover=0, grey=0, blur=0, small=0, noise=0, compress=0)


@pytest.fixture
def item(person):
    frames, landmarks, truth = person
    labels = truth_labels(truth[4])
    return {
        "picture": frames[4],
        "codes": labels.codes,
        "sets": labels.sets,
        "landmarks": landmarks[4],
        "box": np.array([0, 0, 256], np.float32),
    }


def test_the_plain_example_is_the_crop(item):
    example = plain_example(item)
    np.testing.assert_array_equal(example["picture"], item["picture"])
    np.testing.assert_array_equal(example["sets"], item["sets"][item["codes"]][1::2, 1::2])
    assert example["windows"].shape == (len(WINDOWS), 64, 64, 3)
    lips = label_set("lips")
    assert (example["window_sets"][-1] == lips).mean() > 0.05 and not (example["window_sets"][2:4] == lips).any()


def lips_share(example):
    """How red the pixels labelled lips are against those that are not, in the mouth's window."""
    window, lips = example["windows"][-1].astype(float), example["window_sets"][-1] == label_set("lips")
    redness = window[..., 0] - window[..., 1]
    return redness[lips].mean() - redness[~lips & (example["window_sets"][-1] == label_set("face"))].mean()


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_windows_follow_the_geometry(item, seed):
    only_geometry = AugmentConfig(**{**STILL.__dict__, "strength": 1.0})
    example = augmented_example(item, np.random.default_rng(seed), only_geometry)
    picture = example["picture"].astype(float)
    lips = np.kron(example["sets"] == label_set("lips"), np.ones((2, 2))) > 0
    hair = np.kron(example["sets"] == label_set("hair"), np.ones((2, 2))) > 0
    assert lips.sum() > 100
    assert (picture[..., 0] - picture[..., 1])[lips].mean() > 20
    assert picture[hair].mean() < picture[lips].mean() - 20
    assert lips_share(example) > 15


def test_a_mirrored_example_has_its_eyes_exchanged(item):
    # A mark beside the subject's right eye, left in the picture.
    item["codes"] = item["codes"].copy()
    x, y = item["landmarks"][36].round().astype(int)
    item["codes"][y - 2 : y + 3, x - 2 : x + 3] = LABEL_INDEX["pupil"]
    sides = set()
    for seed in range(8):
        example = augmented_example(item, np.random.default_rng(seed), STILL)
        eyes = example["window_sets"][2:4]
        marked = (eyes == label_set("pupil")).any((1, 2))
        assert marked.sum() == 1 and not (example["window_sets"][-1] == label_set("pupil")).any()
        flipped = marked[1]
        columns = np.nonzero(example["sets"] == label_set("pupil"))[1]
        assert (columns.mean() > 64) == flipped
        # Either way it lies on the window's left, where outer corners are.
        window = eyes[int(flipped)] == label_set("pupil")
        assert np.nonzero(window)[1].mean() < 32
        sides.add(bool(flipped))
    assert sides == {True, False}


def test_what_covers_is_labelled_and_what_lies_outside_is_open(item):
    config = AugmentConfig(**{**STILL.__dict__, "cover": 1.0})
    covered = [augmented_example(item, np.random.default_rng(seed), config)["sets"] for seed in range(6)]
    assert sum((sets == COVER).any() for sets in covered) >= 5
    small = {**item, "box": np.array([-200, -200, 656], np.float32)}
    sets = plain_example(small)["sets"]
    assert sets[0, 0] == EVERY_LABEL and sets[64, 64] != EVERY_LABEL


def test_another_background_changes_the_background_alone(item):
    config = AugmentConfig(**{**STILL.__dict__, "background": 1.0})
    seed = 3
    plain = augmented_example(item, np.random.default_rng(seed), STILL)["picture"].astype(float)
    other = augmented_example(item, np.random.default_rng(seed), config)
    difference = np.abs(other["picture"] - plain).mean(-1)
    behind = np.kron(other["sets"] == label_set("background"), np.ones((2, 2))) > 0
    # Colours are drawn anew as well, so the person changes a little.
    assert difference[behind].mean() > 15


def test_chance_is_the_seed_s_and_everything_keeps_its_shape(item):
    one, two, other = (augmented_example(item, np.random.default_rng(s), AugmentConfig()) for s in (5, 5, 6))
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
        assert value.shape == other[name].shape and value.dtype == other[name].dtype
    assert (one["picture"] != other["picture"]).any()


def test_without_landmarks_windows_teach_nothing(item):
    item["landmarks"] = np.full((68, 2), np.nan, np.float32)
    example = augmented_example(item, np.random.default_rng(0), AugmentConfig())
    assert (example["window_sets"] == EVERY_LABEL).all()
