import json

import numpy as np
import pytest

from models.face.model import load_face_model
from pipelines.stages.backdrops import KINDS
from pipelines.stages.character import draw_attributes
from pipelines.stages.describe import validate_description
from pipelines.stages.known_description import describe_truth
from pipelines.stages.scene import FRAMINGS, draw_light

WORDS = [{"word": "a", "start": 0.2 + 0.4 * k, "end": 0.5 + 0.4 * k} for k in range(6)]


def described(attributes, pose=None, blinks=0, words=WORDS, pitch=None, opening=0.0):
    names = load_face_model().expression_names
    expression = np.zeros((90, len(names)), np.float32)
    for k in range(blinks):
        expression[10 + 20 * k : 14 + 20 * k, names.index("blink_left")] = 1.0
    landmarks = np.zeros((90, 68, 2), np.float32)
    landmarks[:, 8, 1], landmarks[:, 61:64, 1] = 100, -opening * 100
    backdrop = np.full((64, 64, 3), (30, 60, 200), np.uint8)
    pose = np.zeros((90, 6), np.float32) if pose is None else pose
    return json.loads(describe_truth(attributes, backdrop, landmarks, pose, expression, names, words, pitch))


def person(k):
    rng = np.random.default_rng(k)
    scene = {
        "framing": tuple(FRAMINGS)[k % 3],
        "background": tuple(KINDS)[k % len(KINDS)],
        "setting": tuple(KINDS.values())[k % len(KINDS)],
    }
    return draw_attributes(rng) | scene | draw_light(rng, np.full((8, 8, 3), 99, np.uint8))[3]


def test_everybody_can_be_described():
    for k in range(60):
        values = described(person(k))
        validate_description(json.dumps(values))
        assert values["gender"] == person(k)["gender"] and values["ethnicity"] == "unknown"
        assert values["facial_features"]["glasses"] == ("no" if person(k)["glasses"] == "none" else "yes")


def test_what_happens_is_told():
    a = person(1)
    pose = np.zeros((90, 6), np.float32)
    pose[:, 1] = 0.5 + 0.3 * np.sin(np.arange(90) / 9)
    values = described(a, pose, blinks=3, pitch=212.0, opening=0.2)
    assert values["gaze"]["blinks"] == 3 and values["mouth_action"]["opening"] == "wide"
    assert values["head_motion"]["amount"] == "strong" and values["head_motion"]["facing"] != "camera"
    assert values["voice"] == {"pitch": "high", "pitch_hz": 210, "rate": "medium"}
    assert values["background"]["colour"] == "blue"
    silent = described(a, words=[])
    assert silent["mouth_action"]["talking"] == "silent" and silent["voice"]["pitch"] == "unknown"


@pytest.mark.parametrize(("beard", "said"), [("none", "none"), ("stubble", "light"), ("full", "full")])
def test_beards(beard, said):
    assert described(person(2) | {"beard": beard})["facial_features"]["beard"] == said
