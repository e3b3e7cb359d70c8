import dataclasses
import json
import math

import numpy as np
import pytest

from infra.cli import main
from infra.presets.language import TINY
from infra.training import language_job
from infra.training.jobs import build_job
from infra.training.language_job import LanguageJobConfig, make_job, model_config
from models.errors import InputError
from models.io import load_model
from pipelines.dataset import shard_name, update_manifest, write_shard
from tasks import generate as generation
from tasks import perplexity
from tasks.generate import TokenSpace
from tasks.mixture import FLOOR, mixture_weights, read_mixture
from tasks.perplexity import Hardness
from tasks.registry import TASKS
from tasks.windows import WindowConfig
from tests.token_records import ByteText, random_params, record, vocabulary

SPACE = TokenSpace(vocabulary(), ByteText(), {"speech": "abc"})
NAMES = [task.name for task in TASKS]
SMALL = dataclasses.replace(
    TINY,
    width=16,
    layers=1,
    heads=1,
    head_width=16,
    hidden=16,
    image_width=8,
    length=960,
    window=WindowConfig(3, 3),
)


def write_model(folder, **changes) -> None:
    job = make_job(LanguageJobConfig(SMALL, SPACE.vocabulary, **changes), text=SPACE.text, weights=SPACE.weights)
    job.export({"params": random_params(model_config(SMALL, SPACE.vocabulary))}, folder)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A dataset of 7 clips, two of them held out, and an untrained baseline."""
    shard = write_shard(tmp_path / "data", shard_name("tokens", 0, 1), [record(i, frames=37) for i in range(7)])
    update_manifest(tmp_path / "data", {"tokens": ([shard], {"tokenizers": {"speech": "abc"}})})
    for module in (language_job, generation):
        monkeypatch.setattr(module, "read_token_space", lambda tokenizers: SPACE)
    write_model(tmp_path / "models/language")
    return tmp_path


def words(world, *more: str) -> list[str]:
    models = world / "models"
    return ["--model", f"{models}/language", "--dataset", f"{world}/data", "--tokenizers", f"{models}", *more]


def test_it_measures_every_task_and_the_next_run_reads_the_file(world, capsys):
    path = world / "weights.json"
    assert main(["measure", "mixture", *words(world, "--output", str(path), "--json")]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])["figures"]
    content = json.loads(path.read_text())
    rows = content["tasks"]
    assert list(rows) == NAMES and all(f"\n{name}  " in out for name in NAMES)
    assert (content["step"], content["clips"], content["uniform_baseline"]) == (SMALL.steps, 2, True)
    assert content["weights_sha256"] == load_model(world / "models/language")[3].weights_sha256
    assert not [file for file in world.iterdir() if file.name.startswith(".")], "a temporary file stayed"

    # The whole video of a clip does not fit these short rows: no data, which the median stands in for.
    without = {name for name, row in rows.items() if row["perplexity"] is None}
    assert without == {"video-to-script"}
    assert figures["tasks_measured"] == 71 and all(rows[name]["tokens"] == 0 for name in without)
    measured = {name: row["perplexity"] for name, row in rows.items() if name not in without}
    expected = mixture_weights(TASKS, measured)
    np.testing.assert_allclose([row["weight"] for row in rows.values()], expected)
    assert rows["image-to-shape"]["tokens"] == 2 * 8
    assert figures["perplexity_least"] <= figures["perplexity"] <= figures["perplexity_most"]
    assert figures["tokens"] == sum(row["tokens"] for row in rows.values())

    train = ["train", "language", "--dataset", f"{world}/data", "--tokenizers", f"{world}/models", "--steps", "1"]
    small = ("width=16", "layers=1", "heads=1", "head_width=16", "hidden=16", "image_width=8", "heldout_batches=1")
    train += [word for pair in small for word in ("--set", pair)] + ["--workdir", f"{world}/mixed"]
    assert main([*train, "--tasks", str(path)]) == 0
    trained_with = load_model(world / "mixed")[3].extra["task_weights"]
    np.testing.assert_allclose([trained_with[name] for name in NAMES], expected)
    # The same weights again are the same run, others are another.
    assert main([*train, "--tasks", str(path)]) == 0
    assert "already trained" in capsys.readouterr().err
    assert main(train) == 2
    assert "belongs to another run" in capsys.readouterr().err

    rows.pop("speech-to-script")
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 missing .speech-to-script.; expected exactly the 72"):
        build_job("language", overrides={"tasks": str(path)})


def measure(world, monkeypatch, found: dict[str, Hardness], *more: str) -> tuple[int, dict | None]:
    """Runs the command with these measurements, the other tasks at perplexity 2."""
    table = {name: found.get(name, Hardness(10 * math.log(2), 10)) for name in NAMES}
    monkeypatch.setattr(perplexity, "hardness", lambda *_: table)
    path = world / "weights.json"
    status = main(["measure", "mixture", *words(world, "--output", str(path), *more)])
    return status, json.loads(path.read_text()) if path.exists() else None


def test_degenerate_measurements(world, monkeypatch):
    found = {
        "speech-to-script": Hardness(0.0, 10),  # learned by heart
        "speech-to-description": Hardness(0.0, 0),  # no data
        "description-to-image": Hardness(10 * math.log(16), 10),  # the hardest, and the only task that makes an image
    }
    status, content = measure(world, monkeypatch, found, "--clips", "1")
    assert status == 0 and content["clips"] == 1
    rows = content["tasks"]
    unit = rows["description-to-image"]["weight"] / 4  # log 16 is four log 2
    count = {name: sum(task.outputs[-1] == name for task in TASKS) for name in ("script", "description")}
    assert rows["speech-to-script"] == {
        "perplexity": 1,
        "tokens": 10,
        "weight": pytest.approx(FLOOR * 4 * unit / count["script"]),
    }
    assert rows["speech-to-description"]["perplexity"] is None
    assert rows["speech-to-description"]["weight"] == pytest.approx(unit / count["description"])


def test_a_baseline_of_other_weights_is_said_to_be_one(world, capsys, monkeypatch):
    write_model(world / "models/language", mixture=read_mixture("speech-to-script,image-to-shape", TASKS))
    status, content = measure(world, monkeypatch, {})
    assert status == 0 and content["uniform_baseline"] is False
    assert "was not trained with uniform sampling" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused(world, capsys, monkeypatch):
    cases = (
        ({}, ("--clips", "0"), "--clips 0: expected at least 1"),
        ({"image-to-shape": Hardness(math.nan, 8)}, (), "image-to-shape: a likelihood that is not finite"),
        (dict.fromkeys(NAMES, Hardness(0.0, 0)), (), "no task of a held-out clip fits"),
        ({}, ("--dataset", str(world / "nowhere")), "nowhere"),
        ({}, ("--model", str(world / "nowhere")), "nowhere"),
    )
    for found, more, message in cases:
        assert measure(world, monkeypatch, found, *more) == (2, None)
        assert message in capsys.readouterr().err
