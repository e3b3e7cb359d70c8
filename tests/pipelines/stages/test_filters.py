import dataclasses
import math

import pytest

from models.errors import InputError
from pipelines.stages import filters
from pipelines.stages.filters import ANNOTATION_SCORES, REASONS, SCORES, FilterThresholds

GOOD = dict.fromkeys([*SCORES, *ANNOTATION_SCORES], 0.0) | {
    "seconds": 5,
    "face_size": 120,
    "face_share": 0.4,
    "face_present": 1,
    "face_score": 1.5,
    "single_face": 1,
    "blur": 200,
    "compression_quality": 0.9,
    "luminance": 120,
    "speech": 0.8,
    "snr_db": 20,
    "lip_sync": 0.3,
}


def test_a_good_clip_is_kept():
    assert filters.decide(GOOD, FilterThresholds()) == []


@pytest.mark.parametrize(
    ("score", "value", "reason"),
    [
        ("seconds", 1.9, "too_short"),
        ("shot_cut", 1.5, "cut_inside"),
        ("face_present", 0.3, "face_lost"),
        ("face_score", -0.2, "no_frontal_face"),
        ("single_face", 0.5, "several_faces"),
        ("face_size", 20, "face_too_small"),
        ("turn", 75, "no_frontal_face"),
        ("roll", -60, "head_tilted"),
        ("blur", 2, "blurred"),
        ("luminance", 5, "too_dark"),
        ("luminance", 250, "too_bright"),
        ("frozen", 1.0, "still_picture"),
        ("pad", 0.5, "out_of_frame"),
        ("speech", 0.1, "little_speech"),
        ("clipping", 0.3, "clipped_sound"),
    ],
)
def test_each_limit_has_its_reason(score, value, reason):
    missed = filters.decide(GOOD | {score: value}, FilterThresholds())
    assert [name for name, _ in missed] == [reason] and f"{value:.3g}".lstrip("-") in missed[0][1]


@pytest.mark.parametrize("threshold", REASONS)
def test_every_threshold_is_used(threshold):
    """An impossible limit rejects a good clip, with its reason; without the score, or switched off, nothing does."""
    side, score = threshold.split("_", 1)
    impossible = FilterThresholds(**{threshold: 1e9 if side == "min" else -1e9})
    missed = filters.decide(GOOD, impossible)
    assert [reason for reason, _ in missed] == [REASONS[threshold]] and score in missed[0][1]
    for nothing in (None, math.nan):
        assert filters.decide(GOOD | {score: nothing}, impossible) == []
    assert filters.decide({name: value for name, value in GOOD.items() if name != score}, impossible) == []
    assert filters.decide(GOOD, dataclasses.replace(impossible, **{threshold: None})) == []


def test_every_score_has_a_threshold():
    """Whatever is measured can be filtered by; and every threshold is of a score, but for two that act elsewhere."""
    limited = {threshold.split("_", 1)[1] for threshold in REASONS}
    assert limited == {*SCORES, *ANNOTATION_SCORES}
    elsewhere = {"min_source_speech_seconds", "second_face_size"}
    assert {*REASONS, *elsewhere} == set(FilterThresholds.__dataclass_fields__)


def test_a_limit_of_an_angle_bounds_its_size():
    limits = FilterThresholds(max_yaw=20, max_sync_offset=3)
    assert [reason for reason, _ in filters.decide(GOOD | {"yaw": -30}, limits)] == ["head_turned"]
    assert [reason for reason, _ in filters.decide(GOOD | {"sync_offset": -5}, limits)] == ["out_of_sync"]
    assert filters.decide(GOOD | {"yaw": -10, "sync_offset": 2}, limits) == []


def test_flags_tell_without_rejecting():
    assert filters.flags(GOOD) == []
    assert filters.flags(GOOD | {"snr_db": -3, "source_text": 0.02}) == ["noisy_or_music", "on_screen_text"]
    assert filters.decide(GOOD | {"snr_db": -3, "source_text": 0.02}, FilterThresholds()) == []
    assert filters.flags({"snr_db": None, "pad": 0.5}) == ["padded"]


def test_thresholds_from_texts():
    assert filters.thresholds_with(["min_face_size=128", "max_turn=30"]) == FilterThresholds(
        min_face_size=128, max_turn=30
    )
    with pytest.raises(InputError, match="NAME=VALUE"):
        filters.thresholds_with(["nonsense=1"])
    with pytest.raises(InputError, match="a number"):
        filters.thresholds_with(["max_turn=left"])
    off = filters.thresholds_with(["min_blur=off", "max_turn=30"])
    assert off.min_blur is None and off.max_turn == 30
    assert filters.thresholds_with(["max_turn=40"], off).min_blur is None
    for wrong in ("max_seconds=off", "second_face_size=off", "max_turn=nan"):
        with pytest.raises(InputError, match="a number"):
            filters.thresholds_with([wrong])


def test_conditions_are_read_and_met():
    conditions = filters.parse_conditions(["face_size>=96", "lip_sync > 0.1, turn<=25", "speech_rate < 4"])
    assert [str(condition) for condition in conditions] == [
        "face_size>=96",
        "lip_sync>0.1",
        "turn<=25",
        "speech_rate<4",
    ]
    row = {"source": "a.mp4", "face_size": 96.0, "lip_sync": 0.2, "turn": 25.0, "speech_rate": 3.9, "kept": True}
    assert filters.meets(row, conditions) and filters.unmeasured(row, conditions) == []
    for change in ({"face_size": 95.9}, {"lip_sync": 0.1}, {"turn": 25.1}, {"speech_rate": 4.0}):
        assert not filters.meets(row | change, conditions)


def test_a_condition_on_what_was_not_measured_is_not_met_and_told_apart():
    conditions = filters.parse_conditions(["face_size>=96", "speech_rate<4"])
    for row in (
        {"face_size": 100.0},
        {"face_size": 100.0, "speech_rate": None},
        {"face_size": 9, "speech_rate": math.nan},
    ):
        assert not filters.meets(row, conditions)
        assert filters.unmeasured(row, conditions) == ["speech_rate"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("face_size", "expected SCORE>=NUMBER"),
        ("face_size=96", "expected SCORE>=NUMBER"),
        ("size>=96", "no score 'size'"),
        ("face_size>=big", "expected a number after >="),
        ("face_size>=nan", "expected a number after >="),
        ("", "expected SCORE>=NUMBER"),
    ],
)
def test_other_conditions_are_refused(text, why):
    with pytest.raises(InputError, match=why):
        filters.parse_conditions([text])
