"""The segmentation measure: its arithmetic, its crops, its refusals, and the card it writes."""

import argparse

import numpy as np
import pytest

from models.errors import InputError
from models.labels import LABEL_INDEX, NUM_LABELS
from pipelines.measure import segmentation
from pipelines.measure.segmentation import class_iou, confusion, crop_labels, model_card
from pipelines.stages.crop import clip_box, cut_crop
from tests.corpus_clip import write_clip


def test_iou_from_counts():
    truth = np.array([[0, 0, 1, 1]])
    made = np.array([[0, 1, 1, 2]])
    iou = class_iou(confusion(truth, made))
    assert iou[0] == pytest.approx(1 / 2) and iou[1] == pytest.approx(1 / 3)
    assert np.isnan(iou[2:]).all()  # never in the truth, so no mean over it
    assert confusion(truth, made).sum() == 4 and confusion(truth, made)[1, 2] == 1


@pytest.mark.parametrize("box", [(30, 20, 200), (-40, -10, 300), (100, 60, 256)])
def test_picture_and_labels_are_cut_alike(box):
    labels = np.zeros((200, 200), np.uint8)
    labels[80:120, 90:130] = 5
    frame = np.repeat(np.repeat(labels, 2, 0), 2, 1)[..., None] * np.full(3, 40, np.uint8)
    picture, cut = cut_crop(frame, box), crop_labels(labels, 400, box)
    assert picture.shape == (256, 256, 3) and cut.shape == (256, 256)
    assert (((picture[..., 0] > 100) != (cut == 5)).mean()) < 0.01


def arguments(**changes):
    values = {"corpus": None, "dataset": None, "mesh": None, "backend": "network", "segmenter": None, "frames": 4}
    return argparse.Namespace(**{**values, "card": None, **changes})


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    for index in range(2):
        write_clip(folder, seed=3, index=index)
    # The drawn faces are too plain for a detector: true landmarks stand in, as they do wherever it sees none.
    return folder


def test_a_segmenter_that_knows_scores_well_and_one_that_does_not_badly(corpus, monkeypatch):
    boxes = []

    def knowing(frames, landmarks):
        # Cut the drawn truth as the measure cuts it: what any perfect segmenter would answer.
        from pipelines.measure.corpus import read_corpus

        arrays = [arrays for _, _, arrays in read_corpus(corpus)][len(boxes)]
        box = clip_box(arrays["landmarks"] - 0.5, 256, 256)
        boxes.append(box)
        wanted = segmentation._middle(len(arrays["labels"]), 4)
        return np.stack([crop_labels(arrays["labels"][t], 256, box) for t in wanted])

    monkeypatch.setattr(segmentation, "_segmenter", lambda *_: (knowing, {"what": "an oracle"}))
    figures = segmentation.measure(arguments(corpus=corpus))
    assert figures["miou"] == figures["right"] == 1 and figures["rendered_clips"] == 2
    assert figures["iou_tongue"] != figures["iou_tongue"] and figures["classes_present"] == 8

    blind = lambda frames, landmarks: np.zeros(frames.shape[:3], np.uint8)  # noqa: E731
    monkeypatch.setattr(segmentation, "_segmenter", lambda *_: (blind, {"what": "nothing"}))
    figures = segmentation.measure(arguments(corpus=corpus))
    assert figures["miou"] < 0.2 and figures["rendered_flicker"] == 0 and figures["frames_per_second"] > 0


def test_people_that_were_trained_on_are_refused(corpus, monkeypatch):
    facts = {"what": "x", "truth_seeds": [1, 3]}
    monkeypatch.setattr(segmentation, "_segmenter", lambda *_: (None, facts))
    with pytest.raises(InputError, match="seed 3 was trained on"):
        segmentation.measure(arguments(corpus=corpus))


def test_what_is_needed_is_said():
    with pytest.raises(InputError, match="give --corpus"):
        segmentation.measure(arguments())
    with pytest.raises(InputError, match="needs --mesh"):
        segmentation.measure(arguments(dataset="d"))


def test_the_card_quotes_the_figures():
    figures = {"miou": 0.8123, "right": 0.97, "mesh_lips": 0.61, "frames_per_second": 21.4, "cores": 2}
    figures |= {"iou_iris": 0.7, "iou_pupil": 0.9}
    facts = {"what": "two nets", "weights_sha256": "abc", "parameters": 1234567, "sources": ["truth"]}
    card = model_card(figures, {**facts, "truth_seeds": [100]}, "network")
    assert "| miou | 0.8123 | >= 0.75 |" in card and "| mesh_lips | 0.61 | >= 0.6 |" in card
    assert "1,234,567" in card and "21.4 frames/s on 2" in card and "`abc`" in card and ": 100;" in card
    assert card.index("| pupil | 0.900 |") < card.index("| iris | 0.700 |")


def test_every_class_of_the_mesh_is_ours():
    for names in segmentation.MESH_CLASSES.values():
        assert all(LABEL_INDEX[name] < NUM_LABELS for name in names)
