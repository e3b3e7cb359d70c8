"""A drawn person whose landmarks and labels are known."""

import cv2
import numpy as np
import pytest

from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.face_fit import FaceFit
from pipelines.stages.head_regions import head_frames

FRAMES = 9


@pytest.fixture(scope="session")
def model():
    return load_face_model()


@pytest.fixture(scope="session")
def person(model):
    """Frames, landmarks and truth of a head that turns a little in front of a striped wall: flat colours with noise."""
    rng = np.random.default_rng(0)
    shape = np.zeros(model.num_shape, np.float32)
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 1] = np.linspace(-0.15, 0.15, FRAMES)
    pose[:, 3] = np.linspace(-0.01, 0.01, FRAMES)
    pose[:, 4] = -0.02
    pose[:, 5] = 2.4
    landmarks = project(deform(model.landmark_model(), shape, expression), pose, default_camera()).astype(np.float32)
    heads = head_frames(landmarks, FaceFit(shape, expression, pose, default_camera(), 0.0, 0.0), model)
    frames, truth = [], []
    for head, points in zip(heads, landmarks, strict=True):
        labels = np.zeros((256, 256), np.uint8)
        right, up = head.coordinates(256, 1.0)
        labels[(np.hypot(right / 1.9, (up + 2.9) / 1.45) < 1) & (up < -1.3)] = LABEL_INDEX["clothes"]
        labels[(np.abs(right) < 0.42) & (up < -0.5) & (up > -1.55)] = LABEL_INDEX["neck"]
        cap = np.hypot(right / 0.86, (up - 0.15) / 1.15) < 1
        labels[cap & (up > -0.3)] = LABEL_INDEX["hair"]
        face = np.zeros((256, 256), np.uint8)
        cv2.fillConvexPoly(face, np.round(head.outline).astype(np.int32), 1)
        labels[face > 0] = LABEL_INDEX["face"]
        colours = np.zeros((256, 256, 3), np.float32)
        for name, colour in (
            ("background", (150, 165, 180)),
            ("face", (205, 155, 130)),
            ("neck", (190, 140, 118)),
            ("hair", (60, 42, 30)),
            ("clothes", (40, 70, 140)),
        ):
            colours[labels == LABEL_INDEX[name]] = colour
        stripes = (np.arange(256) // 20 % 2)[None, :, None] * (labels == 0)[..., None]
        colours += 25 * stripes + rng.normal(0, 5, colours.shape)
        lips = cv2.convexHull(np.round(points[48:60]).astype(np.int32))
        cv2.fillConvexPoly(colours, lips, (170, 70, 75))
        cv2.fillConvexPoly(labels, lips, LABEL_INDEX["lips"])
        frames.append(np.clip(colours, 0, 255).astype(np.uint8))
        truth.append(labels)
    return np.stack(frames), landmarks, np.stack(truth)
