"""The captioner on painted frames whose colours, light, motion and voice are known."""

import json

import numpy as np
import pytest

from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.describe import (
    Clip,
    colour_names,
    count_blinks,
    describe,
    hair_colour,
    head_angles,
    mouth_opening,
    skin_tone,
)
from pipelines.stages.description_schema import (
    DESCRIPTION_FIELDS,
    UNKNOWN,
    description_form,
    validate_description,
)

FRAMES = 31


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def painted_clip(
    model,
    clothes=(180, 30, 35),
    hair=(35, 25, 20),
    wall=(120, 150, 200),
    jaw=0.0,
    yaw=0.0,
    light=None,
    hertz=110.0,
    hair_down=0.0,
) -> Clip:
    """A person painted in flat colours: face in front, hair above, clothes below."""
    time = np.arange(FRAMES) / 30
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    expression[:, model.expression_index("jaw_x")] = 0.2 * jaw * (0.5 - 0.5 * np.cos(2 * np.pi * 3 * time))
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 1], pose[:, 5] = yaw, 2.0
    shape = np.zeros(model.num_shape, np.float32)
    points = project(deform(model.landmark_model(), shape, expression), pose, default_camera()).astype(np.float32)
    labels = np.zeros((FRAMES, 256, 256), np.uint8)
    for t in range(FRAMES):
        low, high = points[t].min(0).astype(int), points[t].max(0).astype(int)
        height = high[1] - low[1]
        labels[t, low[1] - height // 2 : low[1] + 5, low[0] - 5 : high[0] + 5] = LABEL_INDEX["hair"]
        down = int(high[1] + hair_down * height)
        labels[t, low[1] : max(down, low[1]), low[0] - 15 : low[0]] = LABEL_INDEX["hair"] if hair_down else 0
        labels[t, low[1] : high[1], low[0] : high[0]] = LABEL_INDEX["face"]
        labels[t, min(high[1] + 10, 235) :, 30:220] = LABEL_INDEX["clothes"]
    frames = np.empty((FRAMES, 256, 256, 3), np.float32)
    for name, colour in (("background", wall), ("hair", hair), ("face", (200, 150, 125)), ("clothes", clothes)):
        frames[labels == LABEL_INDEX[name]] = colour
    if light is not None:
        frames *= light
    return Clip(
        frames=np.clip(frames, 0, 255).astype(np.uint8),
        landmarks=points,
        labels=labels,
        pose=pose,
        smile=np.zeros(FRAMES, np.float32),
        activity=np.ones(26, np.uint8),
        pitch_hz=np.full(26, hertz, np.float32),
        words=[{"word": "word", "start": 0.1, "end": 0.2, "confidence": 0.9}] * 6,
        script_confidence=0.7,
    )


def read(clip: Clip) -> dict:
    return validate_description(describe(clip))


def test_colours_of_clothes_hair_and_wall(model):
    text = read(painted_clip(model))
    assert text["clothing"] == {"colour": "red", "second_colour": "none"}
    assert text["hair"]["colour"] == "black" and text["background"]["colour"] in ("blue", "light blue")
    other = read(painted_clip(model, clothes=(40, 110, 50), hair=(205, 170, 110), wall=(235, 235, 235)))
    assert other["clothing"]["colour"] in ("green", "dark green")
    assert other["hair"]["colour"] == "blond" and other["background"] == {"colour": "white", "texture": "plain"}


def test_what_cannot_be_measured_is_unknown(model):
    text = read(painted_clip(model))
    assert text["gender"] == text["age_group"] == text["ethnicity"] == text["scene"]["setting"] == UNKNOWN
    # No iris is painted, so there is no gaze and no colour of eyes.
    assert text["gaze"]["direction"] == UNKNOWN and text["facial_features"]["eye_colour"] == UNKNOWN


def test_hair_length_and_a_bare_head(model):
    assert read(painted_clip(model))["hair"]["length"] == "short"
    assert read(painted_clip(model, hair_down=0.1))["hair"]["length"] == "medium"
    clip = painted_clip(model)
    clip.labels[clip.labels == LABEL_INDEX["hair"]] = 0
    assert read(clip)["hair"] == {"colour": "none", "length": "none"}


def test_mouth_and_head(model):
    still = read(painted_clip(model))
    assert still["mouth_action"]["opening"] == "small" and still["head_motion"]["amount"] == "still"
    assert still["head_motion"]["facing"] == "camera"
    talking = read(painted_clip(model, jaw=0.9))
    assert talking["mouth_action"]["talking"] in ("moderate", "lively")
    assert talking["mouth_action"]["opening"] in ("medium", "wide")
    turning = read(painted_clip(model, yaw=0.4 * np.sin(np.arange(FRAMES) / 4)))
    assert turning["head_motion"]["amount"] == "strong"
    # Positive ry turns the face to the image's left.
    assert read(painted_clip(model, yaw=0.5))["head_motion"]["facing"] == "left"
    assert read(painted_clip(model, yaw=-0.5))["head_motion"]["facing"] == "right"


def test_angles_of_the_head():
    pose = np.zeros((2, 6))
    pose[0, 1], pose[1, 0] = -np.pi / 6, np.pi / 9
    right, down = head_angles(pose)
    assert np.allclose(right, (30, 0), atol=1e-3) and np.allclose(down, (0, 20), atol=1e-3)


def test_light(model):
    ramp = np.linspace(1.3, 0.2, 256)[None, :, None]
    assert read(painted_clip(model, light=ramp))["lighting"]["direction"] == "left"
    assert read(painted_clip(model, light=ramp[:, ::-1]))["lighting"]["direction"] == "right"
    assert read(painted_clip(model))["lighting"]["direction"] == "even"
    assert read(painted_clip(model, light=0.2))["lighting"]["brightness"] == "dark"
    assert read(painted_clip(model, light=1.3))["lighting"]["brightness"] in ("medium", "bright")


def test_voice(model):
    low, high = read(painted_clip(model))["voice"], read(painted_clip(model, hertz=230.0))["voice"]
    assert low["pitch"] == "low" and low["pitch_hz"] == 110 and high["pitch"] == "high"
    assert read(painted_clip(model, hertz=0.0))["voice"]["pitch"] == UNKNOWN


def test_camera_and_texture(model):
    assert read(painted_clip(model))["scene"]["camera"] == "static"
    clip = painted_clip(model)
    behind = clip.labels == 0
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, clip.frames.shape, np.uint8)
    clip.frames[behind] = noise[behind]
    text = read(clip)
    assert text["background"]["texture"] == "busy" and text["scene"]["camera"] == "moving"


