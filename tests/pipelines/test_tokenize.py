import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.errors import InputError
from models.signals import latent_steps, speech_steps
from pipelines import gcs, storage
from pipelines import tokenize as job
from pipelines.beam import RunnerOptions
from pipelines.dataset import (
    ANNOTATIONS,
    ROW_FIELDS,
    Dataset,
    heldout_sources,
)
from pipelines.failures import TooManyFailures
from tests.pipelines import cloud as clouds
from tests.pipelines.painted import FRAMES, make_dataset
from tests.pipelines.rows import row, write_column

IN_PROCESS = RunnerOptions("in-process", 1)


class Coder:
    """Stands in for a trained tokenizer: codes on the right grid that depend on the signal."""

    weights_sha256 = "0" * 64

    def __init__(self, name, late=0):
        self.name, self.late = name, late

    def encode(self, signal):
        mark = int(np.abs(np.asarray(signal, np.float64)).sum()) % 500
        if self.name == "speech":
            assert signal.dtype == np.float32 and np.abs(signal).max() <= 1
            return np.full((4, -(-len(signal) // 640) + self.late), mark)
        if self.name == "semantic":
            assert signal.shape[1:] == (128, 128)
            return np.full((latent_steps(len(signal)), 8, 8), mark)
        shapes = {"image": (16, 16), "shape": (8,)}
        levels = {"expression": 8, "pose": 6}
        shape = shapes.get(self.name) or (levels[self.name], latent_steps(len(signal)))
        return np.full(shape, mark)


@pytest.fixture
def world(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path, clips=3)
    rng = np.random.default_rng(0)
    values = {
        "shape": lambda: {"shape": rng.normal(size=5).astype(np.float32)},
        "expression": lambda: {"expression": rng.normal(size=(FRAMES, 7)).astype(np.float32)},
        "pose": lambda: {
            "pose": rng.normal(size=(FRAMES, 6)).astype(np.float32),
            "reprojection_error": np.ones(FRAMES, np.float32),
        },
    }
    for column, make in values.items():
        rows = [row(f"clip{i}", column, source=i, **make()) for i in range(3)]
        write_column(dataset.root, column, rows)
    models = tmp_path / "models"
    for name in job.TOKENIZERS:
        (models / name).mkdir(parents=True)
        (models / name / "model.json").write_text(json.dumps({"weights_sha256": f"{name}-1"}))
    coders = {name: Coder(name) for name in job.TOKENIZERS}
    monkeypatch.setattr(job, "load_all", lambda directory: coders)
    return dataset, models, coders


def run(world, runner=IN_PROCESS):
    dataset, models, _ = world
    return job.tokenize(job.TokenizeConfig(dataset.root, str(models)), runner)


def test_records_are_on_the_grid_and_split_by_source(world):
    summary = run(world)
    rows = list(Dataset(world[0].root).column("tokens"))
    good = rows[0]
    assert summary["clips"] == 3 and [row["clip_id"] for row in rows] == ["clip0", "clip1", "clip2"]
    assert good["speech"].shape == (4, speech_steps(FRAMES)) and good["speech"].dtype == np.int16
    assert good["semantics"].shape == (3, 8, 8) and good["expression"].shape == (8, 3) and good["pose"].shape == (6, 3)
    assert good["image"].shape == (16, 16) and good["image"].dtype == np.int32 and good["shape"].shape == (8,)
    assert json.loads(good["description"]) == {"hair": "brown"} and "hello" in good["script"]
    held = heldout_sources(f"{i:064d}" for i in range(3))
    assert [row.get("split") for row in rows[:2]] == ["heldout" if f"{i:064d}" in held else "train" for i in range(2)]


def test_a_clip_without_a_column_keeps_its_row(world):
    summary = run(world)
    last = Dataset(world[0].root).column("tokens")[2]
    assert summary["errors"] == 1
    assert last["clip_id"] == "clip2" and "painted fault" in last["error"] and "speech" not in last


def test_every_record_says_where_it_comes_from_and_what_made_it(world):
    summary = run(world)
    dataset = Dataset(world[0].root)
    for index, record in enumerate(dataset.column("tokens")):
        assert set(ROW_FIELDS) <= set(record) and record["source_sha256"] == f"{index:064d}"
        made = json.loads(record["made_by"])
        assert set(made) == {"clips", *ANNOTATIONS, "tokens"} and "pose pose-1" in made["tokens"]["weights"]
    books = dataset.manifest()["books"]["tokenize"]
    assert books == summary["books"] and (books["items"], books["kept"]) == (3, 2)
    assert [(kind["stage"], kind["type"], kind["count"]) for kind in books["failed"]] == [("tokens", "MissingInput", 1)]


def test_retry_makes_only_what_had_failed(world):
    world[2]["speech"].late = 1
    run(world)
    assert all(record["error"] for record in Dataset(world[0].root).column("tokens"))
    failed = pq.read_table(f"{world[0].root}/failures/tokens-00000-of-00001.parquet").to_pylist()
    assert [(line["clip_id"], line["type"]) for line in failed] == [
        ("clip0", "ValueError"),
        ("clip1", "ValueError"),
        ("clip2", "MissingInput"),
    ]
    world[2]["speech"].late = 0
    run(world)  # without the flag a failure is a result
    assert all(record["error"] for record in Dataset(world[0].root).column("tokens"))
    run(world, replace(IN_PROCESS, retry_failed=True))
    assert [bool(record["error"]) for record in Dataset(world[0].root).column("tokens")] == [False, False, True]


def test_codes_off_the_grid_are_an_error_of_that_clip(world):
    world[2]["speech"].late = 1
    run(world)
    assert "speech: 9 code steps for 9 frames, expected 8" in Dataset(world[0].root).column("tokens")[0]["error"]


def test_more_failures_than_allowed_stop_the_job_and_what_is_made_is_kept(world, monkeypatch):
    """clip2 lacks a column, which is a failure of an annotator and not counted here; the two others fail."""
    dataset, _, coders = world
    coders["speech"].late = 1
    with pytest.raises(
        TooManyFailures, match=r"2 items failed, and --max-failures allows 1(.|\n)*2 x tokens: ValueError"
    ):
        run(world, replace(IN_PROCESS, max_failures=1))
    assert "tokens" not in dataset.columns()
    # With the same limit it does not start again; where as many may fail it goes on with what it has.
    monkeypatch.setattr(job, "token_fields", None)
    with pytest.raises(TooManyFailures):
        run(world, replace(IN_PROCESS, max_failures=0.5))
    summary = run(world, replace(IN_PROCESS, max_failures=2))
    assert summary["errors"] == 3 and len(Dataset(dataset.root).column("tokens")) == 3


def test_other_weights_make_the_tokens_again(world, capsys):
    run(world)
    run(world)
    assert "1 of 1 shard steps are done" in capsys.readouterr().out
    (world[1] / "pose" / "model.json").write_text(json.dumps({"weights_sha256": "pose-2"}))
    run(world)
    assert "0 of 1 shard steps are done" in capsys.readouterr().out
    assert Dataset(world[0].root).manifest()["columns"]["tokens"]["producer"]["tokenizers"]["pose"] == "pose-2"


def test_one_more_source_encodes_its_own_clip_and_moves_the_split(world, tmp_path, monkeypatch):
    dataset, models, coders = world
    run(world)
    before = list(Dataset(dataset.root).column("tokens"))
    assert [record.get("split") for record in before[:2]] == ["heldout", "train"]
    # A source whose hash sorts first: it is held out now, and the one that was before is trained on.
    new = "-" + "0" * 63
    for column in ("clips", *ANNOTATIONS):
        rows = list(Dataset(dataset.root).column(column))
        write_column(dataset.root, column, [*rows, {**rows[1], "clip_id": "new", "source_sha256": new}])
    encoded = []
    inner = job.tokenize_clip

    def tokenize_clip(clip, *rest):
        encoded.append(clip["clip_id"])
        return inner(clip, *rest)

    monkeypatch.setattr(job, "tokenize_clip", tokenize_clip)
    run(world)
    after = list(Dataset(dataset.root).column("tokens"))
    assert encoded == ["new"] and [record.get("split") for record in after] == ["train", "train", None, "heldout"]
    assert after[0]["made_by"] == before[0]["made_by"] and np.array_equal(after[0]["speech"], before[0]["speech"])
    shard = Path(Dataset(dataset.root).shards("tokens")[0])
    again = shard.read_bytes()
    shutil.rmtree(Path(dataset.root, "_state"))
    shard.unlink()
    run(world)
    assert shard.read_bytes() == again


def test_a_missing_tokenizer_is_named(world):
    (world[1] / "image" / "model.json").unlink()
    with pytest.raises(InputError, match=r"image/model.json.*archon train image"):
        run(world)


@pytest.mark.slow
def test_a_dataset_and_tokenizers_on_a_failing_cloud_give_the_tokens_of_a_disk(world, monkeypatch):
    dataset, folder, coders = world
    monkeypatch.undo()  # the tokenizers come from their folder here

    def load_tokenizer(path):
        assert json.loads((path / "model.json").read_text()) == {"weights_sha256": f"{path.name}-1"}
        return coders[path.name]

    monkeypatch.setattr("models.tokenizers.load_tokenizer", load_tokenizer)
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 60.0)
    monkeypatch.setattr(gcs, "REQUEST_SECONDS", (5.0, 2.0))
    with clouds.running_cloud() as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
        root, models = f"gs://{clouds.BUCKET}/set", f"gs://{clouds.BUCKET}/models"
        for source, target in ((Path(dataset.root), root), (folder, models)):
            for path in [path for path in source.rglob("*") if path.is_file()]:
                storage.write_bytes(f"{target}/{path.relative_to(source).as_posix()}", path.read_bytes())
        cloud.rate, cloud.dice, cloud.silence = 0.06, random.Random(2), 0.2
        far = run((Dataset(root), models, coders))
        # Again, with nothing to do: all is found.
        monkeypatch.setattr(job, "token_fields", None)
        assert run((Dataset(root), models, coders))["books"] == far["books"]
        cloud.rate = 0.0
        assert cloud.injected
        made = {
            name.removeprefix(f"{root}/"): storage.read_bytes(name)
            for part in ("tokens", "scores", "failures")
            for name in storage.list_files(f"{root}/{part}/*")
        }
        manifest = Dataset(root).manifest()
        assert not storage.list_files(f"{root}/_state/tokenize/inputs/*")
    monkeypatch.undo()
    monkeypatch.setattr(job, "load_all", lambda directory: coders)
    near = run(world)
    assert made == {
        str(path.relative_to(dataset.root)): path.read_bytes()
        for part in ("tokens", "scores", "failures")
        for path in Path(dataset.root, part).iterdir()
    }
    assert manifest == Dataset(dataset.root).manifest()
    assert {**far, "seconds": 0} == {**near, "seconds": 0} and near["errors"] == 1
