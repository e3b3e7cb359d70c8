"""A manifest is read as hostile input: refused with its name and the field, it never leads out of the dataset."""

import copy
import json
import random

import pytest

from models.errors import InputError
from pipelines import manifest as manifests
from pipelines.annotate import annotate
from pipelines.annotators import AnnotateConfig
from pipelines.beam import RunnerOptions
from pipelines.dataset import Dataset, shard_name, update_manifest, write_shard
from tests.pipelines.rows import producer, row


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "dataset"
    shards = [write_shard(root, shard_name("clips", k, 2), [row(f"{k}-{i}") for i in range(2)]) for k in range(2)]
    file = {"path": "duplicates/one.parquet", "count": 3, "size": 9, "sha256": "0" * 64}
    found = {"made_from": "0", "count": 3, "files": [file]}
    update_manifest(root, {"clips": (shards, producer("clips"))}, duplicates=found)
    return Dataset(root)


def rewrite(dataset, change) -> None:
    manifest = json.loads((path := dataset.path("manifest.json")) and open(path).read())
    change(manifest)
    with open(path, "w") as file:
        json.dump(manifest, file)


def shard(manifest) -> dict:
    return manifest["columns"]["clips"]["shards"][1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: shard(m).update(path="/etc/passwd"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="clips/../../secret"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="../clips/x"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="clips/.."), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="clips/a/b"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="clips/a\x00b"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="clips\\..\\x"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="gs://other/clips"), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(path="speech/speech-00000-of-00001"), r"clips.shards\[1\].path"),
        (
            lambda m: shard(m).update(path=m["columns"]["clips"]["shards"][0]["path"]),
            r"shards\[1\].path is there twice",
        ),
        (lambda m: shard(m).update(path=7), r"clips.shards\[1\].path"),
        (lambda m: shard(m).update(count=-1), r"clips.shards\[1\].count"),
        (lambda m: shard(m).update(count=1.5), r"clips.shards\[1\].count"),
        (lambda m: shard(m).update(count=True), r"clips.shards\[1\].count"),
        (lambda m: shard(m).update(count=3), r"clips.count"),
        (lambda m: shard(m).update(size=10**300), r"clips.shards\[1\].size is a huge number"),
        (lambda m: shard(m).update(size="12"), r"clips.shards\[1\].size"),
        (lambda m: shard(m).update(sha256="0" * 63), r"clips.shards\[1\].sha256"),
        (lambda m: shard(m).update(sha256=None), r"clips.shards\[1\].sha256"),
        (lambda m: shard(m).update(more=1), r"clips.shards\[1\] has"),
        (lambda m: shard(m).pop("size"), r"clips.shards\[1\].size"),
        (lambda m: m["columns"]["clips"].update(scores=[shard(m)]), r"clips.scores\[0\].path is .* expected scores/"),
        (lambda m: m["columns"]["clips"].update(scores=[]), r"clips.count is 4, but columns.clips.scores have another"),
        (lambda m: m["columns"]["clips"].update(shards={}), r"clips.shards"),
        (lambda m: m["columns"]["clips"].update(shards=[[]]), r"clips.shards\[0\]"),
        (lambda m: m["columns"]["clips"].update(producer="me"), r"clips.producer"),
        (lambda m: m["columns"].update({"../up": m["columns"]["clips"]}), r"columns has '../up'"),
        (lambda m: m["duplicates"]["files"][0].update(path="clips/x"), r"duplicates.files\[0\].path is 'clips/x'"),
        (lambda m: m["duplicates"].update(count=2), r"duplicates.count is 2, but duplicates.files have another sum"),
        (lambda m: m["duplicates"].update(made_from=7), r"duplicates.made_from is 7, expected a text"),
        (lambda m: m["duplicates"].pop("files"), r"duplicates.files is None"),
        (lambda m: m.update(duplicates=[]), r"field duplicates is \[\], expected an object"),
        (lambda m: m.update(columns=[]), r"field columns"),
        (lambda m: m.update(schema_version=1), r"schema_version is 1, expected"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_field(dataset, change, field):
    rewrite(dataset, change)
    with pytest.raises(InputError, match=rf"manifest\.json: .*{field}"):
        dataset.column("clips")
    with pytest.raises(InputError, match=field):
        annotate(AnnotateConfig(dataset.root, ("image",)), RunnerOptions("in-process", 1))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"x"', "[" * 100_000, '{"columns": ' * 50_000, "1" * 10_000, b"\xff\xfe", "NaN"],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_manifest_at_all_is_refused(dataset, text):
    with open(dataset.path("manifest.json"), "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"manifest\.json"):
        dataset.manifest()


def test_a_huge_manifest_is_not_read(dataset, monkeypatch):
    monkeypatch.setattr(manifests, "MAX_MANIFEST_BYTES", 100)
    monkeypatch.setattr(manifests.storage, "read_bytes", lambda path: pytest.fail("was read"))
    with pytest.raises(InputError, match=r"manifest\.json: \d+ bytes, expected at most 100"):
        dataset.manifest()


def test_random_changes_give_a_manifest_or_an_input_error(dataset):
    """Any value of any field replaced by any other kind: never another exception, never a path outside."""
    rng = random.Random(4)
    good = dataset.manifest()
    values = [None, True, -1, 0, 1.5, 10**30, "", "..", "/", "clips/x", [], {}, [1], {"path": "x"}, float("nan")]
    refused = 0
    for _ in range(400):
        manifest = copy.deepcopy(good)
        node = manifest
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.15:
                break
            node = node[key]
        node[key] = rng.choice(values)
        try:
            manifests.check_manifest(manifest, ("clips",), "manifest.json")
        except InputError as error:
            assert str(error).startswith("manifest.json: field ")
            refused += 1
            continue
        for info in manifests.shard_infos(manifest, "clips") if manifest["columns"] else ():
            assert info.path.startswith("clips/") and ".." not in info.path and info.path.count("/") == 1
    assert refused > 200
