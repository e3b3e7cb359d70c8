import numpy as np
import pytest

from models.face.camera import project
from models.face.model import deform, landmarks68, load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.character import build_character
from pipelines.stages.props import draw_hand
from pipelines.stages.scene import FRAMINGS, Performer, Stage, compose_poses, draw_light, draw_scene, kelvin_color

SIZE = 256


@pytest.fixture(scope="module")
def cast():
    """A scene and a performer of three frames: at rest, speaking with a turned head, at rest again."""
    model = load_face_model()
    person = build_character(model, np.random.default_rng([1, 2]))
    scene = draw_scene(np.random.default_rng([1, 3]), SIZE, SIZE)
    expression = np.zeros((3, model.num_expression), np.float32)
    expression[1] = np.random.default_rng(0).uniform(0, 0.2, model.num_expression)
    motion = np.zeros((3, 6), np.float32)
    motion[1] = [0.05, -0.2, 0.04, 0.01, 0.0, 0.02]
    rest = np.tile(scene.rest, (3, 1))
    return model, scene, Performer(person, expression, compose_poses(scene.rest, motion).astype(np.float32), rest)


@pytest.fixture(scope="module")
def stage(cast):
    model, scene, performer = cast
    return Stage(model, scene, [performer])


def test_landmarks_equal_the_projected_model(cast, stage):
    """What the truth says (shape, expression, pose, camera) gives exactly the landmarks that the picture has."""
    model, scene, performer = cast
    _, _, landmarks, hidden = stage.draw(1)
    points = landmarks68(model, deform(model, performer.character.shape, performer.expression[1]))
    np.testing.assert_allclose(landmarks, project(points, performer.pose[1], scene.camera), atol=0.01)
    assert not hidden.any()


def test_frame_and_labels_agree(cast, stage):
    image, labels, landmarks, _ = stage.draw(0)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 and labels.shape == (SIZE, SIZE)
    background = labels == 0
    same = (image == cast[1].backdrop).all(-1)
    assert same[background].mean() > 0.97 and same[~background].mean() < 0.05
    x, y = landmarks[48:60].mean(0).astype(int)
    assert labels[y, x] in (LABEL_INDEX["lips"], LABEL_INDEX["teeth"])
    assert (labels[-1, 80:160] == LABEL_INDEX["clothes"]).all()  # shoulders fill the frame's bottom


def test_drawing_is_repeatable(stage):
    first = stage.draw(0)[0].copy()
    stage.draw(1)
    np.testing.assert_array_equal(stage.draw(2)[0], first)


def test_the_head_turns_and_the_shoulders_stay(cast, stage):
    rest, moved = (stage.movers[0](t).copy() for t in (0, 1))
    still = stage.movers[0].person.follow == 0
    sway = moved[still] - rest[still]
    np.testing.assert_allclose(sway, np.broadcast_to(sway[0], sway.shape), atol=1e-6)  # shoulders only sway
    nose = landmarks68(cast[0], moved)[30] - landmarks68(cast[0], rest)[30]
    assert nose[0] > 0.015


def test_a_hand_hides_and_is_background(cast):
    model, scene, performer = cast
    hand, where = draw_hand(np.random.default_rng(3), np.tile(scene.rest, (60, 1)), (0.8, 0.6, 0.5), (0.2, 0.2, 0.5))
    long = Performer(
        performer.character, np.tile(performer.expression[:1], (60, 1)), *[np.tile(scene.rest, (60, 1))] * 2
    )
    stage = Stage(model, scene, [long], [hand])
    middle = (where["start"] + where["end"]) // 2
    clean, free, _, none = (array.copy() for array in stage.draw(0))
    image, labels, landmarks, hidden = stage.draw(middle)
    assert not none.any() and hidden.any()
    x, y = landmarks[hidden].mean(0).astype(int)
    assert labels[y, x] == 0 and free[y, x] != 0
    assert (image != clean)[y, x].any()


def test_a_second_person_is_seen_but_not_labelled(cast):
    model, scene, performer = cast
    other = build_character(model, np.random.default_rng([7, 2]))
    aside = performer.rest + np.array([0, 0, 0, 0.16, 0, 0.25], np.float32)
    both = Stage(model, scene, [performer, Performer(other, performer.expression, aside, aside)])
    alone = Stage(model, scene, [performer])
    image, labels, _, _ = both.draw(0)
    clean, only, _, _ = alone.draw(0)
    new = (image != clean).any(-1) & (only == 0)
    assert new.mean() > 0.02 and (labels[new] == 0).all()
    assert (labels == only).mean() > 0.999


@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 360), (360, 640)])
def test_scenes_frame_the_head(width, height):
    model = load_face_model()
    seen = set()
    for k in range(12):
        scene = draw_scene(np.random.default_rng([2, k]), width, height)
        points = project(model.vertices[model.labels == LABEL_INDEX["face"]], scene.rest, scene.camera)
        low, high = points.min(0), points.max(0)
        assert low.min() > 0 and high[0] < width and high[1] < height
        share = (high[0] - low[0]) / min(width, height)
        assert 0.15 < share < 0.55
        assert scene.backdrop.shape == (height, width, 3)
        seen.add(scene.attributes["framing"])
    assert seen == set(FRAMINGS)


def test_light_varies_and_is_exposed():
    backdrop = np.full((64, 64, 3), 120, np.uint8)
    styles, warm = set(), []
    for k in range(40):
        lights, sky, ground, attributes = draw_light(np.random.default_rng(k), backdrop)
        np.testing.assert_allclose(np.linalg.norm(lights[:, :3], axis=1), 1, atol=1e-5)
        front = sum(max(0, -row[2]) * row[3:] for row in lights) + (sky + ground) / 2
        assert 0.4 < front.mean() < 1.5
        styles.add(attributes["light"])
        warm.append((attributes["light_kelvin"], lights[0, 3] / lights[0, 5]))
    assert len(styles) == 5
    warm = np.array(warm)
    assert np.corrcoef(warm.T)[0, 1] < -0.5  # a low temperature is a red light
    assert kelvin_color(3000)[2] < 0.6 < kelvin_color(9000)[2]


def test_compose_poses_adds_the_motion():
    rest = np.array([0.1, 0, 0, 0, 0, 2], np.float32)
    motion = np.array([[0, 0, 0, 0, 0, 0], [0.2, 0, 0, 0.01, 0, 0]], np.float32)
    np.testing.assert_allclose(compose_poses(rest, motion), [[0.1, 0, 0, 0, 0, 2], [0.3, 0, 0, 0.01, 0, 2]], atol=1e-6)
