"""The description of a clip: JSON attributes in the paper's fields, measured from the clip's pixels, fit and sound.

The paper prompts a vision-language model for these fields. The embedded captioner ``pixels`` measures what can be
measured (colours, light, motion, mouth, gaze, voice) and says "unknown" for the rest (gender, age, ethnicity, setting):
it never guesses. Directions are the image's: left is the viewer's left.
"""

from dataclasses import dataclass

import numpy as np

from models.face.camera import rotation_matrix
from models.labels import LABEL_INDEX
from models.signals import SPEECH_RATE, VIDEO_FPS
from pipelines.stages.description_schema import SKIN_TONES, UNKNOWN, compact_json, validate_description

BACKEND = "pixels"


@dataclass(frozen=True)
class Clip:
    """What the captioner looks at, for T frames and S speech steps.

    frames uint8 (T, H, W, 3); landmarks float32 (T, 68, 2); labels uint8 (T, H, W); pose float32 (T, 6); smile float32
    (T,) the smile coefficient of the fit or None if the face model has none; activity uint8 (S,); pitch_hz float32
    (S,); words: dictionaries with word, start, end, confidence; script_confidence in 0..1.
    """

    frames: np.ndarray
    landmarks: np.ndarray
    labels: np.ndarray
    pose: np.ndarray
    smile: np.ndarray | None
    activity: np.ndarray
    pitch_hz: np.ndarray
    words: list[dict]
    script_confidence: float


def describe(clip: Clip) -> str:
    """Describes a clip: JSON text of DESCRIPTION_FIELDS in their order, compact and validated."""
    samples = _samples(clip)
    values = {
        "gender": UNKNOWN,
        "age_group": UNKNOWN,
        "ethnicity": UNKNOWN,
        "clothing": _clothing(samples),
        "hair": _hair(clip, samples),
        "facial_features": _features(clip, samples),
        "mouth_action": _mouth(clip),
        "head_motion": _head_motion(clip),
        "gaze": _gaze(clip),
        "lighting": _lighting(clip),
        "background": _background(clip, samples),
        "scene": _scene(clip),
        "voice": _voice(clip),
    }
    text = compact_json(values)
    validate_description(text)
    return text


