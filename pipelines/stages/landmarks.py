"""The 68 face landmarks (iBUG order) in a picture whose face box is known: three backends behind one call.

- ``dlib``: regression trees; the model file is in the `face_recognition_models` package, so nothing is downloaded. Its
  training data (iBUG 300-W) is for non-commercial use.
- ``mediapipe``: Google's FaceLandmarker, 478 points of which 68 are taken (MEDIAPIPE_TO_IBUG). Needs a ``.task`` file.
- ``face_alignment``: the FAN network of the `face-alignment` package (Bulat and Tzimiropoulos 2017). Weights from a
  local ``2DFAN4-*.pth.tar``, or downloaded by the package from its author's site.

Every backend sees the box that the one detector found, so all follow the same face.
"""

import os
import threading
from collections.abc import Sequence

import numpy as np

from models.errors import InputError
from models.loading import load_once, load_per_thread
from models.signals import NUM_LANDMARKS
from pipelines.stages.faces import model_file

BACKENDS = ("dlib", "mediapipe", "face_alignment")

# iBUG index -> vertex of MediaPipe's 478-point face mesh. "Right" is the subject's right, left in the picture.
MEDIAPIPE_TO_IBUG = (
    # 0-16: jaw, from the subject's right ear over the chin (8) to the left ear
    *(127, 234, 93, 132, 58, 172, 136, 150, 152, 379, 365, 397, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107),  # 17-21: right brow, outside in
    *(336, 296, 334, 293, 300),  # 22-26: left brow, inside out
    *(168, 197, 5, 4),  # 27-30: bridge of the nose, down to the tip
    *(240, 99, 2, 328, 460),  # 31-35: nostrils and base of the nose
    *(33, 160, 158, 133, 153, 144),  # 36-41: right eye
    *(362, 385, 387, 263, 373, 380),  # 42-47: left eye
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # 48-59: outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # 60-67: inner lips
)

# The weights file that the face-alignment package names for the 2-D network.
FAN_NAME = "2DFAN-4"
FAN_BATCH = 8


def check_backend(backend: str, weights: str | None) -> None:
    """Raises InputError if the backend cannot run: unknown, or its weights file is missing."""
    if backend not in BACKENDS:
        raise InputError(f"--landmarks {backend}: expected one of {', '.join(BACKENDS)}")
    if backend == "mediapipe" and not weights:
        raise InputError(
            "--landmarks mediapipe: give --landmark-weights FILE, a face_landmarker.task (the package has none)"
        )
    if weights and not os.path.isfile(weights):
        raise InputError(f"--landmark-weights {weights}: no such file")


def find_landmarks(
    frames: Sequence[np.ndarray], boxes: np.ndarray, backend: str = "dlib", weights: str | None = None
) -> np.ndarray:
    """Returns float32 (N, 68, 2): x, y in pixels (centre of the first pixel is 0, 0) of the face in each box.

    ``frames`` are N uint8 (height, width, 3) RGB pictures, ``boxes`` float (N, 4): left, top, right, bottom. A picture
    in which the backend sees no face gives NaN. dlib and FAN always answer.
    """
    if len(frames) == 0:
        return np.zeros((0, NUM_LANDMARKS, 2), np.float32)
    run = {"dlib": _dlib, "mediapipe": _mediapipe, "face_alignment": _face_alignment}[backend]
    return run(frames, np.asarray(boxes, float), weights)


def fill_and_smooth(landmarks: np.ndarray, max_gap: int = 6) -> np.ndarray | None:
    """Interpolates over frames without landmarks and smooths lightly in time; (T, 68, 2) in and out.

    Returns None if the first or last ``max_gap`` frames or any run longer than that have none. The smoothing is a
    Savitzky-Golay filter of 5 frames and second order: it removes the per-frame jitter and keeps lips that move at
    speech rate.
    """
    from scipy.signal import savgol_filter

    good = np.flatnonzero(~np.isnan(landmarks).any(axis=(1, 2)))
    if len(good) == 0 or np.diff([-1, *good, len(landmarks)]).max() > max_gap + 1:
        return None
    flat = landmarks.reshape(len(landmarks), -1)
    frames = np.arange(len(landmarks))
    filled = np.stack([np.interp(frames, good, flat[good, k]) for k in range(flat.shape[1])], axis=1)
    if len(filled) >= 5:
        filled = savgol_filter(filled, 5, 2, axis=0, mode="interp")
    return filled.reshape(landmarks.shape).astype(np.float32)


# --- dlib ---


@load_once(2)
def _dlib_predictor(path: str):
    import dlib

    try:
        return dlib.shape_predictor(path)
    except RuntimeError as error:
        raise InputError(f"--landmark-weights {path}: not a dlib shape predictor ({error})") from error


