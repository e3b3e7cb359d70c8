import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from models.errors import InputError
from pipelines.reporting import decisions
from pipelines.stages.filters import SCORES, FilterThresholds, decide, parse_conditions
from tests.pipelines.reporting.tables import make_tables, reject, segment

LIMITS = FilterThresholds()


def test_decides_all_rows_as_the_filters_decide_one():
    rng = np.random.default_rng(3)
    limits = dataclasses.replace(LIMITS, max_yaw=20.0, min_snr_db=10.0, max_sync_offset=2.0)
    wide = {name: rng.normal(0, 1, 400) * rng.choice([0.5, 5, 50, 200]) for name in SCORES}
    rows = [{name: round(float(values[k]), 4) for name, values in wide.items()} for k in range(400)]
    for row in rows:
        row[rng.choice(list(SCORES))] = None
    table = pa.table({name: pa.array([row[name] for row in rows], pa.float32()) for name in SCORES})
    expected = [",".join(dict.fromkeys(reason for reason, _ in decide(row, limits))) for row in rows]
    assert decisions.reasons(table, decisions.rules(limits)) == expected
    assert len(set(expected)) > 20


def test_a_score_on_the_limit_passes_although_it_is_stored_as_float32():
    table = pa.table({"face_share": pa.array([0.12, 0.1199], pa.float32())})
    missed = decisions.misses(table, decisions.rules(LIMITS)).any(axis=0)
    assert missed.tolist() == [False, True]


def test_marginal_loss_counts_what_only_this_filter_takes():
    rows = [
        segment("k"),
        segment("b", kept=False, blur=1.0),
        segment("d", kept=False, blur=1.0, luminance=5.0),
        segment("s", kept=False, face_size=20.0, face_share=0.01),  # two limits of one reason
    ]
    rejects = [reject(row["clip_id"], "filters", "blurred") for row in rows[1:]]
    rows.append(segment("landmarks", kept=False, blur=1.0))
    rejects.append(reject("landmarks", "landmarks", "landmarks_lost"))
    alone = decisions.marginal_hours(make_tables(rows, rejects).segments, decisions.rules(LIMITS))
    assert alone["blurred"] == pytest.approx(1) and alone["too_dark"] == 0
    assert alone["face_too_small"] == pytest.approx(1)


def test_what_if_tighter_looser_and_unmeasured():
    rows = [
        segment("large"),
        segment("middle", face_size=90.0),
        segment("none", face_size=None),
        segment("small", kept=False, face_size=40.0),
        segment("small and dark", kept=False, face_size=40.0, luminance=1.0),
        segment("small, failed later", kept=False, face_size=40.0, blur=None),
        segment("failed", kept=False, face_size=200.0),
    ]
    rejects = [reject(row["clip_id"], "filters", "face_too_small") for row in rows[3:6]]
    rows.append(segment("small, landmarks lost", kept=False, face_size=40.0))
    rejects.append(reject("small, landmarks lost", "landmarks", "landmarks_lost"))
    table = make_tables(rows, [*rejects, reject("failed", "crop", "ValueError", "failed")]).segments
    tight = decisions.recount(table, LIMITS, LIMITS, parse_conditions(["face_size>=96"]))
    assert tight["before"]["clips"] == 3 and tight["before"]["hours"] == pytest.approx(3)
    assert tight["after"]["clips"] == 1 and tight["lost"]["clips"] == 1 and tight["not_measured"]["clips"] == 1
    assert tight["gained"]["clips"] == tight["unknown"]["clips"] == 0
    assert tight["conditions"] == [
        {"condition": "face_size>=96", "lost_clips": 1, "lost_hours": pytest.approx(1), "not_measured": 1}
    ]
    loose = decisions.recount(table, LIMITS, LIMITS, parse_conditions(["face_size>=30"]))
    assert loose["lost"]["clips"] == 0 and loose["gained"]["clips"] == 1 and loose["unknown"]["clips"] == 1
    text = decisions.recount_text(loose)
    assert "needs curate again: their video is not stored" in text and "lack the score" in text


def test_what_if_combines_conditions_and_thresholds():
    rows = [
        segment("a", blur=50.0),
        segment("b", face_size=60.0),
        segment("c"),
        segment("d", blur=50.0, face_size=60.0),
    ]
    table = make_tables(rows).segments
    changed = decisions.changed_thresholds(LIMITS, ["min_blur=100"])
    counts = decisions.recount(table, LIMITS, changed, parse_conditions(["face_size>=96"]))
    assert counts["after"]["clips"] == 1
    assert {row["condition"]: row["lost_clips"] for row in counts["conditions"]} == {"blur>=100": 2, "face_size>=96": 2}


def test_thresholds_come_from_the_manifest_and_only_those_of_scores_change():
    stored = dataclasses.asdict(dataclasses.replace(LIMITS, min_face_size=64.0, min_blur=None))
    manifest = {"columns": {"clips": {"producer": {"thresholds": stored}}}}
    base = decisions.run_thresholds(manifest)
    assert base.min_face_size == 64 and base.min_blur is None
    assert decisions.changed_thresholds(base, ["max_turn=30"]).max_turn == 30
    with pytest.raises(InputError, match="min_source_speech_seconds.*needs curate again"):
        decisions.changed_thresholds(base, ["min_source_speech_seconds=3"])
    with pytest.raises(InputError, match="min_face_siz=3"):
        decisions.changed_thresholds(base, ["min_face_siz=3"])
    assert not math.isnan(base.max_seconds)
