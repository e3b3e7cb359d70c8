"""What made a record: put together from what it builds on, the same text for the same making."""

import json
from dataclasses import asdict

import pytest

from models.errors import InputError
from pipelines import provenance
from pipelines.dataset import Dataset, update_manifest
from pipelines.provenance import Producer, clips_producer, from_manifest, made_by, to_text
from pipelines.stages.filters import FilterThresholds

CLIPS = Producer("dlib", "c0", "s0", "w0")
FIT = Producer("pixels", "c1", "s1")


def test_a_column_carries_all_that_it_builds_on():
    clips = made_by(["clips"], CLIPS)
    pose = made_by(["shape", "pose"], FIT, [clips])
    text = made_by(["description"], Producer("gemini", "c2", "s2"), [clips, pose])
    assert set(text) == {"clips", "shape", "pose", "description"}
    assert text["clips"] == asdict(CLIPS) and text["pose"] == text["shape"] == asdict(FIT)
    assert set(clips) == {"clips"} and set(pose) == {"clips", "shape", "pose"}


def test_a_column_made_anew_takes_the_place_of_its_own_past():
    before = made_by(["pose"], FIT)
    assert made_by(["pose"], Producer("landmarks", "c9", "s9"), [before])["pose"]["backend"] == "landmarks"


def test_the_text_does_not_depend_on_the_order():
    one = made_by(["pose"], FIT, [made_by(["clips"], CLIPS)])
    other = {"clips": asdict(CLIPS), "pose": dict(reversed(asdict(FIT).items()))}
    assert to_text(one) == to_text(other) and json.loads(to_text(one)) == one
    assert to_text(one) != to_text(made_by(["pose"], FIT, [made_by(["clips"], FIT)]))


def test_a_manifest_says_what_made_its_columns(tmp_path):
    made = made_by(["clips"], CLIPS)
    update_manifest(tmp_path, {"clips": ([], {"job": "curate", **made["clips"], "made_by": made})})
    assert from_manifest(str(tmp_path), Dataset(tmp_path).manifest(), "clips") == made


@pytest.mark.parametrize(
    "made", [None, "clips", ["clips"], {"clips": "dlib"}, {"clips": {"backend": "dlib"}}, {"clips": {"code": ""}}]
)
def test_a_manifest_that_does_not_say_it_is_named(made):
    manifest = {"columns": {"clips": {"producer": {} if made is None else {"made_by": made}}}}
    with pytest.raises(InputError, match="set/manifest.json: field columns.clips.producer.made_by"):
        from_manifest("set", manifest, "clips")


def test_clips_are_other_ones_with_other_settings_weights_or_packages(tmp_path, monkeypatch):
    weights = tmp_path / "face.task"
    weights.write_bytes(b"one")
    makes = {
        "plain": clips_producer("dlib", None, None, 1, FilterThresholds()),
        "limit": clips_producer("dlib", None, None, 1, FilterThresholds(min_face_size=99.0)),
        "version": clips_producer("dlib", None, None, 2, FilterThresholds()),
        "weights": clips_producer("dlib", str(weights), None, 1, FilterThresholds()),
    }
    weights.write_bytes(b"two")
    makes["other weights"] = clips_producer("dlib", str(weights), None, 1, FilterThresholds())
    makes["backend"] = clips_producer("face_alignment", None, None, 1, FilterThresholds())
    assert len(set(makes.values())) == len(makes)
    assert makes["plain"].config != makes["limit"].config and makes["plain"].code == makes["limit"].code
    assert makes["weights"].weights != makes["other weights"].weights
    # The packages of the backend count, beside those that all clips go through.
    assert makes["backend"].code != makes["plain"].code
    assert clips_producer("dlib", None, None, 1, FilterThresholds()) == makes["plain"]
    monkeypatch.setattr(provenance, "package_version", lambda name: "99")
    assert "silero-vad 99" in clips_producer("dlib", None, None, 1, FilterThresholds()).weights
