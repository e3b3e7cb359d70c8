"""Videos and dataset on a Cloud Storage whose requests fail now and then: the same dataset as on a disk."""

import random
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines import annotators, column_shard, gcs, storage
from pipelines.annotate import annotate
from pipelines.annotators import AnnotateConfig
from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate
from pipelines.dataset import Dataset, ShardInfo, ShardReader, shard_name, update_manifest, write_shard
from pipelines.report import ReportConfig, report
from tests.pipelines import cloud as clouds
from tests.pipelines.media import make_video, talking_head
from tests.pipelines.painted import clip
from tests.pipelines.rows import producer

HERE = RunnerOptions("in-process", 1)
ROOT = f"gs://{clouds.BUCKET}/set"


@pytest.fixture
def cloud(monkeypatch):
    with clouds.running_cloud() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.url)
        monkeypatch.setattr(gcs, "RETRY_SECONDS", 60.0)
        monkeypatch.setattr(gcs, "REQUEST_SECONDS", (5.0, 2.0))
        server.silence = 2.5
        yield server


def files(root: str) -> dict[str, bytes]:
    """Name -> bytes of a dataset's shards and tables, without the jobs' state and the page that names its path."""
    names = {name[len(root) + 1 :]: name for name in storage.list_files(f"{root}/**")}
    return {
        name: storage.read_bytes(path)
        for name, path in names.items()
        if not name.startswith(("_state/", "report/index.html"))
    }


@pytest.mark.slow
def test_a_dataset_on_a_failing_cloud_is_the_one_on_a_disk(cloud, tmp_path):
    storage.write_bytes("gs://corpus/videos/head.mp4", talking_head().read_bytes())
    storage.write_bytes("gs://corpus/videos/deep/tone.mp4", make_video(tmp_path / "tone.mp4").read_bytes())
    storage.write_bytes("gs://corpus/videos/text.mp4", b"a text file")
    storage.write_bytes("gs://corpus/list.txt", b"gs://corpus/videos/deep/tone.mp4\n")
    local = str(tmp_path / "set")
    for root, rate in ((local, 0.0), (ROOT, 0.12)):
        cloud.rate, cloud.dice = rate, random.Random(7)
        inputs = ("gs://corpus/videos/*.mp4", "gs://corpus/list.txt")
        made = curate(CurateConfig(inputs, root, sources_per_shard=2), HERE)
        assert (made["sources"], made["clips"], made["failed"]) == (3, 1, 1)
        done = annotate(AnnotateConfig(root, ("image", "speech")), HERE)
        assert done["errors"] == 0
        shown = report(ReportConfig(root))
        assert shown["clips"] == 1 and storage.exists(shown["report"])
        # Again: everything is found done.
        assert curate(CurateConfig(inputs, root, sources_per_shard=2), HERE)["clips"] == 1
    cloud.rate = 0.0
    assert len(cloud.injected) > 10
    assert files(ROOT) == files(local)
    # Nothing half-done is left: no part of an unfinished shard, no temporary name.
    assert not [name for name in storage.list_files(f"{ROOT}/**") if ".tmp-" in name or "/parts/" in name]
    assert Dataset(ROOT).good_rows("clips", "image", "speech") == [0]


@pytest.mark.slow
def test_rows_are_used_again_on_a_failing_cloud(cloud, tmp_path, monkeypatch):
    """The clips' shards are cut differently: what is set aside, found and copied through are objects."""
    records, config = [clip(index, tmp_path) for index in range(3)], {"columns": ("image", "speech")}

    def lay_out(root: str, *shards) -> None:
        infos = [write_shard(root, shard_name("clips", k, len(shards)), part) for k, part in enumerate(shards)]
        update_manifest(root, {"clips": (infos, producer("clips"))})

    cut = (records[2:], records[:1], records[1:2])
    local = str(tmp_path / "set")
    lay_out(local, *cut)
    annotate(AnnotateConfig(local, **config), HERE)
    lay_out(ROOT, records[:2], records[2:])
    annotate(AnnotateConfig(ROOT, **config), HERE)
    for name in storage.list_files(f"{ROOT}/clips/*"):
        storage.remove(name)
    lay_out(ROOT, *cut)
    monkeypatch.setattr(column_shard, "_make_rows", None)
    cloud.rate, cloud.dice, cloud.silence = 0.1, random.Random(5), 0.2
    annotate(AnnotateConfig(ROOT, **config), HERE)
    cloud.rate = 0.0
    assert cloud.injected and files(ROOT) == files(local)
    assert not storage.list_files(f"{ROOT}/_state/annotate/kept/**")


def test_records_are_read_whole_from_a_failing_cloud(cloud):
    records = [{"n": n, "data": random.Random(n).randbytes(40_000)} for n in range(20)]
    info = write_shard(ROOT, "clips/one.array_record", records)
    cloud.rate, cloud.dice, cloud.silence = 0.15, random.Random(3), 0.2
    reader = ShardReader(f"{ROOT}/clips/one.array_record", info)
    assert [reader[n] for n in (19, 0, *range(20))] == [records[n] for n in (19, 0, *range(20))]
    assert cloud.injected


def test_a_half_written_shard_is_refused_by_name(cloud, tmp_path):
    info = write_shard(ROOT, "clips/one.array_record", [{"n": n} for n in range(5)])
    whole = storage.read_bytes(f"{ROOT}/clips/one.array_record")
    for data, what in ((whole[: len(whole) // 2], "truncated"), (bytes(len(whole)), "SHA-256"), (None, "missing")):
        if data is None:
            storage.remove(f"{ROOT}/clips/one.array_record")
        else:
            storage.write_bytes(f"{ROOT}/clips/one.array_record", data)
        with pytest.raises(InputError, match=rf"clips/one.array_record: .*{what}"):
            ShardReader(f"{ROOT}/clips/one.array_record", info)[0]
    storage.write_bytes(f"{ROOT}/clips/one.array_record", whole[:-10])
    with pytest.raises(InputError, match="not a whole ArrayRecord file"):
        ShardReader(f"{ROOT}/clips/one.array_record")[0]
    assert isinstance(info, ShardInfo) and not Path(tmp_path, "clips").exists()


def test_a_segmenter_on_a_cloud_is_the_one_on_a_disk(cloud):
    """Its mark is that of the files, and it is loaded from there."""
    from models.segmenter import EMBEDDED

    place = f"gs://{clouds.BUCKET}/segmenter"
    for path in EMBEDDED.glob("model.*"):
        storage.write_bytes(f"{place}/{path.name}", path.read_bytes())
    here, there = AnnotateConfig("set"), AnnotateConfig("set", segmenter=place)
    assert annotators._segmenter_weights(there) == annotators._segmenter_weights(here)
    annotators._segmenter.cache_clear()
    model = annotators._segmenter(place)
    assert model.facts()["weights_sha256"] == annotators._segmenter(None).facts()["weights_sha256"]
    with pytest.raises(InputError, match="nothing is there"):
        annotators._segmenter_weights(AnnotateConfig("set", segmenter=f"gs://{clouds.BUCKET}/none"))
