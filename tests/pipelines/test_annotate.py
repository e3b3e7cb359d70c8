"""The annotation job on a tiny dataset of rendered heads: rows aligned, errors kept, nothing made twice, same bytes."""

import argparse
import json

import numpy as np
import pytest
from flax import nnx

from models.errors import InputError
from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.face.render import render_preview
from models.signals import audio_samples, speech_steps
from pipelines import annotate as job
from pipelines.annotate import annotate, chosen_backends
from pipelines.annotators import ANNOTATORS, AnnotateConfig
from pipelines.beam import RunnerOptions
from pipelines.dataset import (
    ANNOTATIONS,
    COLUMN_FIELDS,
    ROW_FIELDS,
    Dataset,
    shard_name,
    update_manifest,
    write_shard,
)
from pipelines.inspect import write_video
from pipelines.stages.description_schema import validate_description
from pipelines.stages.segment_network import NetworkConfig
from pipelines.stages.transcript import UNDECIDED
from tests.pipelines.rows import producer, row
from tests.random_params import random_params

FRAMES = 13
RUNNER = RunnerOptions("in-process", 1)


def clip_record(index: int, folder) -> dict:
    """A rendered grey head that opens its mouth, with a buzzing voice."""
    model = load_face_model()
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    expression[:, model.expression_index("jaw_x")] = np.linspace(0, 0.16, FRAMES)
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 1], pose[:, 5] = 0.1 * index, 2.0
    shape = np.zeros(model.num_shape, np.float32)
    frames = render_preview(model, shape, expression, pose, default_camera())
    points = project(deform(model.landmark_model(), shape, expression), pose, default_camera())
    time = np.arange(audio_samples(FRAMES)) / 16_000
    audio = np.round(3000 * sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 6))).astype(np.int16)
    path = folder / f"clip{index}.mp4"
    write_video(str(path), frames, audio)
    return {
        **row(f"clip{index}", source=index, frames=FRAMES),
        "source": f"{index}.mp4",
        "num_frames": FRAMES,
        "source_size": np.array([256, 256], np.int32),
        "video": path.read_bytes(),
        "audio": audio,
        "landmarks": points.astype(np.float32),
        "landmark_backend": "truth",
        "scores": "{}",
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("videos")
    good = [clip_record(index, folder) for index in range(2)]
    # One whose video is not what the record says, and one that came without an annotation's input.
    torn = {**good[1], "clip_id": "torn", "num_frames": 17}
    return [good[0], torn, good[1], row("lost", error="landmarks: ValueError: no face", source=9)]


def make_dataset(root, records) -> str:
    shards = [write_shard(root, shard_name("clips", k, 2), records[2 * k : 2 * k + 2]) for k in range(2)]
    update_manifest(root, {"clips": (shards, producer("clips"))})
    return str(root)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory, records):
    root = make_dataset(tmp_path_factory.mktemp("dataset"), records)
    return root, annotate(AnnotateConfig(root), RUNNER)


def test_every_column_is_aligned_and_complete(annotated, records):
    root, summary = annotated
    dataset = Dataset(root)
    assert set(dataset.columns()) == {"clips", *ANNOTATIONS} and summary["clips"] == 4
    for name in ANNOTATIONS:
        column = dataset.column(name)
        assert [row["clip_id"] for row in column] == [record["clip_id"] for record in records]
        assert len(dataset.shards(name)) == 2
        for k in (0, 2):
            assert column[k]["error"] == "" and {*ROW_FIELDS, *COLUMN_FIELDS[name]} == set(column[k])
    row = {name: dataset.column(name)[0] for name in ANNOTATIONS}
    assert row["semantics"]["labels"].shape == (FRAMES, 256, 256) and row["semantics"]["labels"].dtype == np.uint8
    assert row["pose"]["pose"].shape == (FRAMES, 6) and row["pose"]["pose"].dtype == np.float32
    assert row["expression"]["expression"].shape[0] == FRAMES and row["shape"]["camera"].shape == (3,)
    assert row["speech"]["audio"].shape == (audio_samples(FRAMES),) and row["speech"]["audio"].dtype == np.int16
    assert len(row["speech"]["activity"]) == len(row["speech"]["pitch_hz"]) == speech_steps(FRAMES)
    assert row["image"]["image"].shape == (256, 256, 3) and row["image"]["frame"] == 0
    validate_description(row["description"]["description"])
    assert isinstance(json.loads(row["script"]["words"]), list) and row["script"]["language"] == UNDECIDED


def test_fits_are_those_of_the_clip_in_the_row(annotated):
    dataset = Dataset(annotated[0])
    yaw = [dataset.column("pose")[row]["pose"][:, 1].mean() for row in (0, 2)]
    assert abs(yaw[0]) < 0.03 and abs(yaw[1] - 0.1) < 0.03