def _dlib(frames, boxes, weights):
    import dlib

    predictor = _dlib_predictor(weights or model_file("shape_predictor_68_face_landmarks.dat"))
    out = np.empty((len(frames), NUM_LANDMARKS, 2), np.float32)
    for index, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        left, top, right, bottom = (int(round(value)) for value in box)
        shape = predictor(np.ascontiguousarray(frame), dlib.rectangle(left, top, right - 1, bottom - 1))
        if shape.num_parts != NUM_LANDMARKS:
            raise InputError(f"--landmark-weights {weights}: {shape.num_parts} points, expected {NUM_LANDMARKS}")
        out[index] = [(point.x, point.y) for point in shape.parts()]
    return out


# --- MediaPipe ---


@load_per_thread(2)  # so that a thread which is done closes its own, and no one else's
def load_face_mesh(path: str):
    import mediapipe

    options = mediapipe.tasks.vision.FaceLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=path),
        running_mode=mediapipe.tasks.vision.RunningMode.IMAGE,
        num_faces=1,
    )
    try:
        landmarker = mediapipe.tasks.vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--landmark-weights {path}: not a MediaPipe face landmarker ({error})") from error
    _this_thread.open = [*getattr(_this_thread, "open", ()), landmarker]
    return landmarker


_this_thread = threading.local()


def close_backends() -> None:
    """Closes what this thread opened and must be closed before Python exits (MediaPipe's finaliser raises); backends
    load again on use.
    """
    load_face_mesh.cache_clear()
    for landmarker in getattr(_this_thread, "open", ()):
        landmarker.close()
    _this_thread.open = []


def _mediapipe(frames, boxes, weights):
    import mediapipe

    landmarker = load_face_mesh(weights)
    size = 256
    out = np.full((len(frames), NUM_LANDMARKS, 2), np.nan, np.float32)
    for index, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        # A square of twice the face, so that only this face is looked at.
        side = 2.0 * max(box[2] - box[0], box[3] - box[1])
        corner = (box[:2] + box[2:]) / 2 - side / 2
        picture = mediapipe.Image(mediapipe.ImageFormat.SRGB, _cut(frame, corner, side / size, size))
        result = landmarker.detect(picture)
        if result.face_landmarks:
            points = np.array([(p.x, p.y) for p in result.face_landmarks[0]], np.float32)[list(MEDIAPIPE_TO_IBUG)]
            out[index] = points * side + corner - 0.5
    return out


# --- face-alignment (FAN) ---


@load_once(2)
def _fan(weights: str | None):
    import torch
    from face_alignment.api import models_urls
    from face_alignment.models import FAN
    from face_alignment.utils import load_file_from_url

    path = weights
    if path is None:
        try:
            path = load_file_from_url(models_urls[FAN_NAME])
        except OSError as error:
            url = models_urls[FAN_NAME]
            raise InputError(
                f"--landmarks face_alignment: {url} cannot be downloaded ({error}); give --landmark-weights FILE"
            ) from error
    network = FAN(4)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(
            f"--landmark-weights {path}: not the weights of {FAN_NAME} ({type(error).__name__}: {error})"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device).eval(), device


def _face_alignment(frames, boxes, weights):
    import torch
    from face_alignment.utils import CENTER_Y_OFFSET, REFERENCE_SCALE, SCALE_FACTOR

    network, device = _fan(weights)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    # The package's rule for what the network sees of a box; its own API would run the network once per picture.
    side = SCALE_FACTOR * (width + height) / REFERENCE_SCALE
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.stack([np.zeros_like(height), CENTER_Y_OFFSET * height], axis=1)
    corners = centre - side[:, None] / 2
    out = []
    for first in range(0, len(frames), FAN_BATCH):
        batch = range(first, min(first + FAN_BATCH, len(frames)))
        crops = np.stack([_cut(frames[i], corners[i], side[i] / 256, 256) for i in batch])
        inputs = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32) / 255).to(device)
        with torch.inference_mode():
            heat = network(inputs)[-1].float().cpu().numpy()
        points = heatmap_peaks(heat) / heat.shape[-1]
        out.append(points * side[batch, None, None] + corners[batch, None] - 0.5)
    return np.concatenate(out).astype(np.float32)


def heatmap_peaks(heat: np.ndarray) -> np.ndarray:
    """(N, 68, H, W) -> (N, 68, 2): x, y of each map's peak in map units (pixel k covers k to k + 1).

    A quarter pixel toward its higher neighbour is added, as Bulat and Tzimiropoulos 2017 do.
    """
    n, points, height, width = heat.shape
    best = heat.reshape(n, points, -1).argmax(axis=-1)
    y, x = np.divmod(best, width)
    padded = np.pad(heat, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    a, b = np.indices(best.shape)
    dx = np.sign(padded[a, b, y + 1, x + 2] - padded[a, b, y + 1, x])
    dy = np.sign(padded[a, b, y + 2, x + 1] - padded[a, b, y, x + 1])
    return np.stack([x + 0.5 + 0.25 * dx, y + 0.5 + 0.25 * dy], axis=-1)


def _cut(frame: np.ndarray, corner: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Cuts a size x size picture whose pixel edges start at ``corner`` (pixel edges of ``frame``), ``scale`` source
    pixels apart.
    """
    import cv2

    offset = corner + scale * 0.5 - 0.5
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
