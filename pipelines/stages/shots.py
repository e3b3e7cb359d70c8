"""Shot cuts, found by PySceneDetect's adaptive detector on frames of our own clock."""

from array import array

import numpy as np

from models.signals import VIDEO_FPS

# PySceneDetect's own defaults: a cut stands out threefold from its neighbours and differs by at least 15 of 255.
ADAPTIVE_THRESHOLD = 3.0
MIN_CONTENT = 15.0
MIN_SHOT_FRAMES = 8
# Frames on each side that a change is held against.
WINDOW = 2


class ShotDetector:
    """Feed it frames in order with `add`; `shots` then gives the stretches between cuts.

    Source: PySceneDetect 0.7, AdaptiveDetector: change of hue, saturation and luma against a rolling average.
    """

    def __init__(self) -> None:
        from scenedetect import AdaptiveDetector

        self._detector = AdaptiveDetector(
            adaptive_threshold=ADAPTIVE_THRESHOLD,
            min_content_val=MIN_CONTENT,
            min_scene_len=MIN_SHOT_FRAMES,
            window_width=WINDOW,
        )
        self._cuts: list[int] = []
        self._content = array("f")
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame, uint8 (height, width, 3) RGB."""
        from scenedetect import FrameTimecode

        step = max(1, min(frame.shape[:2]) // 160)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])
        found = self._detector.process_frame(FrameTimecode(self._count, fps=float(VIDEO_FPS)), small)
        # The detector would tell its figures to a statistics manager, but then also looks for edges, which takes long.
        self._content.append(self._detector._frame_score)
        self._cuts.extend(code.frame_num for code in found)
        self._count += 1

    def shots(self) -> list[tuple[int, int]]:
        """Returns [start, end) frame ranges that cover every frame given so far."""
        edges = [0, *sorted(set(self._cuts)), self._count]
        return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]

    def changes(self) -> np.ndarray:
        """Returns float32 (frames,): how far each frame's change from the one before goes toward a cut.

        The lesser of change / MIN_CONTENT and (change over that of its neighbours) / ADAPTIVE_THRESHOLD: at 1 the
        detector sees a cut, unless a shot would become shorter than MIN_SHOT_FRAMES. The first and last WINDOW frames
        have no neighbours to be held against, and 0.
        """
        content = np.frombuffer(self._content, np.float32).astype(np.float64)
        out = np.zeros(len(content), np.float32)
        if len(content) > 2 * WINDOW:
            around = np.convolve(content, np.r_[np.ones(WINDOW), 0, np.ones(WINDOW)] / (2 * WINDOW), mode="valid")
            middle = content[WINDOW:-WINDOW]
            ratio = middle / np.maximum(around, 1e-5)
            out[WINDOW:-WINDOW] = np.minimum(middle / MIN_CONTENT, ratio / ADAPTIVE_THRESHOLD)
        return out
