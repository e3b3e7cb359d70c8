"""The 21 parsing classes of semantic video, their colours, and the way between the two.

The classes are the twenty that the paper names plus ``nose`` (our decision 3). The colour embedding must be invertible
after a lossy tokenizer (paper, semantic tokenizer): colours are far apart in RGB and a pixel is read back as its
nearest colour.
"""

import numpy as np

LABELS_VERSION = 1

LABELS = (
    "background",
    "face",
    "neck",
    "ears",
    "hair",
    "brows",
    "lashes",
    "pupil",
    "iris",
    "sclera",
    "beard",
    "glasses",
    "clothes",
    "headwear",
    "accessory",
    "lips",
    "teeth",
    "tongue",
    "nostrils",
    "other-in-mouth",
    "nose",
)
NUM_LABELS = len(LABELS)
LABEL_INDEX = {name: index for index, name in enumerate(LABELS)}
# The set of all classes as bits, class k is bit k: what is known of a pixel of which nothing is known.
EVERY_LABEL = (1 << NUM_LABELS) - 1

# Points of the grid {0, 128, 255}^3: any two of these colours are at least 127 apart in RGB
# (tests/models/test_labels.py holds this).
COLORS = np.array(
    [
        (0, 0, 0),
        (255, 128, 128),
        (128, 128, 0),
        (255, 128, 0),
        (128, 0, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 0),
        (0, 128, 255),
        (255, 255, 255),
        (128, 128, 128),
        (0, 255, 255),
        (0, 0, 255),
        (128, 0, 255),
        (255, 255, 0),
        (255, 0, 0),
        (128, 255, 128),
        (255, 0, 255),
        (0, 128, 128),
        (255, 0, 128),
        (0, 255, 0),
    ],
    dtype=np.uint8,
)


def label_set(*names: str) -> int:
    """Returns classes as bits: what a label source says of a pixel that is one of these."""
    return sum(1 << LABEL_INDEX[name] for name in dict.fromkeys(names))


def labels_to_colors(labels: np.ndarray) -> np.ndarray:
    """Paints labels: uint8 (...,) -> uint8 (..., 3)."""
    return COLORS[labels]


def colors_to_labels(colors: np.ndarray) -> np.ndarray:
    """Reads labels back from colours, nearest colour first: uint8 or float in 0..255 (..., 3) -> uint8 (...,)."""
    table = COLORS.astype(np.float32)
    pixels = np.asarray(colors, dtype=np.float32).reshape(-1, 3)
    # |p - c|^2 = |p|^2 - 2 p.c + |c|^2; the first term is the same for every colour.
    distance = (table**2).sum(1)[None] - 2 * pixels @ table.T
    return distance.argmin(1).astype(np.uint8).reshape(np.shape(colors)[:-1])