def test_a_failure_keeps_its_row_and_says_why(annotated):
    root, summary = annotated
    dataset = Dataset(root)
    torn = {name: dataset.column(name)[1]["error"] for name in ANNOTATIONS}
    # The voice reads sound: only what looks at pixels fails, and what builds on that.
    assert torn["speech"] == ""
    assert torn["shape"].startswith("shape: InputError: torn: field video: expected frames of shape (17")
    assert torn["semantics"].startswith("semantics: InputError: torn")
    assert torn["image"].startswith("image: InputError")
    assert "needs expression" in torn["description"]
    lost = [dataset.column(name)[3]["error"] for name in ANNOTATIONS]
    assert all("no face" in text for text in lost)
    columns = summary["columns"]
    assert columns["speech"]["errors"] == 1
    assert columns["shape"]["errors"] == columns["semantics"]["errors"] == columns["description"]["errors"] == 2
    assert columns["semantics"]["clips"] == 4 and summary["backends"]["semantics"] == "network"
    assert dataset.good_rows("clips", *ANNOTATIONS) == [0, 2]


def test_semantics_by_network_say_which_weights_made_them(records, tmp_path, capsys):
    from models.segmenter import CompactConfig, UNetConfig, build, save_segmenter

    thin = UNetConfig((8, 8), (1, 1), (1,), patch=8, unfold=4)
    shape = CompactConfig(whole=thin, details=UNetConfig((8, 8), (1, 1), (1,), patch=4, unfold=4))
    sums = []
    for seed in range(2):
        params = random_params(lambda key: nnx.to_pure_dict(nnx.split(build(shape, nnx.Rngs(key)))[1]), seed=seed)
        sums.append(save_segmenter(tmp_path / f"net{seed}", shape, params))
    root = make_dataset(tmp_path / "data", records)

    def run(seed):
        backends = (("semantics", "network"),)
        config = AnnotateConfig(
            root,
            ("pose", "semantics"),
            backends,
            segmenter=str(tmp_path / f"net{seed}"),
            network=NetworkConfig(batch=4),
        )
        return annotate(config, RUNNER)

    summary = run(0)
    assert summary["backends"]["semantics"] == "network" and summary["columns"]["semantics"]["frames_per_second"] > 0
    assert "semantics by network" in capsys.readouterr().out
    row = Dataset(root).column("semantics")[0]
    assert row["backend"] == "network" and row["labels"].shape == (FRAMES, 256, 256) and 0 <= row["flicker"] <= 1
    assert Dataset(root).manifest()["columns"]["semantics"]["producer"]["weights"] == f"segmenter {sums[0]}"
    run(1)  # other weights, other labels: made again
    assert Dataset(root).manifest()["columns"]["semantics"]["producer"]["weights"] == f"segmenter {sums[1]}"
    with pytest.raises(InputError, match="expected a segmenter"):
        annotate(AnnotateConfig(root, ("semantics",), (("semantics", "network"),), segmenter=str(tmp_path)), RUNNER)


def read_bytes(root: str) -> dict:
    dataset = Dataset(root)
    return {name: [open(path, "rb").read() for path in dataset.shards(name)] for name in ANNOTATIONS}


def test_done_work_is_not_done_again(annotated, monkeypatch):
    root, _ = annotated
    before = read_bytes(root)

    def fail(*_):
        raise AssertionError("an annotator ran again")

    monkeypatch.setattr(job, "make_shard", fail)
    annotate(AnnotateConfig(root), RUNNER)
    assert read_bytes(root) == before


def test_same_clips_give_the_same_bytes_and_columns_can_be_made_one_by_one(annotated, records, tmp_path):
    root = make_dataset(tmp_path / "again", records)
    with pytest.raises(InputError, match="builds on shape"):
        annotate(AnnotateConfig(root, ("semantics",), (("semantics", "geometry"),)), RUNNER)
    annotate(AnnotateConfig(root, ("pose",)), RUNNER)
    assert set(Dataset(root).columns()) == {"clips", "shape", "expression", "pose"}
    annotate(AnnotateConfig(root, ("semantics", "speech", "image")), RUNNER)
    ours, theirs = Dataset(root), Dataset(annotated[0])
    for name in ("shape", "expression", "pose", "semantics", "speech", "image"):
        for path, other in zip(ours.shards(name), theirs.shards(name), strict=True):
            assert open(path, "rb").read() == open(other, "rb").read()
        same = [dataset.manifest()["columns"][name]["producer"]["made_by"] for dataset in (ours, theirs)]
        assert same[0] == same[1]


def test_requirements_come_first():
    made = set()
    for annotator in ANNOTATORS:
        assert all(set(backend.requires) <= made for backend in annotator.backends)
        made |= set(annotator.columns)
    assert made == set(ANNOTATIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "shape,dance"], "dance"),
        (["--backend", "speech=guess"], "silero, energy"),
        (["--backend", "dance=x"], "no such column"),
    ],
)
def test_wrong_arguments_are_named(annotated, arguments, message):
    parser = argparse.ArgumentParser()
    job.register(parser)
    with pytest.raises(InputError, match=message):
        job.run(parser.parse_args(["--dataset", annotated[0], *arguments]))


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="manifest"):
        annotate(AnnotateConfig(str(tmp_path / "nothing")), RUNNER)


def test_backends_default_to_the_first():
    assert chosen_backends(()) == {annotator.name: annotator.backends[0].name for annotator in ANNOTATORS}
    # A step makes several columns: naming any of them chooses for the step.
    assert chosen_backends([("pose", "landmark-gauss-newton")])["shape"] == "landmark-gauss-newton"
