import pyarrow as pa
import pytest

from pipelines.reporting.bias import NOT_THERE, bias_shares, never_said
from tests.pipelines.reporting.tables import segment


def shares(rows):
    return {item.title: item for item in bias_shares(pa.Table.from_pylist(rows))}


def test_shares_are_of_kept_hours_and_name_who_said_so():
    said = {"gender": "female", "age_group": "unknown", "captioner": "pixels", "language": "en"}
    rows = [
        segment("a", yaw=0.0, script_backend="whisper", **said),
        segment("b", yaw=-40.0, frames=54_000, **{**said, "gender": "unknown", "language": "und"}),
        segment("c", yaw=20.0, frames=54_000),
        segment("d", kept=False, **{**said, "gender": "male"}),
    ]
    found = shares(rows)
    gender = found["Gender presentation"]
    assert gender.made_by == "pixels" and gender.total == pytest.approx(2)
    # Every word of the field is there, in its order; what is not known comes last.
    assert gender.rows == [
        ("female", pytest.approx(1)),
        ("male", 0.0),
        ("unknown", pytest.approx(0.5)),
        (NOT_THERE, pytest.approx(0.5)),
    ]
    assert found["Language"].made_by == "whisper" and dict(found["Language"].rows)["unknown"] == pytest.approx(0.5)
    turned = dict(found["Head turned (yaw)"].rows)
    assert turned["left 30-60°"] == turned["right 10-30°"] == pytest.approx(0.5)
    assert turned["frontal, within 10°"] == pytest.approx(1)


def test_fields_that_a_captioner_never_names():
    rows = [segment(name, gender="unknown", skin_tone="light", age_group="unknown", captioner="p") for name in "ab"]
    rows[1]["age_group"] = "adult"
    assert never_said(bias_shares(pa.Table.from_pylist(rows))) == ["Gender presentation"]


def test_without_annotations_and_without_clips():
    assert shares([segment("a")])["Age group"].rows == [(NOT_THERE, pytest.approx(1))]
    assert shares([segment("a", kept=False)])["Age group"].total == 0
