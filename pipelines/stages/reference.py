"""The reference image of a clip: the frame that says who the person is (paper: usually the first frame)."""

import numpy as np

REFERENCE_FRAME = 0


def reference_image(frames: np.ndarray, frame: int = REFERENCE_FRAME) -> tuple[np.ndarray, int]:
    """Takes one frame as the reference image: uint8 (T, H, W, 3) -> uint8 (H, W, 3) and its number."""
    return np.ascontiguousarray(frames[frame]), frame