def test_blinks_and_openings(model):
    clip = painted_clip(model)
    assert count_blinks(clip.landmarks) == 0
    points = clip.landmarks.copy()
    for start in (5, 18):
        points[start : start + 4, [37, 38, 43, 44], 1] = points[start : start + 4, [41, 40, 47, 46], 1]
    assert count_blinks(points) == 2
    assert mouth_opening(painted_clip(model, jaw=0.9).landmarks).max() > 3 * mouth_opening(clip.landmarks).max()


def test_names_of_colours():
    shades = np.array(
        [(0, 0, 0), (255, 255, 255), (128, 128, 128), (220, 30, 30), (30, 60, 200), (40, 160, 60)], np.uint8
    )
    assert list(colour_names(shades)) == ["black", "white", "grey", "red", "blue", "green"]
    assert colour_names(np.array([[245, 220, 60]], np.uint8))[0] == "yellow"
    assert hair_colour(np.full((5, 3), 150, np.uint8)) == "grey"
    tones = [skin_tone(np.array([c], np.uint8)) for c in ((250, 225, 210), (205, 155, 120), (80, 50, 40))]
    assert tones[0] in ("very light", "light") and tones[2] == "dark" and len(set(tones)) == 3


def test_description_is_compact_json_and_checked(model):
    text = describe(painted_clip(model))
    values = json.loads(text)
    assert list(values) == [field.name for field in DESCRIPTION_FIELDS] and len(text) < 1200
    # It is one of the texts that the form allows.
    rest = text
    for part in description_form():
        (choice,) = [choice for choice in part if rest.startswith(choice)]
        rest = rest[len(choice) :]
    assert rest == ""
