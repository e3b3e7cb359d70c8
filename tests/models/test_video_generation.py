"""The decoder at work; what it learns and how it stitches windows is in tests/infra/training/test_decoder_job.py."""

import numpy as np

from models.video_generation import label_steps, resize_image, resize_labels, text_condition


def test_the_first_step_is_the_first_frame_alone():
    labels = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    steps = label_steps(labels)
    assert steps.shape == (3, 4, 2, 2)
    assert steps[:, :, 0, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_text_is_cut_and_padded():
    ids, mask = text_condition(np.array([5, 6, 7]), 5)
    assert ids.tolist() == [5, 6, 7, 0, 0] and mask.tolist() == [True] * 3 + [False] * 2
    ids, mask = text_condition(np.arange(9), 4)
    assert ids.tolist() == [0, 1, 2, 3] and mask.all()
    assert not text_condition(None, 3)[1].any()


def test_pictures_keep_their_light_and_labels_their_classes():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for size in (16, 64, 128):
        resized = resize_image(image, size)
        assert resized.shape == (size, size, 3) and abs(resized.mean() - image.mean()) < 1
    labels = np.random.default_rng(0).choice([0, 7, 20], (3, 32, 32)).astype(np.uint8)
    for size in (8, 32, 48):
        resized = resize_labels(labels, size)
        assert resized.shape == (3, size, size) and set(np.unique(resized)) == {0, 7, 20}
