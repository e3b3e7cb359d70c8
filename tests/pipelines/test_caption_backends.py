"""`archon annotate` with captions that are paid for: each on its own clip, refusals counted, money to the last cent."""

import argparse
import json
from decimal import Decimal

import numpy as np
import pytest

from models.errors import InputError
from pipelines import annotate as job
from pipelines.dataset import Dataset, shard_name, update_manifest, write_shard
from tests.pipelines.gemini_server import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    THOUGHT_TOKENS,
    answer,
    description_of,
    gemini_server,
)
from tests.pipelines.rows import producer, row

SHARDS, ROWS = 2, 3
COST = (Decimal("1.25") * INPUT_TOKENS + 10 * (OUTPUT_TOKENS + THOUGHT_TOKENS)) / 1_000_000


def video_of(name: str) -> bytes:
    return f"the video of {name}".encode()


@pytest.fixture
def dataset(tmp_path) -> str:
    """Clips whose videos only say whose they are; the captioner needs no other column."""
    root = str(tmp_path / "dataset")
    infos = []
    for shard in range(SHARDS):
        names = [f"clip{shard}{k}" for k in range(ROWS)]
        records = [
            {**row(name, video=video_of(name), audio=np.zeros(100, np.int16), num_frames=9), "source": "a.mp4"}
            for name in names
        ]
        infos.append(write_shard(root, shard_name("clips", shard, SHARDS), records))
    update_manifest(root, {"clips": (infos, producer("clips"))})
    return root


def run(dataset: str, url: str, *more: str) -> dict:
    parser = argparse.ArgumentParser()
    job.register(parser)
    words = [
        "--dataset",
        dataset,
        "--columns",
        "description",
        "--backend",
        "description=gemini",
        "--gemini-project",
        "p",
    ]
    words += ["--gemini-endpoint", url, "--gemini-rpm", "1e6", "--runner", "in-process", *more]
    return job.run(parser.parse_args(words))


def test_captions_costs_and_refusals_of_a_job(dataset, capsys):
    refused = video_of("clip01")
    with gemini_server() as server:
        server.plan = lambda video, n: (200, answer(None, "SAFETY"), {}) if video == refused else None
        summary = run(dataset, server.url)
        column = Dataset(dataset).column("description")
        for record in column:
            if record["clip_id"] == "clip01":
                assert record["error"].startswith("description: BlockedAnswerError: the answer was blocked: SAFETY")
            else:
                assert record["description"] == description_of(video_of(record["clip_id"]))
                assert record["error"] == "" and record["backend"] == "gemini"
            assert Decimal(json.loads(record["usage"])["cost"]) == COST
        spent = summary["columns"]["description"]["spent"]
        assert Decimal(spent["cost"]) == 6 * COST and spent["requests"] == len(server.requests) == 6
        entry = Dataset(dataset).manifest()["columns"]["description"]["producer"]
        assert entry["spent"] == spent and "gemini-2.5-pro as served, 1.25/10.00 USD" in str(entry["made_by"])
        assert "6 answers paid for" in capsys.readouterr().out
        assert summary["errors"] == 1

        # Made again at another price: nothing is bought, all is counted anew.
        prices = {"currency": "EUR", "per_million_tokens": {"gemini-2.5-pro": {"input": 1, "output": 0}}}
        path = f"{dataset}/prices.json"
        with open(path, "w") as file:
            json.dump(prices, file)
        again = run(dataset, server.url, "--gemini-prices", path)
        assert len(server.requests) == 6
        assert again["columns"]["description"]["spent"]["cost"] == "0.006"


def test_a_killed_job_buys_nothing_again(dataset, monkeypatch):
    """The worker dies after the answers of a shard are there and before their rows are: the next run has them."""
    from pipelines import column_shard

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with gemini_server() as server:
        with monkeypatch.context() as patched, pytest.raises(BaseException, match=""):
            patched.setattr(column_shard, "_keep", die)
            run(dataset, server.url)
        assert len(server.requests) >= ROWS
        run(dataset, server.url)
        assert len(server.requests) == SHARDS * ROWS and set(server.count.values()) == {1}
        texts = [record["description"] for record in Dataset(dataset).column("description")]
        assert len(set(texts)) == SHARDS * ROWS


def test_without_a_project_or_a_key_nothing_starts(dataset, monkeypatch):
    from pipelines.stages.gemini import KEY_VARIABLE

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"--gemini-project.*{KEY_VARIABLE}"):
        run(dataset, "http://127.0.0.1:9", "--gemini-project", "")
