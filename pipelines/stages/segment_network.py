"""Semantic video of a clip by the segmenter network (models/segmenter.py), steady in time.

The whole crop and its windows go through the network in batches; the class shares of each are averaged over
neighbouring frames before they are put together. A neighbour counts where its pixels look the same: in a window the
landmarks follow the head, so a window is already still where the head moves, and in the whole crop a place that moved
keeps its own frame's shares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.stages.detail_windows import cut_windows, paste_windows, window_matrices

if TYPE_CHECKING:
    from models.segmenter import SegmenterModel

BACKEND = "network"


@dataclass(frozen=True)
class NetworkConfig:
    """Attributes:
    batch: frames that go through the network at once.
    reach: how many frames before and after count; 0 smooths nothing.
    steady: the difference of two frames (mean over channels of 0..255, blurred) at which a neighbour counts 1/e.
    """

    batch: int = 8
    reach: int = 3
    steady: float = 5.0


def segment_clip(
    frames: np.ndarray, landmarks: np.ndarray, model: "SegmenterModel", config: NetworkConfig | None = None
) -> np.ndarray:
    """Labels every pixel of a clip with one of the 21 classes of models/labels.py.

    Args:
        frames: uint8 (T, 256, 256, 3), RGB.
        landmarks: float32 (T, 68, 2), crop pixels.

    Returns:
        uint8 (T, 256, 256). The same clip always gives the same labels.
    """
    config = config or NetworkConfig()
    labels = np.empty(frames.shape[:3], np.uint8)
    for t, shares in enumerate(clip_shares(frames, landmarks, model, config)):
        labels[t] = largest(shares)
    return labels


def largest(shares: np.ndarray) -> np.ndarray:
    """Returns the class of the largest share of each pixel, the first of equal ones: float (K, H, W) -> uint8 (H, W).

    What ``argmax(0)`` gives, many times faster: plane by plane memory is read in order.
    """
    best, labels = shares[0].copy(), np.zeros(shares.shape[1:], np.uint8)
    for k in range(1, len(shares)):
        np.putmask(labels, shares[k] > best, k)
        np.maximum(best, shares[k], out=best)
    return labels


def clip_shares(
    frames: np.ndarray, landmarks: np.ndarray, model: "SegmenterModel", config: NetworkConfig
) -> Iterator[np.ndarray]:
    """Yields each frame's class shares, float32 (21, 256, 256); a few frames are held at a time."""
    import cv2

    size = frames.shape[2], frames.shape[1]
    matrices = [window_matrices(points) for points in landmarks]
    looks = _looks(frames, matrices, model, config)
    for t, (whole, windows) in enumerate(_steadied(looks, len(frames), config)):
        shares = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in whole])
        paste_windows(shares, windows, matrices[t])
        yield shares


@dataclass(frozen=True, eq=False)
class _Look:
    """What the network says of a frame, and small blurred pictures that say whether a place looks the same."""

    whole: np.ndarray  # (K, 128, 128)
    windows: np.ndarray  # (3, K, 64, 64)
    seen: np.ndarray  # (3 colours, 128, 128)
    seen_windows: np.ndarray  # (3, 3 colours, 64, 64)


def _looks(frames, matrices, model, config) -> Iterator[_Look]:
    import cv2

    for first in range(0, len(frames), config.batch):
        part = frames[first : first + config.batch]
        windows = np.stack([cut_windows(f, m) for f, m in zip(part, matrices[first:], strict=False)])
        # The last batch is filled up: a network is compiled for one batch size.
        spare = config.batch - len(part)
        fill = [(0, spare)] + [(0, 0)] * 3
        whole = model.map(np.pad(part, fill, mode="edge"))
        detail = model.windows(np.pad(windows, [*fill, (0, 0)], mode="edge"))
        side = whole.shape[-1]
        for k, frame in enumerate(part):
            small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
            seen = np.stack(cv2.split(cv2.blur(small.astype(np.float32), (5, 5))))
            seen_windows = np.stack([cv2.split(cv2.blur(w.astype(np.float32), (5, 5))) for w in windows[k]])
            yield _Look(whole[k], detail[k], seen, seen_windows)


def _steadied(looks: Iterator[_Look], count: int, config: NetworkConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Averages shares over the frames within reach, each pixel's neighbours weighed by how much they look like it."""
    held: dict[int, _Look] = {}
    fetched = 0
    for t in range(count):
        while fetched < min(t + config.reach + 1, count):
            held[fetched] = next(looks)
            fetched += 1
        held.pop(t - config.reach - 1, None)
        here = held[t]
        whole, windows = here.whole.copy(), here.windows.copy()
        total, total_windows = 1.0, 1.0
        for other in range(max(t - config.reach, 0), min(t + config.reach, count - 1) + 1):
            if other == t:
                continue
            there, near = held[other], 1 - abs(other - t) / (config.reach + 1)
            weight = near * likeness(here.seen, there.seen, config.steady)
            whole += weight * there.whole
            total = total + weight
            weight = near * likeness(here.seen_windows, there.seen_windows, config.steady)[:, None]
            windows += weight * there.windows
            total_windows = total_windows + weight
        yield whole / total, windows / total_windows


def likeness(a: np.ndarray, b: np.ndarray, steady: float) -> np.ndarray:
    """How alike two blurred pictures are, pixel by pixel: float32 (..., 3, H, W) each -> (..., H, W), 1 where equal."""
    return np.exp(-np.square(np.abs(a - b).mean(-3) / steady))
