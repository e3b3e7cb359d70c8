import numpy as np

from models.labels import (
    COLORS,
    EVERY_LABEL,
    LABEL_INDEX,
    LABELS,
    NUM_LABELS,
    colors_to_labels,
    label_set,
    labels_to_colors,
)


def test_there_are_21_distinct_labels():
    assert NUM_LABELS == 21 == len(set(LABELS)) == len(COLORS)
    assert LABEL_INDEX["nose"] == 20


def test_colours_are_far_apart():
    distance = np.linalg.norm(COLORS[:, None].astype(float) - COLORS[None].astype(float), axis=-1)
    assert distance[~np.eye(NUM_LABELS, dtype=bool)].min() >= 127


def test_colours_survive_a_noisy_tokenizer():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_LABELS, (3, 32, 32)).astype(np.uint8)
    noisy = labels_to_colors(labels).astype(np.float32) + rng.normal(0, 20, (3, 32, 32, 3))
    assert np.array_equal(colors_to_labels(labels_to_colors(labels)), labels)
    assert (colors_to_labels(noisy) == labels).mean() > 0.99


def test_sets_of_labels_are_bits():
    assert label_set("face") == 1 << LABEL_INDEX["face"] and label_set("face", "nose", "face") == 2 | 1 << 20
    assert label_set(*LABELS) == EVERY_LABEL and label_set() == 0
