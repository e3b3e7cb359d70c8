"""A small clip with truth in the layout of `archon synthesize`, drawn and not rendered: quick to make for tests."""

import json
from pathlib import Path

import numpy as np

from models.labels import COLORS, LABEL_INDEX
from pipelines.inspect import write_video
from pipelines.synthesize import clip_name

# A face's 68 landmarks in a 256 x 256 frame.
_ANGLES = np.linspace(np.pi, 0, 17)
FACE = np.concatenate(
    [
        np.stack([128 + 50 * np.cos(_ANGLES), 120 + 60 * np.sin(_ANGLES)], 1),
        *(np.stack([np.linspace(x, x + 30, 5), np.full(5, 98.0)], 1) for x in (90, 136)),
        np.stack([np.full(4, 128.0), np.linspace(108, 135, 4)], 1),
        np.stack([np.linspace(118, 138, 5), np.full(5, 142.0)], 1),
        *(
            np.stack([x + np.array([-12, -5, 5, 12, 5, -5]), 110 + np.array([0, -4, -4, 0, 4, 4.0])], 1)
            for x in (106, 150)
        ),
        np.stack([128 + 20 * np.cos(a := np.linspace(-np.pi, np.pi, 13)[:12]), 158 + 8 * np.sin(a)], 1),
        np.stack([128 + 14 * np.cos(a := np.linspace(-np.pi, np.pi, 9)[:8]), 158 + 3 * np.sin(a)], 1),
    ]
)


def draw_labels(points: np.ndarray, size: int) -> np.ndarray:
    """A face of ellipses around landmarks: uint8 (size, size)."""
    y, x = np.mgrid[:size, :size] + 0.5
    labels = np.zeros((size, size), np.uint8)

    def paint(name, centre, rx, ry):
        labels[((x - centre[0]) / rx) ** 2 + ((y - centre[1]) / ry) ** 2 < 1] = LABEL_INDEX[name]

    unit = size / 256
    middle = points[27:36].mean(0)
    paint("clothes", middle + (0, 130 * unit), 90 * unit, 60 * unit)
    paint("hair", middle - (0, 20 * unit), 62 * unit, 80 * unit)
    paint("face", middle, 50 * unit, 62 * unit)
    for eye, brow in ((slice(36, 42), slice(17, 22)), (slice(42, 48), slice(22, 27))):
        paint("brows", points[brow].mean(0), 16 * unit, 4 * unit)
        paint("sclera", points[eye].mean(0), 12 * unit, 6 * unit)
        paint("iris", points[eye].mean(0), 5 * unit, 5 * unit)
    paint("lips", points[48:60].mean(0), 20 * unit, 8 * unit)
    return labels


def write_clip(folder: Path, seed: int = 0, index: int = 0, frames: int = 8, size: int = 256) -> Path:
    """Writes NAME.mp4, NAME.truth.json and NAME.truth.npz; returns the path without suffix."""
    rng = np.random.default_rng([seed, index])
    path = Path(folder) / clip_name(seed, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    tint = rng.uniform(0.6, 1.0, (len(COLORS), 3))
    points = np.stack([(FACE + (t, 0)) * size / 256 for t in range(frames)]).astype(np.float32)
    labels = np.stack([draw_labels(p, size) for p in points])
    pictures = []
    for p in points:
        colours = 40 + 0.7 * COLORS[draw_labels(p, size)] * tint[draw_labels(p, size)]
        pictures.append(np.clip(colours + rng.normal(0, 4, colours.shape), 0, 255).astype(np.uint8))
    write_video(f"{path}.mp4", np.stack(pictures), np.zeros(16_000 * frames // 30, np.int16))
    np.savez_compressed(f"{path}.truth.npz", labels=labels, landmarks=points)
    truth = {"made_by": {"seed": seed, "index": index}, "frames": frames}
    Path(f"{path}.truth.json").write_text(json.dumps(truth))
    return path