# --- Colours ---


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab (D65) of sRGB colours: uint8 (..., 3) -> float64 (..., 3), L in 0..100."""
    linear = np.asarray(rgb, np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def colour_names(rgb: np.ndarray) -> np.ndarray:
    """Names colours by lightness, chroma and hue in Lab: uint8 (N, 3) -> str (N,)."""
    lab = to_lab(np.asarray(rgb).reshape(-1, 3))
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    grey = chroma < np.where(light < 25, 8, 11)
    conditions = [
        (light < 12) | grey & (light < 20),
        grey & (light < 38),
        grey & (light < 65),
        grey & (light < 85),
        grey,
        (hue < 20) | (hue >= 335),
        (hue < 48) & (light < 60) & (chroma > 42),
        hue < 48,
        hue < 75,
        hue < 90,
        hue < 108,
        hue < 175,
        hue < 215,
        hue < 300,
    ]
    names = [
        "black",
        "dark grey",
        "grey",
        "light grey",
        "white",
        np.where(light > 62, "pink", np.where(light < 28, "dark red", "red")),
        np.where(light < 28, "dark red", "red"),
        np.where(light > 68, np.where(chroma > 40, "orange", "beige"), "brown"),
        np.where(chroma > 48, np.where(light > 50, "orange", "brown"), np.where(light > 62, "beige", "brown")),
        np.where(chroma > 45, "yellow", np.where(light > 62, "beige", "brown")),
        np.where(chroma > 40, np.where(light > 60, "yellow", "olive"), np.where(light > 62, "beige", "olive")),
        np.where(light < 35, "dark green", "green"),
        "teal",
        np.where(light > 62, "light blue", np.where(light < 28, "dark blue", "blue")),
    ]
    return np.select(conditions, names, "purple")


def common_colours(rgb: np.ndarray) -> list[tuple[str, float]]:
    """Returns the colour names of pixels with their shares, commonest first."""
    names, counts = np.unique(colour_names(rgb), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(str(names[k]), counts[k] / counts.sum()) for k in order]


def hair_colour(rgb: np.ndarray) -> str:
    """Names hair of the median colour of pixels: uint8 (N, 3) -> one of HAIR_COLOURS."""
    light, a, b = np.median(to_lab(rgb), 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    if light < 14 or (light < 20 and chroma < 8):
        return "black"
    if chroma < 7:
        return "grey" if light < 70 else "white"
    if not 5 < hue < 110:
        return "other"
    if hue < 50 and chroma > 24 and light > 22:
        return "red"
    if light < 27:
        return "dark brown"
    return "brown" if light < 47 else "blond"


def skin_tone(rgb: np.ndarray) -> str:
    """Names skin by its individual typology angle (Chardon et al., 1991): uint8 (N, 3) -> one of SKIN_TONES.

    The angle comes from the picture as it is, so coloured or dim light shifts it.
    """
    light, _, b = np.median(to_lab(rgb), 0)
    angle = np.degrees(np.arctan2(light - 50, max(b, 1e-3)))
    return SKIN_TONES[int(np.searchsorted(-np.array([55, 41, 28, 10, -30]), -angle))]


# --- The fields ---


def _samples(clip: Clip) -> dict[str, np.ndarray]:
    """Colours of each label's pixels over frames spread through the clip: name -> uint8 (N, 3), N at most 6000."""
    chosen = np.unique(np.linspace(0, len(clip.frames) - 1, 8).round().astype(int))
    frames, labels = clip.frames[chosen], clip.labels[chosen]
    samples = {}
    for name in ("clothes", "hair", "face", "iris", "background"):
        pixels = frames[labels == LABEL_INDEX[name]]
        samples[name] = pixels[:: max(1, len(pixels) // 6000)]
    return samples


def _share(clip: Clip, name: str) -> float:
    return float((clip.labels == LABEL_INDEX[name]).mean())


def _units(clip: Clip) -> np.ndarray:
    """Nasion to chin in pixels: (T,)."""
    return np.linalg.norm(clip.landmarks[:, 8] - clip.landmarks[:, 27], axis=1)


def _clothing(samples: dict) -> dict:
    if len(samples["clothes"]) < 200:
        return {"colour": "not visible", "second_colour": "none"}
    colours = common_colours(samples["clothes"])
    second = colours[1][0] if len(colours) > 1 and colours[1][1] > 0.25 else "none"
    return {"colour": colours[0][0], "second_colour": second}


def _hair(clip: Clip, samples: dict) -> dict:
    face = _share(clip, "face")
    if _share(clip, "hair") < 0.06 * face or len(samples["hair"]) < 50:
        return {"colour": "none", "length": "none"}
    lows = []
    for t in range(0, len(clip.labels), max(1, len(clip.labels) // 8)):
        rows, columns = np.nonzero(clip.labels[t] == LABEL_INDEX["hair"])
        if len(rows) < 20:
            continue
        chin, nasion = clip.landmarks[t, 8], clip.landmarks[t, 27]
        up = (nasion - chin) / max(np.linalg.norm(nasion - chin), 1e-3) ** 2
        height = (columns - chin[0]) * up[0] + (rows - chin[1]) * up[1]
        lows.append(np.percentile(height, 2))
    low = float(np.median(lows)) if lows else 1.0
    # Heights in face units above the chin: ears are near 0.7, shoulders below -0.5.
    length = "short" if low > 0.35 else "medium" if low > -0.35 else "long"
    return {"colour": hair_colour(samples["hair"]), "length": length}


def _features(clip: Clip, samples: dict) -> dict:
    face, beard = _share(clip, "face"), _share(clip, "beard")
    share = beard / max(face + beard, 1e-6)
    # A parser that knows no beard or glasses labels none: their absence says nothing.
    return {
        "skin_tone": skin_tone(samples["face"]) if len(samples["face"]) else UNKNOWN,
        "eye_colour": _eye_colour(clip, samples["iris"]),
        "beard": UNKNOWN if not beard else "none" if share < 0.03 else "light" if share < 0.12 else "full",
        "glasses": "yes" if _share(clip, "glasses") > 0.01 * face else UNKNOWN,
    }


def _eye_colour(clip: Clip, iris: np.ndarray) -> str:
    length = np.linalg.norm(clip.landmarks[:, [36, 42]] - clip.landmarks[:, [39, 45]], axis=-1).mean()
    # Below this an iris is a handful of pixels mixed with lashes and skin.
    if length < 20 or len(iris) < 60:
        return UNKNOWN
    lab = to_lab(iris)
    # Reflections are the brightest, lashes and pupil the darkest.
    order = lab[:, 0].argsort()
    light, a, b = np.median(lab[order[len(order) // 3 : len(order) * 5 // 6]], 0)
    if light < 18:
        return "dark brown"
    if b < -1.5:
        return "blue"
    if np.hypot(a, b) < 5:
        return "grey" if light > 35 else "dark brown"
    return "green" if a < -1 else "brown"


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Returns the height of the inner lips' opening in units of nasion to chin: (T, 68, 2) -> (T,)."""
    unit = np.linalg.norm(landmarks[:, 8] - landmarks[:, 27], axis=1)
    gap = np.linalg.norm(landmarks[:, 61:64] - landmarks[:, [67, 66, 65]], axis=-1).mean(1)
    return gap / np.maximum(unit, 1e-3)


def _mouth(clip: Clip) -> dict:
    opening = mouth_opening(clip.landmarks)
    wide = float(np.percentile(opening, 95))
    moving = float(np.abs(np.diff(opening)).mean() * VIDEO_FPS) if len(opening) > 1 else 0.0
    if clip.activity.mean() < 0.05:
        talking = "silent"
    else:
        talking = "a little" if moving < 0.15 else "moderate" if moving < 0.5 else "lively"
    smile = UNKNOWN
    if clip.smile is not None:
        level = float(np.percentile(clip.smile, 80))
        smile = "none" if level < 0.25 else "slight" if level < 0.55 else "broad"
    return {
        "talking": talking,
        "opening": "small" if wide < 0.06 else "medium" if wide < 0.15 else "wide",
        "smile": smile,
    }


def head_angles(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the face looks, in degrees: to the image's right (T,) and down (T,), from pose (T, 6)."""
    forward = -rotation_matrix(np.asarray(pose, np.float64)[:, :3])[:, :, 2]
    flat = np.hypot(forward[:, 0], forward[:, 2])
    return np.degrees(np.arctan2(forward[:, 0], -forward[:, 2])), np.degrees(np.arctan2(forward[:, 1], flat))


def _head_motion(clip: Clip) -> dict:
    right, down = head_angles(clip.pose)
    roll = np.degrees(clip.pose[:, 2])
    span = sum(np.subtract(*np.percentile(angle, [95, 5])) ** 2 for angle in (right, down, roll)) ** 0.5
    amount = ("still", "slight", "moderate", "strong")[int(np.searchsorted([4, 10, 25], span))]
    turn, tilt = float(np.median(right)), float(np.median(down))
    return {
        "amount": amount,
        "facing": "camera" if abs(turn) < 12 else "right" if turn > 0 else "left",
        "tilt": "level" if abs(tilt) < 12 else "down" if tilt > 0 else "up",
    }


def _gaze(clip: Clip) -> dict:
    angles = []
    right, _ = head_angles(clip.pose)
    for t in range(0, len(clip.labels), 3):
        for eye in (clip.landmarks[t, 36:42], clip.landmarks[t, 42:48]):
            low, high = np.floor(eye.min(0)).astype(int), np.ceil(eye.max(0)).astype(int) + 1
            if (low < 0).any():
                continue
            window = clip.labels[t, low[1] : high[1], low[0] : high[0]]
            rows, columns = np.nonzero((window == LABEL_INDEX["iris"]) | (window == LABEL_INDEX["pupil"]))
            length = np.linalg.norm(eye[3] - eye[0])
            if len(rows) < 4 or length < 8:
                continue
            axis = (eye[3] - eye[0]) / length
            shift = (np.array([columns.mean(), rows.mean()]) + 0.5 + low - (eye[0] + eye[3]) / 2) @ axis
            # An eye's opening is about 30 mm long and the eyeball's radius 12 mm.
            angles.append(right[t] + np.degrees(np.arcsin(np.clip(shift / length * 30 / 12, -1, 1))))
    direction = UNKNOWN
    if len(angles) >= 5:
        middle = float(np.median(angles))
        direction = "camera" if abs(middle) < 14 else "right" if middle > 0 else "left"
    return {"direction": direction, "blinks": min(count_blinks(clip.landmarks), 99)}


def count_blinks(landmarks: np.ndarray) -> int:
    """Counts how often both eyes' openings fall to 60 % of the usual for 2 to 10 frames: (T, 68, 2) -> int."""
    heights = np.linalg.norm(landmarks[:, [37, 38, 43, 44]] - landmarks[:, [41, 40, 47, 46]], axis=-1).mean(1)
    widths = np.linalg.norm(landmarks[:, [36, 42]] - landmarks[:, [39, 45]], axis=-1).mean(1)
    ratio = heights / np.maximum(widths, 1e-3)
    closed = np.concatenate([[0], (ratio < 0.6 * np.median(ratio)).astype(int), [0]])
    edges = np.flatnonzero(np.diff(closed))
    lengths = edges[1::2] - edges[::2]
    return int(((lengths >= 2) & (lengths <= 10)).sum())


def _patch_light(clip: Clip, corners: tuple[int, ...], down: float = 0.0) -> float:
    """Median light (0..255) of a patch at the mean of some landmarks, moved ``down`` face units, over the clip."""
    values = []
    for t in range(0, len(clip.frames), max(1, len(clip.frames) // 8)):
        points = clip.landmarks[t]
        place = points[list(corners)].mean(0) + down * (points[8] - points[27])
        x, y = np.clip(place.round().astype(int), 2, np.array(clip.frames.shape[2:0:-1]) - 3)
        values.append(np.median(clip.frames[t, y - 2 : y + 3, x - 2 : x + 3] @ np.array([0.299, 0.587, 0.114])))
    return float(np.median(values))


def _lighting(clip: Clip) -> dict:
    mean = float((clip.frames[::8].reshape(-1, 3).mean(0) @ np.array([0.299, 0.587, 0.114])).item())
    left, right = _patch_light(clip, (1, 31, 48)), _patch_light(clip, (15, 35, 54))
    # Between the brows and on the chin: above the brows there may be hair.
    above, below = _patch_light(clip, (21, 22, 27)), _patch_light(clip, (8, 57))
    across, along = np.log2(max(left, 4) / max(right, 4)), np.log2(max(above, 4) / max(below, 4))
    direction = "even"
    if abs(across) > 0.3 and abs(across) >= abs(along) - 0.3:
        direction = "left" if across > 0 else "right"
    elif abs(along) > 0.6:
        direction = "above" if along > 0 else "below"
    return {
        "brightness": ("dark", "dim", "medium", "bright")[int(np.searchsorted([45, 85, 150], mean))],
        "direction": direction,
    }


def _background(clip: Clip, samples: dict) -> dict:
    if len(samples["background"]) < 200:
        return {"colour": UNKNOWN, "texture": UNKNOWN}
    gradients = []
    for t in range(0, len(clip.frames), max(1, len(clip.frames) // 4)):
        light = clip.frames[t].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        behind = clip.labels[t] == LABEL_INDEX["background"]
        # Only between pixels that both lie behind the person, so that the person's edge does not count.
        across = np.abs(np.diff(light, axis=1))[behind[:, 1:] & behind[:, :-1]]
        along = np.abs(np.diff(light, axis=0))[behind[1:] & behind[:-1]]
        gradients.append((across.mean() if len(across) else 0) + (along.mean() if len(along) else 0))
    texture = ("plain", "structured", "busy")[int(np.searchsorted([2.5, 9.0], np.median(gradients)))]
    return {"colour": common_colours(samples["background"])[0][0], "texture": texture}


def _scene(clip: Clip) -> dict:
    share = float(np.median(_units(clip))) / clip.frames.shape[1]
    framing = "close-up" if share > 0.38 else "head and shoulders" if share > 0.2 else "upper body"
    camera = UNKNOWN
    if len(clip.frames) > 15:
        before, after = clip.frames[:-15:15].astype(np.int16), clip.frames[15::15].astype(np.int16)
        behind = (clip.labels[:-15:15] == LABEL_INDEX["background"]) & (
            clip.labels[15::15] == LABEL_INDEX["background"]
        )
        if behind.sum() > 500:
            # Compression and noise change a still background by a few levels in half a second.
            changed = (np.abs(after - before).max(-1)[behind] > 20).mean()
            camera = "moving" if changed > 0.12 else "static"
    return {"framing": framing, "camera": camera, "setting": UNKNOWN}


def _voice(clip: Clip) -> dict:
    voiced = clip.pitch_hz[clip.pitch_hz > 0]
    if len(voiced) < 10:
        return {"pitch": UNKNOWN, "pitch_hz": UNKNOWN, "rate": UNKNOWN}
    hertz = float(np.median(voiced))
    rate = UNKNOWN
    spoken = clip.activity.sum() / SPEECH_RATE
    # An unsure transcript (another language, noise) does not say how fast somebody talks.
    if clip.script_confidence >= 0.3 and len(clip.words) >= 4 and spoken > 1:
        per_second = len(clip.words) / spoken
        rate = "slow" if per_second < 2.0 else "medium" if per_second < 3.5 else "fast"
    return {
        "pitch": "low" if hertz < 140 else "medium" if hertz < 190 else "high",
        "pitch_hz": int(np.clip(round(hertz / 5) * 5, 50, 500)),
        "rate": rate,
    }
