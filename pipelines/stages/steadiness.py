"""How steady labels are in time where the picture stands still."""

import numpy as np

# A pixel stands still between two frames if nothing around it changed by more than this (0..255, blurred).
STILL = 3.0


def label_flicker(frames: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of still pixels whose label is another than in the frame before; NaN if nothing stands still.

    Args:
        frames: uint8 (T, H, W, 3).
        labels: uint8 (T, H, W).
    """
    import cv2

    changed = still = 0
    before = None
    for t, frame in enumerate(frames):
        blurred = cv2.blur(frame.astype(np.float32), (5, 5))
        if before is not None:
            difference = cv2.dilate(np.abs(blurred - before).max(-1), np.ones((7, 7), np.uint8))
            quiet = difference < STILL
            still += int(quiet.sum())
            changed += int((quiet & (labels[t] != labels[t - 1])).sum())
        before = blurred
    return changed / still if still else float("nan")
