import io

import numpy as np
from PIL import Image

from models.labels import COLORS
from pipelines import overlay


def test_landmarks_are_drawn_where_they_are():
    frame = np.zeros((64, 64, 3), np.uint8)
    points = np.tile(np.array([[32.0, 40.0]]), (68, 1))
    points[0:17, 0] = np.linspace(5, 60, 17)
    points[0:17, 1] = 10
    drawn = overlay.draw_landmarks(frame, points)
    assert drawn[10, 20:40, 1].min() > 60
    assert drawn[20:35].max() == 0


def test_blend_leaves_background_alone():
    frame = np.full((2, 4, 4, 3), 100, np.uint8)
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[1] = 15
    mixed = overlay.blend_labels(frame, labels, 0.5)
    assert np.array_equal(mixed[0], frame[0])
    assert np.allclose(mixed[1, 0, 0], (100 + COLORS[15].astype(int)) // 2, atol=1)


def test_grid_places_rows_and_columns():
    pictures = [np.full((2, 3, 3), i, np.uint8) for i in range(3)]
    sheet = overlay.grid(pictures, columns=2, gap=1)
    assert sheet.shape == (5, 7, 3)
    assert sheet[0, 4, 0] == 1 and sheet[3, 0, 0] == 2 and sheet[3, 4, 0] == 255


def test_png_round_trip():
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay.encode_image(picture, "PNG")))), picture)


def test_text_marks_the_corner_only():
    frame = np.full((40, 80, 3), 128, np.uint8)
    marked = overlay.draw_text(frame, "a")
    assert (marked != frame).any() and np.array_equal(marked[25:], frame[25:])
