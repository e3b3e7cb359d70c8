import numpy as np
import pytest

from models.face.camera import project
from models.face.model import deform, landmarks68, load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.character import build_character
from pipelines.stages.scene import Stage, compose_poses, draw_backdrop, draw_scene


@pytest.fixture(scope="module")
def stage():
    model = load_face_model()
    return Stage(
        model, build_character(model, np.random.default_rng([1, 2])), draw_scene(np.random.default_rng([1, 3]), 256)
    )


def test_landmarks_equal_the_projected_model(stage):
    """What the truth says (shape, expression, pose, camera) gives exactly the landmarks that the picture has."""
    model = stage.model
    expression = np.random.default_rng(0).uniform(0, 0.4, model.num_expression).astype(np.float32)
    pose = stage.scene.rest + np.array([0.05, -0.1, 0.04, 0.01, 0.0, 0.02], np.float32)
    _, _, landmarks = stage.draw(expression, pose)
    points = landmarks68(model, deform(model, stage.character.shape, expression))
    np.testing.assert_allclose(landmarks, project(points, pose, stage.scene.camera), atol=0.01)


def test_frame_and_labels_agree(stage):
    image, labels, landmarks = stage.draw(np.zeros(stage.model.num_expression, np.float32), stage.scene.rest)
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8 and labels.shape == (128, 128)
    background = np.repeat(np.repeat(labels == 0, 2, 0), 2, 1)
    same = (image == stage.scene.backdrop).all(-1)
    assert same[background].mean() > 0.97 and same[~background].mean() < 0.05
    x, y = (landmarks[48:60].mean(0) / 2).astype(int)
    assert labels[y, x] in (LABEL_INDEX["lips"], LABEL_INDEX["teeth"])
    assert (labels[-1, 40:80] == LABEL_INDEX["clothes"]).all()  # shoulders fill the frame's bottom


def test_drawing_is_repeatable(stage):
    expression = np.zeros(stage.model.num_expression, np.float32)
    first = stage.draw(expression, stage.scene.rest)[0].copy()
    stage.draw(expression + 0.2, stage.scene.rest)
    np.testing.assert_array_equal(stage.draw(expression, stage.scene.rest)[0], first)


def test_the_head_turns_and_the_shoulders_stay(stage):
    expression = np.zeros(stage.model.num_expression, np.float32)
    turned = stage.scene.rest.copy()
    turned[1] += 0.2
    rest, moved = stage.camera_points(expression, stage.scene.rest), stage.camera_points(expression, turned)
    still = stage.character.follow == 0
    np.testing.assert_allclose(rest[still], moved[still], atol=1e-6)
    nose = stage.model.faces[stage.model.landmark_faces[30], stage.model.landmark_barycentric[30].argmax()]
    assert moved[nose, 0] < rest[nose, 0] - 0.015


def test_scenes_frame_the_head():
    model = load_face_model()
    for k in range(20):
        scene = draw_scene(np.random.default_rng([2, k]), 512)
        points = project(model.vertices[model.labels == LABEL_INDEX["face"]], scene.rest, scene.camera)
        low, high = points.min(0), points.max(0)
        assert low.min() > 40 and high.max() < 440 and 110 < high[0] - low[0] < 220
        np.testing.assert_allclose(np.linalg.norm(scene.light), 1, atol=1e-5)


def test_backdrops_are_of_all_kinds():
    kinds = set()
    for k in range(20):
        image, kind = draw_backdrop(np.random.default_rng(k), 64)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        kinds.add(kind)
    assert kinds == {"plain", "gradient", "blurred room"}


def test_compose_poses_adds_the_motion():
    rest = np.array([0.1, 0, 0, 0, 0, 2], np.float32)
    motion = np.array([[0, 0, 0, 0, 0, 0], [0.2, 0, 0, 0.01, 0, 0]], np.float32)
    np.testing.assert_allclose(compose_poses(rest, motion), [[0.1, 0, 0, 0, 0, 2], [0.3, 0, 0, 0.01, 0, 2]], atol=1e-6)
