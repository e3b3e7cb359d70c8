"""What is known of a clip as figures, and which figures it must meet. Every figure is stored whether or not it rejects.

A score is None (null in the tables) where it could not be measured: a segment too short to be cut has no picture of its
own, a clip that nobody transcribed has no rate of speech. What is not measured rejects nothing, and meets no condition.

Where a threshold was published it is used (TalkVid's face count and turn limits, in spirit); the others were set on
real clips so that only clearly broken material falls. None as a threshold: the filter is off.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InputError

# Score -> what it is. The order is that of the columns of the quality table.
SCORES: dict[str, str] = {
    # The segment and its shot.
    "seconds": "length",
    "shot_cut": "highest change between neighbouring frames, in units of the shot detector's limits (from 1: a cut)",
    # Faces, on the searched frames (five a second).
    "face_count": "mean number of faces at once, small ones and passing ones left out",
    "face_count_peak": "most of these faces at once",
    "single_face": "share of the searched frames, within 30 s in the shot, that show no second face that matters",
    "face_present": "share of the searched frames in which the followed face was found",
    "face_score": "median score of the frontal face detector there (about 0 for a profile, over 0.5 for a clear face)",
    "face_size": "median height of the face from the brows to the chin, source pixels",
    "face_share": "that height as a share of the crop's side",
    # The head box: what the fitted head covers, hair left out.
    "head_inside": "share of the head box's area that lies inside the source picture, mean over the searched frames",
    "landmarks_inside": "share of the 68 landmarks of all frames that lie inside the source picture",
    "head_margin": "least distance of the head box from an edge of what the crop shows, heights of the head box"
    " (negative: cut off)",
    "head_margin_top": "the same from the upper edge only: room for the hair",
    # The head's angle and its speed.
    "yaw": "median turn to the side, degrees (positive: toward the picture's right)",
    "pitch": "median nod, degrees (positive: up)",
    "roll": "median tilt, degrees (positive: clockwise in the picture)",
    "turn": "median over frames of the larger of |yaw| and |pitch|, degrees",
    "turn_peak": "95th percentile over frames of the larger of |yaw| and |pitch|, degrees",
    "head_speed": "median speed at which the head turns, over a fifth of a second, degrees per second",
    "head_speed_peak": "95th percentile of that speed, degrees per second",
    # The picture.
    "blur": "median variance of the Laplacian of the face's luma in the crop; low is blurred",
    "blur_effect": "how little a further blur changes the face at a fixed size, 0 (sharp) to 1 (blurred)",
    "luminance": "mean luma of the face, 0-255",
    "motion": "mean landmark movement, face heights per second",
    "frozen": "share of frames that repeat the frame before, beyond what the source's frame rate explains",
    "pad": "share of the crop that lies outside the source picture",
    "compression_quality": "1 / (1 + b), b the excess of the luma's steps across macroblock edges over its mean step,"
    " in key frames of the source (near 1: no blocks; under 0.6: blocks that are seen)",
    "bits_per_pixel": "bits of the source's video stream for each of its pixels",
    "text": "share of the crop beside the face that looks like lines of lettering which do not move",
    "source_text": "the same of the whole source picture around the clip (short side 480 pixels)",
    # The sound, and what it has to do with the picture.
    "speech": "share of the sound that is speech",
    "snr_db": "level of speech over the level of what is not speech, dB, within -20 to 60",
    "loudness_db": "root mean square level, dB below full scale",
    "clipping": "share of samples at full scale",
    "lip_sync": "highest correlation of the mouth's movement with the voice's level over small shifts, -1 to 1",
    "lip_sync_lag": "that shift, frames (positive: the sound is late)",
    "sync_confidence": "SyncNet's confidence that mouth and voice belong together (only where its weights are given)",
    "sync_offset": "SyncNet's offset, frames (positive: the sound is late)",
}

# Scores that `archon annotate` measures: stored with its columns, joined to the others by the report.
ANNOTATION_SCORES: dict[str, str] = {
    "language_confidence": "how sure the transcriber is of the spoken language, 0 to 1",
    "transcript_confidence": "mean confidence of the transcript's words, 0 to 1",
    "speech_rate": "words per second of speech",
}

# What is known of a clip as text: string columns of the quality table.
LABELS: dict[str, str] = {
    "picture_hash": "perceptual hash of the clip's pictures, hexadecimal",
    "sound_hash": "fingerprint of the clip's sound, hexadecimal",
}
ANNOTATION_LABELS: dict[str, str] = {"language": "the spoken language, ISO 639-1"}


@dataclass(frozen=True)
class FilterThresholds:
    """A clip is kept if it meets all of these. Units as in SCORES and ANNOTATION_SCORES; None: no limit.

    ``min_X`` and ``max_X`` bound the score X; a limit of an angle or an offset (SIGNED) bounds its size. Three act
    elsewhere: ``max_seconds`` also cuts segments, ``min_source_speech_seconds`` is of a whole source, and
    ``second_face_size`` says how large, against the followed face, another one must be to count.
    """

    min_seconds: float | None = 2.0
    max_seconds: float = 10.0
    min_source_speech_seconds: float = 0.5
    max_shot_cut: float | None = 1.0
    max_face_count: float | None = None
    max_face_count_peak: float | None = None
    min_face_size: float | None = 48.0
    min_face_share: float | None = 0.12
    min_face_present: float | None = 0.6
    min_face_score: float | None = 0.1
    min_single_face: float | None = 0.9
    second_face_size: float = 0.5
    min_head_inside: float | None = None
    min_landmarks_inside: float | None = None
    min_head_margin: float | None = None
    min_head_margin_top: float | None = None
    max_yaw: float | None = None
    max_pitch: float | None = None
    max_roll: float | None = 45.0
    max_turn: float | None = 60.0
    max_turn_peak: float | None = None
    max_head_speed: float | None = None
    max_head_speed_peak: float | None = None
    min_blur: float | None = 8.0
    max_blur_effect: float | None = None
    min_luminance: float | None = 20.0
    max_luminance: float | None = 245.0
    min_motion: float | None = None
    max_motion: float | None = 6.0
    max_frozen: float | None = 0.8
    max_pad: float | None = 0.3
    min_compression_quality: float | None = None
    min_bits_per_pixel: float | None = None
    max_text: float | None = None
    max_source_text: float | None = None
    min_speech: float | None = 0.3
    min_snr_db: float | None = None
    min_loudness_db: float | None = None
    max_clipping: float | None = 0.05
    min_lip_sync: float | None = None
    max_lip_sync_lag: float | None = None
    min_sync_confidence: float | None = None
    max_sync_offset: float | None = None
    min_language_confidence: float | None = None
    min_transcript_confidence: float | None = None
    min_speech_rate: float | None = None
    max_speech_rate: float | None = None


# Scores with a direction: a limit bounds their size.
SIGNED = ("yaw", "pitch", "roll", "lip_sync_lag", "sync_offset")

# Threshold -> the reason that a clip which misses it is given, the weightiest first.
REASONS: dict[str, str] = {
    "min_seconds": "too_short",
    "max_seconds": "too_long",
    "max_shot_cut": "cut_inside",
    "min_face_present": "face_lost",
    "min_face_score": "no_frontal_face",
    "min_single_face": "several_faces",
    "max_face_count": "several_faces",
    "max_face_count_peak": "several_faces",
    "min_face_size": "face_too_small",
    "min_face_share": "face_too_small",
    "min_head_inside": "head_cut_off",
    "min_landmarks_inside": "head_cut_off",
    "min_head_margin": "head_cut_off",
    "min_head_margin_top": "head_cut_off",
    "max_turn": "no_frontal_face",
    "max_turn_peak": "head_turned",
    "max_yaw": "head_turned",
    "max_pitch": "head_turned",
    "max_roll": "head_tilted",
    "max_head_speed": "head_turns_fast",
    "max_head_speed_peak": "head_turns_fast",
    "min_speech": "little_speech",
    "min_blur": "blurred",
    "max_blur_effect": "blurred",
    "min_luminance": "too_dark",
    "max_luminance": "too_bright",
    "min_motion": "still_picture",
    "max_motion": "moves_too_much",
    "max_frozen": "still_picture",
    "max_pad": "out_of_frame",
    "min_compression_quality": "compressed",
    "min_bits_per_pixel": "compressed",
    "max_text": "text_on_screen",
    "max_source_text": "text_on_screen",
    "min_snr_db": "noisy",
    "min_loudness_db": "too_quiet",
    "max_clipping": "clipped_sound",
    "min_lip_sync": "out_of_sync",
    "max_lip_sync_lag": "out_of_sync",
    "min_sync_confidence": "out_of_sync",
    "max_sync_offset": "out_of_sync",
    "min_language_confidence": "unsure_language",
    "min_transcript_confidence": "unsure_transcript",
    "min_speech_rate": "speech_too_slow",
    "max_speech_rate": "speech_too_fast",
}

# Flag -> (score, "below" or "above", limit): what a user of a kept clip may want to know.
FLAGS = {
    "noisy_or_music": ("snr_db", "below", 5.0),
    "on_screen_text": ("source_text", "above", 0.004),
    "second_face": ("face_count_peak", "above", 1.0),
    "turned_head": ("turn", "above", 25.0),
    "head_cut_off": ("head_margin", "below", 0.0),
    "blocky": ("compression_quality", "below", 0.6),
    "padded": ("pad", "above", 0.02),
    "still_moments": ("frozen", "above", 0.2),
}

Scores = Mapping[str, float | None]


def measured(scores: Scores, name: str) -> float | None:
    """Returns a score as a number, or None where it was not measured (absent, None or NaN)."""
    value = scores.get(name)
    return None if value is None or math.isnan(value) else float(value)


def flags(scores: Scores) -> list[str]:
    """Returns the names of FLAGS that the scores raise. A flag rejects nothing."""
    raised = []
    for name, (score, side, limit) in FLAGS.items():
        value = measured(scores, score)
        if value is not None and (value < limit if side == "below" else value > limit):
            raised.append(name)
    return raised


def decide(scores: Scores, limits: FilterThresholds) -> list[tuple[str, str]]:
    """Returns (reason, detail) for every limit that the clip misses, the weightiest first; empty if it is kept.

    A score that was not measured misses nothing.
    """
    missed = []
    for threshold, reason in REASONS.items():
        side, score = threshold.split("_", 1)
        limit, value = getattr(limits, threshold), measured(scores, score)
        if limit is None or value is None:
            continue
        if side == "min" and value < limit:
            missed.append((reason, f"{score} {value:.3g} is below {limit:g}"))
        elif side == "max" and (abs(value) if score in SIGNED else value) > limit:
            missed.append((reason, f"{score} {value:.3g} is above {limit:g}"))
    return missed


def thresholds_with(changes: Sequence[str], start: FilterThresholds | None = None) -> FilterThresholds:
    """Builds thresholds from NAME=VALUE texts; VALUE is a number, or ``off`` for a filter that shall not act.

    Raises:
        InputError: an unknown name, or a value that is neither.
    """
    start = start or FilterThresholds()
    values = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in FilterThresholds.__dataclass_fields__:
            known = ", ".join(sorted(FilterThresholds.__dataclass_fields__))
            raise InputError(f"--threshold {change}: expected NAME=VALUE with NAME one of {known}")
        if value == "off" and name in REASONS and name != "max_seconds":
            values[name] = None
            continue
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = math.nan
        if math.isnan(values[name]):
            raise InputError(f"--threshold {change}: expected a number after =, or off for a filter of a score")
    return dataclasses.replace(start, **values)


# Thresholds that shape what is measured (which segments there are, whose face counts): with others of these a source is
# decoded again. All the others only decide, and stored scores are enough to decide anew.
SHAPING = ("min_seconds", "max_seconds", "min_source_speech_seconds", "second_face_size")


def stored_score(value: float) -> float:
    """A score as the tables keep it (float32), to four decimals: reading it back and rounding gives the same number."""
    return round(float(np.float32(round(float(value), 4))), 4)


# --- Conditions on scores: what if the limits were others ---

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Condition:
    """``score`` ``sign`` ``limit``, for instance face_size >= 96. ``str`` gives it back as it is written."""

    score: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.score}{self.sign}{self.limit:g}"

    def met(self, scores: Scores) -> bool | None:
        """Returns whether a clip's scores meet the condition; None if the score was not measured."""
        value = measured(scores, self.score)
        return None if value is None else bool(_OPERATORS[self.sign](value, self.limit))


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Reads conditions such as ``face_size>=96`` or ``turn <= 25``; a text may hold several, split by commas.

    Raises:
        InputError: no such score, no such sign, or no number.
    """
    known = [*SCORES, *ANNOTATION_SCORES]
    found = []
    for text in (piece.strip() for given in texts for piece in given.split(",")):
        match = re.fullmatch(r"(\w+)\s*(>=|<=|>|<)\s*(\S+)", text)
        if match is None:
            raise InputError(f"condition {text!r}: expected SCORE>=NUMBER (or <=, >, <), for instance face_size>=96")
        score, sign, number = match.groups()
        if score not in known:
            raise InputError(f"condition {text!r}: no score {score!r}; expected one of {', '.join(known)}")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if math.isnan(limit):
            raise InputError(f"condition {text!r}: expected a number after {sign}, got {number!r}")
        found.append(Condition(score, sign, limit))
    return found


def meets(scores: Scores, conditions: Sequence[Condition]) -> bool:
    """Returns whether a clip meets every condition. One on a score that was not measured is not met."""
    return all(condition.met(scores) for condition in conditions)


def unmeasured(scores: Scores, conditions: Sequence[Condition]) -> list[str]:
    """Returns the scores of the conditions that nothing is known of for this clip: those who count clips count these
    apart, since such a clip does not meet the conditions and does not miss them either.
    """
    return [condition.score for condition in conditions if condition.met(scores) is None]
