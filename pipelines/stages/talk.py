"""How a rendered head moves while it speaks: phonemes -> expression coefficients, head motion, blinks and gaze, all at
30 fps.

Mouth: each phoneme is a set of targets with a dominance that rises and falls about its middle; a coefficient at a time
is the mean of all targets weighted by dominance (the co-articulation model of Cohen and Massaro, 1993). Lips that must
meet (p b m) and lips that round have more weight than the rest, so that closures are reached in fast speech.

Array letters: T frames, Ne expression coefficients.
"""

import dataclasses

import numpy as np

from models.face.model import FaceModel, deform
from models.signals import VIDEO_FPS

# Targets by first symbol found (longest first), jaw_x in radians. Directions that are not named are 0.
_VISEMES = {
    "": {},
    "p": {"lip_close": 0.30, "lip_press": 0.35, "jaw_x": 0.012},
    "f": {"lip_close": 0.20, "jaw_x": 0.02, "upper_lip_raise": 0.18, "lip_press": 0.10},
    "θ": {"jaw_x": 0.032, "tongue_out": 0.55, "lower_lip_lower": 0.15, "lip_spread": 0.10},
    "t": {"jaw_x": 0.024, "tongue_up": 0.9, "lip_spread": 0.15, "lower_lip_lower": 0.10},
    "s": {"jaw_x": 0.012, "lip_spread": 0.35, "lower_lip_lower": 0.32, "upper_lip_raise": 0.14},
    "l": {"jaw_x": 0.04, "tongue_up": 1.0, "lip_spread": 0.10},
    "ʃ": {"jaw_x": 0.016, "lip_funnel": 0.55, "lip_round": 0.35},
    "ɹ": {"jaw_x": 0.03, "lip_round": 0.42, "lip_funnel": 0.12},
    "w": {"jaw_x": 0.016, "lip_round": 0.95},
    "k": {"jaw_x": 0.044},
    "h": {"jaw_x": 0.056},
    "j": {"jaw_x": 0.024, "lip_spread": 0.45},
    "i": {"jaw_x": 0.03, "lip_spread": 0.65, "lower_lip_lower": 0.22, "upper_lip_raise": 0.10},
    "ɪ": {"jaw_x": 0.044, "lip_spread": 0.40, "lower_lip_lower": 0.15},
    "e": {"jaw_x": 0.072, "lip_spread": 0.40, "lower_lip_lower": 0.12},
    "æ": {"jaw_x": 0.124, "lip_spread": 0.30, "lower_lip_lower": 0.15},
    "a": {"jaw_x": 0.144, "lip_spread": 0.10},
    "ʌ": {"jaw_x": 0.096},
    "ə": {"jaw_x": 0.052},
    "ɜ": {"jaw_x": 0.056, "lip_round": 0.28},
    "ɔ": {"jaw_x": 0.104, "lip_round": 0.50},
    "o": {"jaw_x": 0.076, "lip_round": 0.72},
    "ʊ": {"jaw_x": 0.044, "lip_round": 0.65},
    "u": {"jaw_x": 0.028, "lip_round": 0.90, "lip_funnel": 0.10},
}
# Symbols that look like another one: "pbm" is read "b and m look like p".
_ALIKE = (
    "pbm",
    "fv",
    "θð",
    "tdnɾʔ",
    "sz",
    "lɫ",
    "ʃʒ",
    "ɹr",
    "wʍ",
    "kgɡŋx",
    "ɪᵻɨ",
    "eɛ",
    "aɑ",
    "ʌɐ",
    "ɜɚɝ",
    "ɔɒ",
    "oɵ",
    "uyʉ",
)
_ALIASES = {symbol: group[0] for group in _ALIKE for symbol in group}
# How far (metres) one lip may push into the other.
LIP_PRESSURE = 0.0003
VOWELS = "iɪeæaʌəɜɔoʊu"
_MOUTH = (
    "jaw_x",
    "lip_round",
    "lip_funnel",
    "lip_spread",
    "lip_press",
    "lip_close",
    "upper_lip_raise",
    "lower_lip_lower",
    "tongue_up",
    "tongue_out",
)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How one person moves: factors about 1 on mouth opening, head motion and blink rate; a resting smile (0..0.3)."""

    articulation: float = 1.0
    liveliness: float = 1.0
    blink_seconds: float = 2.8
    smile: float = 0.05


def visemes(symbol: str) -> list[str]:
    """Returns the viseme keys of an IPA phoneme in order: one, or two of a diphthong or affricate; [""] for a pause."""
    keys = [_ALIASES.get(c, c) for c in symbol]
    keys = [k for k in keys if k in _VISEMES]
    merged = [k for i, k in enumerate(keys) if i == 0 or k != keys[i - 1]]
    return merged[:3] or [""]


def openness(symbol: str) -> float:
    """Returns how open the mouth of a phoneme is meant to be, 0 (closed lips) to about 0.7 (ah)."""
    values = [5 * _VISEMES[k].get("jaw_x", 0.0) - 2 * _VISEMES[k].get("lip_close", 0.0) for k in visemes(symbol)]
    return max(0.0, float(np.mean(values)))


def mouth_track(phonemes: list[dict], frames: int, articulation: float = 1.0) -> np.ndarray:
    """Returns (T, len(_MOUTH)) coefficients of the mouth directions at frame middles, from phoneme times in clip
    seconds.
    """
    entries = []  # middle, half width, target vector, weights per direction
    rest = np.zeros(len(_MOUTH))
    if phonemes:
        first, last = phonemes[0]["start"], phonemes[-1]["end"]
        spans = [
            {"phoneme": "", "start": first - 0.35, "end": first},
            *phonemes,
            {"phoneme": "", "start": last, "end": last + 0.35},
        ]
    else:
        spans = []
    for span in spans:
        keys = visemes(span["phoneme"])
        length = (span["end"] - span["start"]) / len(keys)
        for k, key in enumerate(keys):
            target = np.array([_VISEMES[key].get(name, 0.0) for name in _MOUTH])
            middle = span["start"] + (k + 0.5) * length
            weight = np.ones(len(_MOUTH))
            if key == "p":
                # espeak-ng stamps a stop at its release; the lips meet before it.
                middle = span["start"] + (0.5 * length if span["phoneme"][:1] == "m" else -0.005)
                weight *= 7.0
            elif key == "f":
                weight *= 3.0
            elif key in VOWELS:
                weight *= 1.3 + 0.5 * span.get("stress", 0)
            elif key in ("w", "ʃ"):
                weight *= 1.6
            elif key == "" and length < 0.06:
                weight *= 0.3
            else:
                weight *= 0.8
            scale = articulation if key in VOWELS else 1.0
            entries.append(
                (middle, max(length / 2, 0.03), target * np.where(np.array(_MOUTH) == "jaw_x", scale, 1.0), weight)
            )
    if not entries:
        return np.tile(rest, (frames, 1))
    middles, widths = np.array([e[0] for e in entries]), np.array([e[1] for e in entries])
    targets, weights = np.array([e[2] for e in entries]), np.array([e[3] for e in entries])
    times = (np.arange(frames) + 0.5) / VIDEO_FPS
    distance = np.abs(times[:, None] - middles) / (widths + 0.022)
    dominance = np.exp(-(distance**1.6)) + 1e-9
    total = dominance @ weights
    track = (dominance @ (weights * targets)) / total
    # Lips move ahead of the sound and never jump within a frame.
    return _smooth(track, 0.45)


def _smooth(track, centre):
    side = (1 - centre) / 2
    padded = np.concatenate([track[:1], track, track[-1:]])
    return side * padded[:-2] + centre * padded[1:-1] + side * padded[2:]


def _noise(rng, frames, seconds):
    """Returns smooth noise (T,) of unit size that changes about every ``seconds``."""
    knots = rng.standard_normal(int(frames / VIDEO_FPS / seconds) + 5)
    from scipy.interpolate import CubicSpline

    at = rng.random() + np.arange(frames) / VIDEO_FPS / seconds
    return np.clip(CubicSpline(np.arange(len(knots)), knots)(at), -2, 2) / 1.2


def blink_track(rng: np.random.Generator, frames: int, every: float) -> np.ndarray:
    """Returns lid closure (T,) 0..1: closing takes about 3 frames, opening 5, the first blink comes within 1.5 s."""
    shape = np.array([0.35, 0.85, 1.0, 0.9, 0.6, 0.3, 0.1])
    track = np.zeros(frames + len(shape))
    at = rng.uniform(0.4, 1.5)
    while at * VIDEO_FPS < frames:
        k = int(at * VIDEO_FPS)
        track[k : k + len(shape)] = np.maximum(track[k : k + len(shape)], shape)
        at += rng.uniform(0.55, 1.6) * every
    return track[:frames]


def perform(
    model: FaceModel, phonemes: list[dict], frames: int, manner: Manner, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a whole performance.

    Args:
      model: the face model, whose directions are addressed by name.
      phonemes: {phoneme, start, end, stress} in clip seconds.
      frames: T.
      manner: the person's habits.
      rng: decides blinks, gaze and head motion.

    Returns:
      expression (T, Ne) float32; head motion (T, 6) float32: axis-angle (radians; within 6, 12, 6 degrees) and
      translation (metres) about the person's rest pose.
    """
    expression = np.zeros((frames, model.num_expression))
    column = model.expression_index
    mouth = mouth_track(phonemes, frames, manner.articulation)
    for k, name in enumerate(_MOUTH):
        expression[:, column(name)] = mouth[:, k]
    expression = _uncross_lips(model, expression)
    stressed = [(p["start"] + p["end"]) / 2 for p in phonemes if p["stress"] and p["phoneme"][:1]]
    times = (np.arange(frames) + 0.5) / VIDEO_FPS
    beats = np.zeros(frames)
    brow = np.zeros(frames)
    for at in stressed:
        beats += rng.uniform(0.2, 1.0) * np.exp(-0.5 * ((times - at - 0.05) / 0.10) ** 2)
        if rng.random() < 0.3:
            brow += rng.uniform(0.2, 0.6) * np.exp(-0.5 * ((times - at) / 0.14) ** 2)
    lively = manner.liveliness
    pitch = np.radians(np.clip(lively * (2.0 * _noise(rng, frames, 0.9) + 1.6 * beats), -6, 6))
    yaw = np.radians(np.clip(lively * (5.0 * _noise(rng, frames, 1.3) + 1.0 * _noise(rng, frames, 0.5)), -12, 12))
    roll = np.radians(np.clip(lively * 2.3 * _noise(rng, frames, 1.2), -6, 6))
    shift = np.stack(
        [
            0.005 * _noise(rng, frames, 1.5),
            0.003 * _noise(rng, frames, 1.1) + 0.002 * beats,
            0.006 * _noise(rng, frames, 1.6),
        ],
        -1,
    )
    motion = np.concatenate([np.stack([pitch, yaw, roll], -1), lively * shift], -1)

    blink = blink_track(rng, frames, manner.blink_seconds)
    expression[:, column("blink_left")] = blink
    expression[:, column("blink_right")] = blink
    expression[:, column("brow_raise")] = np.clip(brow + 0.12 * np.maximum(_noise(rng, frames, 1.2), 0), 0, 1)
    expression[:, column("smile")] = np.clip(manner.smile + 0.06 * _noise(rng, frames, 1.8), 0, 0.4)
    # Eyes hold the camera against the head's turn, and look aside now and then.
    look = np.zeros((frames, 2))
    at = rng.uniform(0.5, 2.0)
    while at < times[-1]:
        hold = (times >= at) & (times < at + rng.uniform(0.3, 0.8))
        look[hold] = rng.uniform(-1, 1, 2) * (0.15, 0.07)  # radians
        at += rng.uniform(1.2, 3.0)
    look = _smooth(look, 0.6)
    expression[:, column("gaze_x")] = np.clip(0.8 * yaw + look[:, 0], -0.26, 0.26)
    # Lids follow the eyes; in a blink both come back to the middle, so that the lids meet.
    expression[:, column("gaze_y")] = np.clip(0.8 * pitch + look[:, 1], -0.21, 0.21) * (1 - blink)
    return expression.astype(np.float32), motion.astype(np.float32)


def _uncross_lips(model: FaceModel, expression: np.ndarray) -> np.ndarray:
    """Returns the expressions (T, Ne) with lips that press on each other but do not pass through: where the lower lip
    would rise above the upper one, less of what closes them.
    """
    small, shape = model.landmark_model(), np.zeros(model.num_shape)
    points = deform(small, shape, expression)
    crossed = (points[:, [67, 66, 65], 1] - points[:, [61, 62, 63], 1]).max(1) - LIP_PRESSURE
    close = model.expression_index("lip_close")
    unit = deform(small, shape, model.expression(lip_close=1)) - small.vertices
    travel = unit[66, 1] - unit[62, 1]  # metres that a unit of lip_close brings the lips together
    expression = expression.copy()
    expression[:, close] -= np.clip(crossed / travel, 0, expression[:, close])
    return expression
