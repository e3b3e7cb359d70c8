import pytest

from pipelines.reporting.decisions import rules
from pipelines.reporting.funnel import BETWEEN, build_funnel, failures, rates
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.reporting.tables import make_tables, reject, segment

LIMITS = rules(FilterThresholds())
SOURCES = [
    {"source": "a.mp4", "seconds": 5 * 3600.0, "status": "kept", "stage": None, "reason": None},
    {"source": "quiet.mp4", "seconds": 1800.0, "status": "filtered", "stage": "audio", "reason": "no_audio"},
    {"source": "bad.mp4", "seconds": None, "status": "failed", "stage": "probe", "reason": "UnreadableVideo"},
    {"source": "dark.mp4", "seconds": 3600.0, "status": "filtered", "stage": "filters", "reason": "too_dark"},
]
SEGMENTS = [
    segment("kept"),
    segment("blurred", kept=False, blur=1.0),
    segment("short", kept=False),
    segment("dark", kept=False, source="dark.mp4", luminance=1.0),
]
REJECTS = [
    reject("blurred", "filters", "blurred"),
    reject("short", "segments", "too_short"),
    reject("dark", "filters", "too_dark", source="dark.mp4"),
    reject(None, "filters", "too_dark", source="dark.mp4"),
    reject(None, "audio", "no_audio", source="quiet.mp4"),
    reject(
        None, "probe", "UnreadableVideo", "failed", source="bad.mp4", traceback_hash="ab", traceback="Traceback <x>"
    ),
    reject(
        None, "probe", "UnreadableVideo", "failed", source="bad2.mp4", traceback_hash="ab", traceback="Traceback <y>"
    ),
]


def test_the_hours_close_and_go_in_the_order_of_the_pipeline():
    funnel = build_funnel(make_tables(SEGMENTS, REJECTS, SOURCES), LIMITS)
    assert funnel.hours_in == pytest.approx(6.5) and funnel.hours_kept == pytest.approx(1) and funnel.closes()
    assert [(loss.whole, loss.reason) for loss in funnel.losses] == [
        (True, "UnreadableVideo"),
        (True, "no_audio"),
        (False, BETWEEN),
        (False, "too_short"),
        (False, "blurred"),
        (False, "too_dark"),
    ]
    hours = {loss.reason: loss.hours for loss in funnel.losses}
    # Of a.mp4's five hours three are in segments.
    assert hours[BETWEEN] == pytest.approx(2) and hours["no_audio"] == pytest.approx(0.5)
    alone = {loss.reason: loss.alone for loss in funnel.losses}
    assert alone["blurred"] == pytest.approx(1) and alone["too_short"] is None and alone["no_audio"] is None


def test_a_source_is_at_least_as_long_as_its_segments():
    unknown = [{**SOURCES[0], "seconds": None}, *SOURCES[1:]]
    funnel = build_funnel(make_tables(SEGMENTS, REJECTS, unknown), LIMITS)
    assert funnel.hours_in == pytest.approx(3 + 0.5 + 1) and funnel.closes()


def test_hours_that_vanish_are_noticed():
    # No loss names the source without segments: it says that it is kept.
    lost = [*SOURCES, {**SOURCES[0], "source": "gone.mp4"}]
    assert not build_funnel(make_tables(SEGMENTS, REJECTS, lost), LIMITS).closes()


def test_failures_group_by_stage_type_and_traceback():
    found = failures(make_tables(SEGMENTS, REJECTS), {"pose": ["c1: shape: ValueError: singular: matrix"]})
    assert [(f.stage, f.type, f.traceback_hash, f.count) for f in found] == [
        ("probe", "UnreadableVideo", "ab", 2),
        ("pose: shape", "ValueError", "", 1),
    ]
    assert found[0].example == "bad.mp4" and found[0].traceback == "Traceback <x>"
    assert found[1].example == "c1" and found[1].detail == "singular: matrix"


def test_failures_of_annotations_come_from_their_table_where_there_is_one():
    row = {"column": "shape", "clip_id": "c1", "stage": "fit", "type": "LinAlgError", "message": "singular"}
    rows = [{**row, "traceback_hash": "cd", "traceback": "T"}, {**row, "clip_id": "c2", "traceback_hash": "cd"}]
    found = failures(make_tables(SEGMENTS, failures=rows), {"pose": ["c1: fit: LinAlgError: singular"]})
    assert [(f.stage, f.type, f.traceback_hash, f.count, f.example) for f in found] == [
        ("shape: fit", "LinAlgError", "cd", 2, "c1")
    ]


def test_rates_sum_the_markers_of_a_step():
    markers = [
        {"job": "curate", "step": "clips", "seconds": 2.0, "summary": {"video_seconds": 3.0}},
        {"job": "curate", "step": "clips", "seconds": 4.0, "summary": {"video_seconds": 1.5}},
        {"job": "annotate", "step": "script", "seconds": 1.0, "summary": {"frames": 30}},
    ]
    first, second = rates(markers)
    assert (first.shards, first.seconds, first.video_seconds, first.frames) == (2, 6.0, 4.5, None)
    assert (second.step, second.frames) == ("script", 30)
