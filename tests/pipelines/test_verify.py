import json
from dataclasses import asdict

import pytest

from infra.cli import main
from models.errors import InputError
from pipelines.dataset import Dataset, shard_name, update_manifest, write_shard
from pipelines.duplicates import write_tables
from pipelines.manifest import clips_mark
from pipelines.verify import verify
from tests.pipelines.rows import producer, row, write_column


@pytest.fixture
def dataset(tmp_path):
    for column in ("clips", "image"):
        shards = [
            write_shard(tmp_path, shard_name(column, k, 2), [row(f"{k}-{i}", column) for i in range(2)])
            for k in range(2)
        ]
        update_manifest(tmp_path, {column: (shards, producer(column))})
    return Dataset(tmp_path)


def test_a_whole_dataset_is_right(dataset, capsys):
    assert main(["verify", "--dataset", dataset.root, "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert json.loads(out[-1])["columns"]["image"] == {
        "shards": 2,
        "records": 4,
        "bytes": sum(info.size for info in dataset.shard_infos("image")),
        "bad": 0,
    }


def test_bad_shards_are_named_and_the_rest_is_still_looked_at(dataset, capsys):
    cut, changed = (dataset.shards(column)[k] for column, k in (("clips", 0), ("image", 1)))
    data = open(cut, "rb").read()
    open(cut, "wb").write(data[:-7])
    data = bytearray(open(changed, "rb").read())
    data[len(data) // 2] ^= 1
    open(changed, "wb").write(data)
    assert [row["bad"] for row in verify(dataset.root, ("clips",), quick=True)["columns"].values()] == [1]
    assert main(["verify", "--dataset", dataset.root]) == 1
    out = capsys.readouterr().out
    assert f"{cut}: " in out and f"{changed}: " in out
    assert [row["bad"] for row in verify(dataset.root)["columns"].values()] == [1, 1]


def test_a_changed_table_of_scores_is_named(tmp_path):
    write_column(tmp_path, "clips", [row("a")])
    write_column(tmp_path, "image", [row("a", "image")])
    path = tmp_path / "scores" / "image-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verify(str(tmp_path), quick=True)["ok"]
    (problem,) = verify(str(tmp_path))["problems"]
    assert problem.startswith(f"{path}: its bytes have hash")
    path.unlink()
    assert "this file is missing" in verify(str(tmp_path), quick=True)["problems"][0]


def test_a_record_of_another_clip_and_one_without_its_fields_are_found(dataset):
    shards = [
        write_shard(dataset.root, shard_name("image", 0, 2), [row("0-1", "image"), row("0-0", "image")]),
        write_shard(dataset.root, shard_name("image", 1, 2), [{"clip_id": "1-0", "error": ""}, row("1-1", "image")]),
    ]
    update_manifest(dataset.root, {"image": (shards, producer("image"))})
    problems = verify(dataset.root)["problems"]
    assert len(problems) == 2
    assert "record 0 is of clip 0-1, but the clip there is 0-0" in problems[0]
    assert "record 0 has no source_sha256" in problems[1]


def test_the_table_of_duplicates_counts_if_it_is_of_these_clips(dataset, capsys):
    files = write_tables(dataset.root, [])
    name = f"{dataset.root}/{files[0].path}"
    found = {"made_from": clips_mark(dataset.manifest()), "count": 0, "files": [asdict(info) for info in files]}
    assert verify(dataset.root)["stale"] == [name]  # nothing says of which clips it is
    update_manifest(dataset.root, {}, duplicates=found)
    assert verify(dataset.root)["ok"] and verify(dataset.root)["stale"] == []
    write_tables(dataset.root, [{"clip_id": "0-0"}])
    assert verify(dataset.root, quick=True)["problems"][0].startswith(f"{name}: ")
    assert verify(dataset.root, ("clips",))["ok"]
    # Once it is of other clips, what is in it is no fault of the dataset.
    rows = [[row(f"{k}-{i}", source=1) for i in range(2)] for k in range(2)]
    shards = [write_shard(dataset.root, shard_name("clips", k, 2), part) for k, part in enumerate(rows)]
    update_manifest(dataset.root, {"clips": (shards, producer("clips"))})
    capsys.readouterr()
    assert main(["verify", "--dataset", dataset.root, "--quick", "--json"]) == 0
    out = capsys.readouterr().out
    assert f"{name}: stale: not of the clips that are here" in out
    assert json.loads(out.splitlines()[-1])["stale"] == [name]


def test_wrong_names_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="no column 'dance'"):
        verify(dataset.root, ("dance",))
    assert main(["verify", "--dataset", str(tmp_path / "nothing")]) == 2
