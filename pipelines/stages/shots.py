"""Shot cuts, found by PySceneDetect's adaptive detector on frames of our own clock."""

import numpy as np

from models.signals import VIDEO_FPS

# PySceneDetect's own defaults: a cut stands out threefold from its neighbours and differs by at least 15 of 255.
ADAPTIVE_THRESHOLD = 3.0
MIN_CONTENT = 15.0
MIN_SHOT_FRAMES = 8


class ShotDetector:
    """Feed it frames in order with `add`; `shots` then gives the stretches between cuts.

    Source: PySceneDetect 0.7, AdaptiveDetector: change of hue, saturation and luma against a rolling average.
    """

    def __init__(self) -> None:
        from scenedetect import AdaptiveDetector

        self._detector = AdaptiveDetector(
            adaptive_threshold=ADAPTIVE_THRESHOLD, min_content_val=MIN_CONTENT, min_scene_len=MIN_SHOT_FRAMES
        )
        self._cuts: list[int] = []
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame, uint8 (height, width, 3) RGB."""
        from scenedetect import FrameTimecode

        step = max(1, min(frame.shape[:2]) // 160)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])
        found = self._detector.process_frame(FrameTimecode(self._count, fps=float(VIDEO_FPS)), small)
        self._cuts.extend(code.frame_num for code in found)
        self._count += 1

    def shots(self) -> list[tuple[int, int]]:
        """Returns [start, end) frame ranges that cover every frame given so far."""
        edges = [0, *sorted(set(self._cuts)), self._count]
        return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]
