"""What a clip looks like with what was measured drawn over it: landmarks, parsing colours, pictures side by side."""

import io
from collections.abc import Sequence

import numpy as np

from models.labels import labels_to_colors

# The iBUG-68 landmarks as polylines: (first, last, closed).
CONTOURS = (
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
)
LANDMARK_COLOR = (0, 255, 128)
BOX_COLOR = (255, 208, 0)


def draw_landmarks(frame: np.ndarray, landmarks: np.ndarray, scale: int = 2) -> np.ndarray:
    """Draws (68, 2) landmarks over a uint8 (H, W, 3) frame; returns uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw

    height, width = frame.shape[:2]
    # Drawn larger and shrunk, which smooths the lines.
    picture = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    points = [(float(x) * scale, float(y) * scale) for x, y in landmarks]
    for first, last, closed in CONTOURS:
        line = points[first : last + 1]
        draw.line(line + line[:1] if closed else line, fill=LANDMARK_COLOR, width=scale)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def draw_box(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Draws a box (4,), left, top, right, bottom as pixel edges, over a uint8 (H, W, 3) frame; returns a copy."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(frame)
    left, top, right, bottom = (round(float(value)) for value in box)
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=BOX_COLOR)
    return np.asarray(picture)


def blend_labels(frame: np.ndarray, labels: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Lays parsing colours over frames.

    Uint8 (..., H, W, 3) and (..., H, W) -> uint8 (..., H, W, 3). Background stays.
    """
    colors = labels_to_colors(labels).astype(np.float32)
    share = np.where(labels[..., None] == 0, 0.0, strength).astype(np.float32)
    return (frame * (1 - share) + colors * share).astype(np.uint8)


def draw_text(frame: np.ndarray, text: str) -> np.ndarray:
    """Writes a line into the upper left corner of a uint8 (H, W, 3) frame."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    box = draw.textbbox((4, 3), text)
    draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=(0, 0, 0))
    draw.text((4, 3), text, fill=(255, 255, 255))
    return np.asarray(picture)


def grid(pictures: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Sets pictures of one size, uint8 (H, W, 3), in rows of ``columns`` on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """Scales a square uint8 (H, H, 3) picture to (size, size, 3)."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def encode_image(picture: np.ndarray, kind: str = "JPEG") -> bytes:
    """uint8 (H, W, 3) -> the bytes of a JPEG or PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return buffer.getvalue()
