"""The description of a rendered clip from what is known about it: the schema of describe.py, filled by truth."""

import json

import numpy as np

from models.signals import VIDEO_FPS
from pipelines.stages.complexion import CLOTHES_COLORS, SKIN_TONES
from pipelines.stages.describe import UNKNOWN, colour_names, head_angles, mouth_opening, skin_tone, validate_description

_AGE = {"young": "young adult", "middle-aged": "adult", "older": "senior"}
_HAIR = {
    "black": "black",
    "dark brown": "dark brown",
    "brown": "brown",
    "auburn": "red",
    "red": "red",
    "dark blond": "blond",
    "blond": "blond",
    "grey": "grey",
    "white": "white",
}
_LENGTH = {"bald": "none", "buzz": "short", "receding": "short", "short": "short", "curly": "short", "bun": "short"}
_LENGTH |= {"medium": "medium", "bob": "medium", "long": "long", "wavy": "long", "ponytail": "long"}
_EYES = {"hazel": "brown"}
_BEARD = {"none": "none", "stubble": "light", "moustache": "light", "goatee": "light", "full": "full"}
_FRAMING = {"half body": "upper body"}
_TEXTURE = {"plain wall": "plain", "gradient": "plain", "spotlit screen": "plain", "brick wall": "busy"}
_TEXTURE |= {"bookshelf": "busy", "park": "busy", "city at night": "busy"}


def describe_truth(
    attributes: dict,
    backdrop: np.ndarray,
    landmarks: np.ndarray,
    pose: np.ndarray,
    expression: np.ndarray,
    names: tuple[str, ...],
    words: list,
    pitch_hz: float | None,
) -> str:
    """Describes a rendered clip of T frames: JSON text of DESCRIPTION_FIELDS, validated.

    What the schema asks and a rendered person does not have (ethnicity) is "unknown".

    Args:
      attributes: of the character and the scene.
      backdrop: (H, W, 3) uint8.
      landmarks: (T, 68, 2); pose (T, 6); expression (T, Ne) with its ``names``.
      words: dictionaries with start and end, seconds.
      pitch_hz: median pitch of the voice, or None without speech.
    """

    def track(name):
        return expression[:, names.index(name)]

    right, down = head_angles(pose)
    span = (
        sum(np.subtract(*np.percentile(angle, [95, 5])) ** 2 for angle in (right, down, np.degrees(pose[:, 2]))) ** 0.5
    )
    turn, tilt = float(np.median(right)), float(np.median(down))
    look = float(np.median(np.degrees(track("gaze_x")) + right))
    opening = mouth_opening(landmarks)
    moving = float(np.abs(np.diff(opening)).mean() * VIDEO_FPS)
    smile = float(np.percentile(track("smile"), 80))
    closed = np.concatenate([[0], (track("blink_left") > 0.7).astype(int), [0]])
    cloth = (np.clip(np.array(CLOTHES_COLORS[attributes["clothes_color"]]), 0, 1) * 255).astype(np.uint8)
    spoken = sum(w["end"] - w["start"] for w in words)
    behind, counts = np.unique(colour_names(backdrop[::16, ::16].reshape(-1, 3)), return_counts=True)
    hair = _HAIR[attributes["hair_color"]]
    style = attributes["hair_style"]
    exposure = attributes["exposure"]
    values = {
        "gender": attributes["gender"],
        "age_group": _AGE[attributes["age"]],
        "ethnicity": UNKNOWN,
        "clothing": {"colour": str(colour_names(cloth[None])[0]), "second_colour": "none"},
        "hair": {
            "colour": "none" if _LENGTH[style] == "none" else hair,
            "length": _LENGTH[style],
        },
        "facial_features": {
            "skin_tone": skin_tone((np.array([SKIN_TONES[attributes["skin"]]]) * 255).astype(np.uint8)),
            "eye_colour": _EYES.get(attributes["eye_color"], attributes["eye_color"]),
            "beard": _BEARD[attributes["beard"]],
            "glasses": "no" if attributes["glasses"] == "none" else "yes",
        },
        "mouth_action": {
            "talking": "silent"
            if not words
            else "a little"
            if moving < 0.15
            else "moderate"
            if moving < 0.5
            else "lively",
            "opening": ("small", "medium", "wide")[int(np.searchsorted([0.06, 0.15], np.percentile(opening, 95)))],
            "smile": ("none", "slight", "broad")[int(np.searchsorted([0.25, 0.55], smile))],
        },
        "head_motion": {
            "amount": ("still", "slight", "moderate", "strong")[int(np.searchsorted([4, 10, 25], span))],
            "facing": "camera" if abs(turn) < 12 else "right" if turn > 0 else "left",
            "tilt": "level" if abs(tilt) < 10 else "down" if tilt > 0 else "up",
        },
        "gaze": {
            "direction": "camera" if abs(look) < 10 else "right" if look > 0 else "left",
            "blinks": int((np.diff(closed) == 1).sum()),
        },
        "lighting": {
            "brightness": ("dim", "medium", "bright")[int(np.searchsorted([0.8, 1.0], exposure))],
            "direction": "even" if attributes["light_from"] == "front" else attributes["light_from"],
        },
        "background": {
            "colour": str(behind[counts.argmax()]),
            "texture": _TEXTURE.get(attributes["background"], "structured"),
        },
        "scene": {
            "framing": _FRAMING.get(attributes["framing"], attributes["framing"]),
            "camera": "static",
            "setting": attributes["setting"],
        },
        "voice": _voice(words, spoken, pitch_hz),
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    validate_description(text)
    return text


def _voice(words, spoken, pitch_hz):
    if not words or pitch_hz is None:
        return {"pitch": UNKNOWN, "pitch_hz": UNKNOWN, "rate": UNKNOWN}
    per_second = len(words) / max(spoken, 1e-3)
    return {
        "pitch": "low" if pitch_hz < 140 else "medium" if pitch_hz < 190 else "high",
        "pitch_hz": int(np.clip(round(pitch_hz / 5) * 5, 50, 500)),
        "rate": "slow" if per_second < 2.0 else "medium" if per_second < 3.5 else "fast",
    }
