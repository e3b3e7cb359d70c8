"""What is measured of a clip, and which figures it must meet. Every figure is stored whether or not it rejects.

Where a threshold was published it is used (TalkVid's face count and turn limits, in spirit); the others were set on
real clips so that only clearly broken material falls.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.signals import AUDIO_RATE, CROP_SIZE, VIDEO_FPS

# Score -> what it is. The order is that of the columns of the quality table.
SCORES: dict[str, str] = {
    "seconds": "length",
    "face_size": "median height of the face from the brows to the chin, source pixels",
    "face_share": "that height as a share of the crop's side",
    "face_present": "share of the searched frames in which the followed face was found",
    "face_score": "median score of the frontal face detector there (about 0 for a profile, over 0.5 for a clear face)",
    "single_face": "share of the searched frames, within 30 s in the shot, that show no second face that matters",
    "yaw": "median turn to the side, degrees (positive: toward the picture's right)",
    "pitch": "median nod, degrees (positive: up)",
    "roll": "median tilt, degrees (positive: clockwise in the picture)",
    "turn": "median over frames of the larger of |yaw| and |pitch|, degrees",
    "turn_peak": "95th percentile over frames of the larger of |yaw| and |pitch|, degrees",
    "blur": "median variance of the Laplacian of the face's luma in the crop; low is blurred",
    "luminance": "mean luma of the face, 0-255",
    "motion": "mean landmark movement, face heights per second",
    "frozen": "share of frames that repeat the frame before, beyond what the source's frame rate explains",
    "pad": "share of the crop that lies outside the source picture",
    "text": "share of the crop beside the face that looks like lines of lettering which do not move",
    "source_text": "the same of the whole source picture around the clip (short side 480 pixels)",
    "speech": "share of the sound that is speech",
    "snr_db": "level of speech over the level of what is not speech, dB, within -20 to 60",
    "loudness_db": "root mean square level, dB below full scale",
    "clipping": "share of samples at full scale",
    "lip_sync": "highest correlation of the mouth's movement with the voice's level, over shifts of up to 4 frames",
    "lip_sync_lag": "that shift, frames (positive: the sound is late)",
}


@dataclass(frozen=True)
class FilterThresholds:
    """A clip is kept if it meets all of these. Units as in SCORES."""

    min_seconds: float = 2.0
    max_seconds: float = 10.0
    min_source_speech_seconds: float = 0.5
    min_face_size: float = 48.0
    min_face_share: float = 0.12
    min_face_present: float = 0.6
    min_face_score: float = 0.1
    min_single_face: float = 0.9
    second_face_size: float = 0.5  # of the followed face: smaller ones do not count
    max_turn: float = 60.0
    max_tilt: float = 45.0  # |roll|
    min_blur: float = 8.0
    min_luminance: float = 20.0
    max_luminance: float = 245.0
    max_motion: float = 6.0
    max_frozen: float = 0.8
    max_pad: float = 0.3
    min_speech: float = 0.3
    min_snr_db: float = -100.0
    max_clipping: float = 0.05
    min_lip_sync: float = 0.0
    max_text: float = 1.0


# Flag -> (score, "below" or "above", limit): what a user of a kept clip may want to know.
FLAGS = {
    "noisy_or_music": ("snr_db", "below", 5.0),
    "on_screen_text": ("source_text", "above", 0.004),
    "turned_head": ("turn", "above", 25.0),
    "padded": ("pad", "above", 0.02),
    "still_moments": ("frozen", "above", 0.2),
}


def flags(scores: dict[str, float]) -> list[str]:
    """Returns the names of FLAGS that the scores raise. A flag rejects nothing."""
    return [
        name
        for name, (score, side, limit) in FLAGS.items()
        if (scores[score] < limit if side == "below" else scores[score] > limit)
    ]


def thresholds_with(changes: Sequence[str]) -> FilterThresholds:
    """Builds thresholds from NAME=VALUE texts; InputError for an unknown name or a value that is not a number."""
    known = {field.name for field in dataclasses.fields(FilterThresholds)}
    values = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in known:
            raise InputError(f"--threshold {change}: expected NAME=VALUE with NAME one of {', '.join(sorted(known))}")
        try:
            values[name] = float(value)
        except ValueError:
            raise InputError(f"--threshold {change}: expected a number after =") from None
    return FilterThresholds(**values)


def decide(scores: dict[str, float], limits: FilterThresholds) -> list[tuple[str, str]]:
    """Returns (reason, detail) for every limit that the clip misses, the weightiest first; empty if it is kept."""
    below = [
        ("too_short", "seconds", limits.min_seconds),
        ("face_lost", "face_present", limits.min_face_present),
        ("no_frontal_face", "face_score", limits.min_face_score),
        ("several_faces", "single_face", limits.min_single_face),
        ("face_too_small", "face_size", limits.min_face_size),
        ("face_too_small", "face_share", limits.min_face_share),
        ("little_speech", "speech", limits.min_speech),
        ("blurred", "blur", limits.min_blur),
        ("too_dark", "luminance", limits.min_luminance),
        ("noisy", "snr_db", limits.min_snr_db),
        ("out_of_sync", "lip_sync", limits.min_lip_sync),
    ]
    above = [
        ("no_frontal_face", "turn", limits.max_turn),
        ("head_tilted", "tilt", limits.max_tilt),
        ("too_bright", "luminance", limits.max_luminance),
        ("moves_too_much", "motion", limits.max_motion),
        ("still_picture", "frozen", limits.max_frozen),
        ("out_of_frame", "pad", limits.max_pad),
        ("clipped_sound", "clipping", limits.max_clipping),
        ("text_on_screen", "text", limits.max_text),
    ]
    figures = {**scores, "tilt": abs(scores["roll"])}
    missed = [(r, f"{n} {figures[n]:.3g} is below {limit:g}") for r, n, limit in below if figures[n] < limit]
    return missed + [(r, f"{n} {figures[n]:.3g} is above {limit:g}") for r, n, limit in above if figures[n] > limit]


# Thresholds that shape what is measured (which segments there are, whose face counts): with others of these a source is
# decoded again. All the others only decide, and stored scores are enough to decide anew.
SHAPING = ("min_seconds", "max_seconds", "min_source_speech_seconds", "second_face_size")


def stored_score(value: float) -> float:
    """A score as the tables keep it (float32), to four decimals: reading it back and rounding gives the same number."""
    return round(float(np.float32(round(float(value), 4))), 4)


# --- Picture ---

# A generic head in millimetres (x to the picture's right, y down, z away from the camera, seen from the front): points
# that hardly move with expression. Average adult distances; only angles are read from it.
_RIGID = {
    27: (0.0, -36.0, -22.0),
    30: (0.0, 0.0, -46.0),
    33: (0.0, 14.0, -30.0),
    36: (-45.0, -33.0, 6.0),
    39: (-17.0, -32.0, -4.0),
    42: (17.0, -32.0, -4.0),
    45: (45.0, -33.0, 6.0),
    0: (-72.0, -30.0, 75.0),
    16: (72.0, -30.0, 75.0),
    31: (-14.0, 9.0, -22.0),
    35: (14.0, 9.0, -22.0),
}


def head_angles(landmarks: np.ndarray) -> np.ndarray:
    """float (T, 68, 2) crop pixels -> float (T, 3): yaw, pitch, roll in degrees of each frame (signs as in SCORES).

    Weak perspective: the scaled rotation that takes the rigid points of a generic head to the landmarks, by least
    squares, its two rows made orthonormal.
    """
    index = list(_RIGID)
    model = np.array([_RIGID[i] for i in index])
    model = model - model.mean(axis=0)
    points = landmarks[:, index].astype(float)
    points = points - points.mean(axis=1, keepdims=True)
    rows = np.einsum("tpc,xp->tcx", points, np.linalg.pinv(model))  # (T, 2, 3)
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    rotation = u @ vt
    third = np.cross(rotation[:, 0], rotation[:, 1])
    forward = -np.stack([rotation[:, 0, 2], rotation[:, 1, 2], third[:, 2]], axis=1)  # where -z, the nose, points
    yaw = np.arctan2(forward[:, 0], -forward[:, 2])
    pitch = np.arctan2(-forward[:, 1], np.hypot(forward[:, 0], forward[:, 2]))
    # The tilt is the direction of the ear-to-ear axis once the turn is taken away; for moderate turns that of the eyes.
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def face_heights(landmarks: np.ndarray) -> np.ndarray:
    """(T, 68, 2) -> (T,): distance from the middle of the brows to the chin."""
    return np.linalg.norm(landmarks[:, 17:27].mean(axis=1) - landmarks[:, 8], axis=-1)


def picture_scores(frames: np.ndarray, landmarks: np.ndarray, side: int, source_fps: float) -> dict[str, float]:
    """Scores of uint8 (T, 256, 256, 3) and float (T, 68, 2); ``side`` is the crop's side in source pixels."""
    import cv2

    heights = face_heights(landmarks)
    height = float(np.median(heights))
    angles = head_angles(landmarks)
    yaw, pitch, roll = np.median(angles, axis=0)
    turn = np.abs(angles[:, :2]).max(axis=1)
    blur, luma = [], []
    for index in range(0, len(frames), 5):
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        low = np.clip(np.floor(landmarks[index].min(axis=0)), 0, CROP_SIZE - 8).astype(int)
        high = np.clip(np.ceil(landmarks[index].max(axis=0)), low + 8, CROP_SIZE).astype(int)
        face = grey[low[1] : high[1], low[0] : high[0]]
        blur.append(cv2.Laplacian(face, cv2.CV_64F).var())
        luma.append(face.mean())
    steps = np.linalg.norm(np.diff(landmarks, axis=0), axis=-1).mean(axis=1) if len(landmarks) > 1 else np.zeros(1)
    return {
        "face_size": height * side / CROP_SIZE,
        "face_share": height / CROP_SIZE,
        "yaw": float(yaw),
        "pitch": float(pitch),
        "roll": float(roll),
        "turn": float(np.median(turn)),
        "turn_peak": float(np.percentile(turn, 95)),
        "blur": float(np.median(blur)),
        "luminance": float(np.mean(luma)),
        "motion": float(steps.mean() * VIDEO_FPS / max(height, 1e-6)),
        "frozen": frozen_share(frames, source_fps),
        "text": text_share(frames, landmarks),
    }


