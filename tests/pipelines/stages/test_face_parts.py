import cv2
import numpy as np
import pytest

from models.labels import LABEL_INDEX
from pipelines.stages.face_parts import face_pixels, iris_centre, paint_parts


@pytest.mark.parametrize("shift", [-4.0, 0.0, 4.0])
def test_iris_is_found_where_it_is(shift):
    frame = np.full((60, 80, 3), (205, 160, 140), np.uint8)
    angle = np.array([np.pi, 2 * np.pi / 3 + 0.25, np.pi / 3 - 0.25, 0, -np.pi / 3 + 0.25, -2 * np.pi / 3 - 0.25])
    eye = np.stack([40 + 16 * np.cos(angle), 30 - 7 * np.sin(angle)], 1).astype(np.float32)
    cv2.fillConvexPoly(frame, np.round(eye).astype(np.int32), (235, 232, 228))
    cv2.circle(frame, (round(40 + shift), 30), 6, (70, 45, 30), -1)
    centre, radius = iris_centre(face_pixels(frame), eye)
    assert np.abs(centre - (40.5 + shift, 30.5)).max() < 2.2 and 4 < radius < 9


def test_an_open_mouth_shows_teeth_and_tongue(person):
    frames, landmarks, _ = person
    frame, points = frames[4].copy(), landmarks[4].copy()
    left, right, middle = points[60], points[64], points[[62, 66]].mean(0)
    for k, name in enumerate((61, 62, 63)):
        points[name] = left + (right - left) * (k + 1) / 4 - (0, 8)
        points[67 - k] = left + (right - left) * (k + 1) / 4 + (0, 8)
    points[49:54, 1] -= 7
    points[55:60, 1] += 7
    cv2.fillConvexPoly(frame, cv2.convexHull(np.round(points[48:60]).astype(np.int32)), (170, 70, 75))
    cv2.fillConvexPoly(frame, cv2.convexHull(np.round(points[60:68]).astype(np.int32)), (35, 15, 15))
    x, y = np.round(middle).astype(int)
    frame[y - 7 : y - 2, x - 6 : x + 7] = (225, 220, 205)
    frame[y + 3 : y + 8, x - 6 : x + 7] = (175, 85, 90)
    labels = np.full((256, 256), LABEL_INDEX["face"], np.uint8)
    paint_parts(labels, frame, points, 165.0)
    assert labels[y - 5, x] == LABEL_INDEX["teeth"]
    assert labels[y + 5, x] == LABEL_INDEX["tongue"]
    assert labels[y, x] == LABEL_INDEX["other-in-mouth"]
    assert (labels == LABEL_INDEX["lips"]).sum() > 50
