"""Segmentation of a drawn person whose labels are known."""

import numpy as np

from models.labels import LABEL_INDEX
from pipelines.stages.face_fit import fit_clip
from pipelines.stages.segment import segment_clip


def overlap(labels: np.ndarray, truth: np.ndarray, *names: str) -> float:
    ids = [LABEL_INDEX[name] for name in names]
    ours, theirs = np.isin(labels, ids), np.isin(truth, ids)
    return (ours & theirs).sum() / (ours | theirs).sum()


def test_main_classes_of_a_drawn_person(person, model):
    frames, landmarks, truth = person
    labels = segment_clip(frames, landmarks, fit_clip(landmarks, model), model)
    assert labels.shape == truth.shape and labels.dtype == np.uint8
    assert overlap(labels, truth, "background") > 0.92
    assert overlap(labels, truth, "hair") > 0.75
    assert overlap(labels, truth, "clothes") > 0.85
    assert overlap(labels, truth, "neck") > 0.7
    face = ("face", "nose", "nostrils", "brows", "lashes", "iris", "pupil", "sclera")
    assert overlap(labels, truth, *face) > 0.85
    assert overlap(labels, truth, "lips") > 0.7
    # A still wall does not flicker.
    still = (truth == 0).all(0)
    assert (labels[1:, still] != labels[:-1, still]).mean() < 0.01


def test_the_same_clip_gives_the_same_labels_and_another_colour_of_hair_is_followed(person, model):
    frames, landmarks, truth = person
    fit = fit_clip(landmarks, model)
    assert np.array_equal(
        segment_clip(frames, landmarks, fit, model), segment_clip(frames.copy(), landmarks, fit, model)
    )
    red = frames.copy()
    red[truth == LABEL_INDEX["hair"]] = (190, 70, 20)
    assert overlap(segment_clip(red, landmarks, fit, model), truth, "hair") > 0.75


def test_a_bald_head_has_no_hair(person, model):
    frames, landmarks, truth = person
    bald = frames.copy()
    noise = np.random.default_rng(1).normal(0, 5, ((truth == LABEL_INDEX["hair"]).sum(), 3))
    bald[truth == LABEL_INDEX["hair"]] = np.clip((205, 155, 130) + noise, 0, 255)
    labels = segment_clip(bald, landmarks, fit_clip(landmarks, model), model)
    assert (labels == LABEL_INDEX["hair"]).mean() < 0.2 * (truth == LABEL_INDEX["hair"]).mean()