def frozen_share(frames: np.ndarray, source_fps: float) -> float:
    """Returns the share of frames that repeat the one before, less the share that a slower source must repeat on our
    clock.
    """
    if len(frames) < 2:
        return 1.0
    small = frames[:, ::4, ::4].astype(np.int16)
    still = (np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)) < 0.15).mean()
    expected = max(0.0, 1 - source_fps / VIDEO_FPS) if source_fps else 0.0
    return float(np.clip((still - expected) / max(1 - expected, 1e-6), 0, 1))


def text_share(frames: Sequence[np.ndarray], landmarks: np.ndarray | None = None) -> float:
    """Returns the share of the picture covered by lines of lettering that stay in place; a face is left out.

    Lettering: thin strokes, bright or dark against both sides, packed in wide low blocks, in the same place in most of
    up to seven pictures. Coarse: it misses single large letters, and a fence that stands still can count.
    """
    if len(frames) == 0:
        return 0.0
    import cv2

    masks = []
    for index in np.linspace(0, len(frames) - 1, min(7, len(frames))).astype(int):
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        strokes = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        around = np.ones((7, 7), np.uint8)
        light, dark = (cv2.morphologyEx(grey, kind, around) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
        mask = ((strokes > 50) & (cv2.max(light, dark) > 40)).astype(np.uint8)
        if landmarks is not None:
            cv2.fillConvexPoly(mask, cv2.convexHull(np.round(landmarks[index]).astype(np.int32)), 0)
        masks.append(mask)
    steady = (np.mean(masks, axis=0) >= 0.6).astype(np.uint8)
    lines = cv2.morphologyEx(steady, cv2.MORPH_CLOSE, np.ones((3, 13), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines)
    area = 0
    for x, y, w, h, pixels in stats[1:count]:
        dense = steady[y : y + h, x : x + w].mean()
        line = 6 <= h <= 60 and w >= 1.8 * h and pixels >= 0.4 * w * h and dense >= 0.12
        block = 20 <= h <= len(steady) / 3 and w >= 0.8 * h and pixels >= 0.55 * w * h and dense >= 0.3
        if line or block:  # a block: several lines that touch
            area += int(w * h)
    return area / steady.size


# --- Sound ---


def sound_scores(audio: np.ndarray, speech: np.ndarray, landmarks: np.ndarray) -> dict[str, float]:
    """Scores of int16 (samples,) sound, bool (samples,) speech mask and the clip's float (T, 68, 2) landmarks."""
    sound = audio.astype(np.float64) / 32768
    power = float((sound**2).mean())
    sync, lag = lip_sync(landmarks, audio)
    return {
        "speech": float(speech.mean()),
        "snr_db": snr_db(sound, speech),
        "loudness_db": 10 * np.log10(power + 1e-9),
        "clipping": float((np.abs(audio.astype(np.int32)) >= 32700).mean()),
        "lip_sync": sync,
        "lip_sync_lag": float(lag),
    }


def snr_db(sound: np.ndarray, speech: np.ndarray) -> float:
    """Level of speech over that of the pauses, from 20 ms frames.

    Without pauses, over the quietest twentieth of frames.
    """
    hop = AUDIO_RATE // 50
    count = len(sound) // hop
    if count == 0:
        return 0.0
    power = (sound[: count * hop].reshape(count, hop) ** 2).mean(axis=1) + 1e-9
    share = speech[: count * hop].reshape(count, hop).mean(axis=1)
    voiced, pauses = power[share > 0.9], power[share < 0.1]
    if len(voiced) == 0:
        return 0.0
    noise = pauses.mean() if len(pauses) >= 10 else np.percentile(power, 5)
    return float(np.clip(10 * np.log10(max(voiced.mean() - noise, 1e-9) / noise), -20, 60))


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """(T, 68, 2) -> (T,): gap between the inner lips plus the distance from nose to chin, in face heights."""
    gap = np.linalg.norm(landmarks[:, [61, 62, 63]] - landmarks[:, [67, 66, 65]], axis=-1).mean(axis=1)
    jaw = np.linalg.norm(landmarks[:, 33] - landmarks[:, 8], axis=-1)
    return (gap + jaw) / max(float(np.median(face_heights(landmarks))), 1e-6)


def voice_level(audio: np.ndarray, frames: int) -> np.ndarray:
    """int16 16 kHz sound -> float (frames,): level from 200 to 3,000 Hz at each frame, dB, floor 40 below the peak."""
    from scipy.signal import butter, sosfiltfilt

    band = sosfiltfilt(butter(4, [200, 3000], "band", fs=AUDIO_RATE, output="sos"), audio.astype(np.float64) / 32768)
    edges = np.minimum(np.round(np.arange(frames + 1) * AUDIO_RATE / VIDEO_FPS).astype(int), len(audio))
    total = np.concatenate([[0.0], np.cumsum(band**2)])
    begin, end = np.maximum(edges[:-1] - 160, 0), np.minimum(edges[1:] + 160, len(audio))
    level = 10 * np.log10((total[end] - total[begin]) / np.maximum(end - begin, 1) + 1e-9)
    return np.maximum(level, level.max() - 40)


def lip_sync(landmarks: np.ndarray, audio: np.ndarray, reach: int = 4) -> tuple[float, int]:
    """Returns (correlation, shift in frames): how well the mouth follows the voice's level, at the best shift.

    Cheap and coarse. Over short clips with dlib's landmarks it tells a clip's own sound from another clip's only about
    two times in three, so by default nothing is rejected by it.
    """
    if len(landmarks) < VIDEO_FPS or len(audio) < AUDIO_RATE:
        return 0.0, 0
    mouth, level = _changes(mouth_opening(landmarks)), _changes(voice_level(audio, len(landmarks)))
    best = (0.0, 0)
    for shift in range(-reach, reach + 1):
        a = mouth[max(0, -shift) : len(mouth) - max(0, shift)]
        b = level[max(0, shift) : len(level) - max(0, -shift)]
        if a.std() < 1e-6 or b.std() < 1e-6:
            continue
        value = float(np.corrcoef(a, b)[0, 1])
        if value > best[0]:
            best = (value, shift)
    return best


def _changes(signal: np.ndarray) -> np.ndarray:
    """What changes at the rate of syllables: smoothed over a sixth of a second, less the mean of the second around."""

    def smooth(values: np.ndarray, width: int) -> np.ndarray:
        kernel = np.hanning(width + 2)[1:-1]
        return np.convolve(np.pad(values, width // 2, mode="edge"), kernel / kernel.sum(), mode="valid")

    fine = smooth(signal, 5)
    return fine - smooth(fine, 31)
