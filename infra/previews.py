"""Things to look at: what was generated as pictures and videos."""

import json

import numpy as np

from models.labels import labels_to_colors
from models.signals import CROP_SIZE
from pipelines import storage
from pipelines.inspect import write_video
from pipelines.overlay import draw_text, encode_image, grid

_TIMES = 6  # moments on a contact sheet


def enlarge(frames: np.ndarray, size: int = CROP_SIZE, smooth: bool = True) -> np.ndarray:
    """Scales uint8 (T, N, N, 3) to (T, size, size, 3) if it is smaller: bicubic, or nearest if not ``smooth``."""
    from PIL import Image

    if frames.shape[1] >= size:
        return frames
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(frame).resize((size, size), kind)) for frame in frames])


def semantic_frames(labels: np.ndarray) -> np.ndarray:
    """Paints labels uint8 (T, S, S) in their colours: uint8 (T, 256, 256, 3)."""
    return enlarge(labels_to_colors(labels), smooth=False)


def mesh_frames(
    shape: np.ndarray | None, expression: np.ndarray, pose: np.ndarray | None, camera: np.ndarray | None = None
) -> np.ndarray:
    """Renders an animation as a grey mesh: uint8 (T, 256, 256, 3).

    Args:
        shape: (Ns,); None is the mean head.
        expression: (T, Ne).
        pose: (T, 6); None looks at the camera.
        camera: (3,), as in the shape column.
    """
    from models.face.model import load_face_model
    from models.face.render import render_preview

    model = load_face_model()
    if shape is None:
        shape = np.zeros(model.shape_basis.shape[-1], np.float32)
    return render_preview(model, shape, expression, pose, camera, CROP_SIZE)


def write_movie(path: str, frames: np.ndarray, audio: np.ndarray | None) -> str:
    """Writes uint8 (T, H, W, 3) and int16 16 kHz sound as an mp4; the same input gives the same bytes."""
    write_video(path, frames, audio)
    return path


def write_description(path: str, text: str) -> str:
    """Writes a description as indented JSON; a text that is no JSON is kept, and the file says so."""
    try:
        value = json.loads(text)
    except ValueError as error:
        value = {"text": text, "note": f"the model's text is not JSON: {error}"}
    storage.write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def write_overview(path: str, image: np.ndarray | None, videos: dict[str, np.ndarray]) -> str:
    """Writes a contact sheet: a row per video with the reference image in front.

    Args:
        path: of the PNG.
        image: uint8 (256, 256, 3).
        videos: name -> uint8 (T, 256 or more, same, 3), all of one length.
    """
    blank = np.full((CROP_SIZE, CROP_SIZE, 3), 255, np.uint8)
    pictures = []
    for row, (name, frames) in enumerate(videos.items()):
        first = draw_text(image, "reference") if row == 0 and image is not None else blank
        pictures.append(first)
        for t in np.linspace(0, len(frames) - 1, _TIMES).round().astype(int):
            pictures.append(draw_text(_fit(frames[t]), f"{name} {t}"))
    storage.write_bytes(path, encode_image(grid(pictures, _TIMES + 1), "PNG"))
    return path


def _fit(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    if frame.shape[0] == CROP_SIZE:
        return frame
    return np.asarray(Image.fromarray(frame).resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BOX))
