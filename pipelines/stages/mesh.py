"""MediaPipe's 478-point face mesh of each frame of a clip, by a ``.task`` file given by path."""

from collections.abc import Sequence

import numpy as np

from pipelines.stages.label_adapters import MESH_POINTS
from pipelines.stages.landmarks import load_face_mesh


def find_mesh(frames: Sequence[np.ndarray], weights: str) -> np.ndarray:
    """Returns float32 (T, 478, 2), pixels with the centre of the first at 0, 0; NaN where no face is seen.

    Raises:
        InputError: ``weights`` is no face landmarker.
    """
    import mediapipe

    landmarker = load_face_mesh(weights)
    out = np.full((len(frames), MESH_POINTS, 2), np.nan, np.float32)
    for index, frame in enumerate(frames):
        result = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(frame)))
        if result.face_landmarks:
            size = np.array(frame.shape[1::-1], np.float32)
            points = np.array([(p.x, p.y) for p in result.face_landmarks[0]], np.float32)
            out[index, : len(points)] = points * size - 0.5
    return out
