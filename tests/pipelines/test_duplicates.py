import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from infra import cli
from models.errors import InputError
from pipelines import duplicates, storage
from pipelines.beam import RunnerOptions
from pipelines.dataset import Dataset, update_manifest
from pipelines.duplicates import DuplicatesConfig, find_duplicates
from pipelines.manifest import ShardInfo, duplicate_infos, stale_duplicates
from pipelines.stages.fingerprints import to_hex
from tests.pipelines import cloud as clouds
from tests.pipelines.media import ffmpeg, talking_head

ALONE = RunnerOptions("in-process", 1)


def words(count, seed):
    return np.random.default_rng(seed).integers(1, 1 << 32, count, dtype=np.uint32)


def noisy(code, seed, share=0.05):
    wrong = np.random.default_rng(seed).random((len(code), 32)) < share
    return code ^ (wrong @ (1 << np.arange(32, dtype=np.uint64))).astype(np.uint32)


def clip(name, motion, sound, seconds=4.0, face=100.0, source=None, start=0, appearance=7, kept=True):
    row = {"clip_id": name, "source": source or f"{name}.mp4", "start_frame": start}
    row |= {"end_frame": start + round(seconds * 30), "seconds": seconds, "face_size": face}
    return row | {"picture_hash": f"{appearance:016x}{to_hex(motion)}", "sound_hash": to_hex(sound), "kept": kept}


def dataset(root: Path, rows: list[dict], shards: int = 3) -> str:
    (root / "quality").mkdir(parents=True)
    schema = pa.Table.from_pylist(rows).schema
    for k in range(shards):
        table = pa.Table.from_pylist(rows[k::shards], schema=schema)
        pa.parquet.write_table(table, root / f"quality/quality-{k:05d}-of-{shards:05d}.parquet")
    infos = [ShardInfo(f"clips/clips-{k:05d}-of-{shards:05d}.array_record", 1, 9, f"{k:064x}") for k in range(shards)]
    update_manifest(root, {"clips": (infos, {"job": "curate"})})
    return str(root)


def table(root) -> list[dict]:
    return [
        row
        for path in sorted(Path(root).glob("duplicates/*.parquet"))
        for row in pa.parquet.read_table(path).to_pylist()
    ]


def corpus() -> list[dict]:
    """Twelve clips that share nothing, and copies of some."""
    rows = [clip(f"other{k:02d}", words(80, k), words(70, 100 + k)) for k in range(12)]
    motion, sound = words(80, 50), words(70, 51)
    rows += [
        clip("same-a", noisy(motion, 1), noisy(sound, 1)),
        clip("same-b", motion, sound, seconds=5.0),
        clip("same-c", noisy(motion, 2)[10:], noisy(sound, 2)[10:], face=300.0),
        clip("dubbed", noisy(motion, 3), words(70, 52)),
        clip("heard", words(80, 53), noisy(sound, 4)),
        clip("other-room", noisy(motion, 5), words(70, 54), appearance=(1 << 40) - 1),
        clip("rejected", motion, sound, seconds=9.0, kept=False),
    ]
    return rows


EXPECTED = {"dubbed": "picture", "heard": "sound", "same-a": "both", "same-c": "both"}


def test_copies_are_named_with_the_best_that_stays(tmp_path):
    root = dataset(tmp_path / "d", corpus())
    summary = find_duplicates(DuplicatesConfig(root), ALONE)
    rows = table(root)
    assert {row["clip_id"]: row["kind"] for row in rows if row["duplicate_of"]} == EXPECTED
    assert {row["duplicate_of"] for row in rows} == {None, "same-b"} and {row["group"] for row in rows} == {"dubbed"}
    by_name = {row["clip_id"]: row for row in rows}
    assert by_name["same-b"]["kind"] is None and by_name["same-b"]["picture_distance"] is None
    assert by_name["same-a"]["picture_distance"] == pytest.approx(0.05, abs=0.03)
    assert by_name["same-a"]["sound_similarity"] == pytest.approx(0.95, abs=0.03)
    assert by_name["dubbed"]["sound_similarity"] < 0.65 and by_name["heard"]["picture_distance"] > 0.35
    assert summary["clips"] == 18 and summary["duplicates"] == 4 and summary["groups"] == 1
    assert (summary["by_both"], summary["by_picture"], summary["by_sound"]) == (2, 1, 1)
    assert pa.parquet.read_schema(next(Path(root).glob("duplicates/*"))) == duplicates.duplicates_schema()
    assert not (Path(root) / duplicates.WORK).exists()


@pytest.mark.parametrize(
    "runner", [ALONE, pytest.param(RunnerOptions("multi-process", 2), marks=pytest.mark.slow)], ids=["one", "two"]
)
def test_workers_blocks_and_parts_change_nothing(runner, tmp_path):
    root = dataset(tmp_path / "0", corpus())
    find_duplicates(DuplicatesConfig(root), ALONE)
    other = dataset(tmp_path / "1", corpus(), shards=4)
    find_duplicates(DuplicatesConfig(other, bytes_per_block=20_000, bytes_per_part=5_000), runner)
    made = [[path.read_bytes() for path in sorted(Path(r).glob("duplicates/*.parquet"))] for r in (root, other)]
    assert made[0] == made[1] and len(made[0]) == 1


def test_a_dataset_on_a_cloud_has_the_same_table(tmp_path, monkeypatch):
    local = dataset(tmp_path / "d", corpus())
    with clouds.running_cloud() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        root = f"gs://{clouds.BUCKET}/set"
        for path in [p for p in Path(local).rglob("*") if p.is_file()]:
            storage.write_bytes(f"{root}/{path.relative_to(local)}", path.read_bytes())
        find_duplicates(DuplicatesConfig(root), ALONE)
        name = "duplicates/duplicates-00000-of-00001.parquet"
        made = storage.read_bytes(f"{root}/{name}")
        assert storage.list_files(f"{root}/{duplicates.WORK}/*") == []
    find_duplicates(DuplicatesConfig(local), ALONE)
    assert made == (Path(local) / name).read_bytes()


def test_stretches_that_overlap_cost_no_content(tmp_path):
    """b shares its halves with a and with c, which share nothing: b goes only if one that stays has all of it."""
    motion, sound = words(160, 1), words(160, 2)
    cuts = {"a": slice(0, 80), "b": slice(40, 120), "c": slice(80, 160)}
    rows = [
        clip(name, motion[cut], sound[cut], source="b.mp4" if name == "b" else "ac.mp4", start=cut.start * 2)
        for name, cut in cuts.items()
    ]
    root = dataset(tmp_path / "d", rows)
    find_duplicates(DuplicatesConfig(root), ALONE)
    assert {row["clip_id"]: row["duplicate_of"] for row in table(root)} == {"a": None, "b": "a", "c": None}


def test_clips_of_one_source_that_do_not_overlap_are_none(tmp_path):
    motion, sound = words(80, 1), words(80, 2)
    rows = [clip(f"loop{k}", motion, sound, source="loop.mp4", start=k * 120) for k in range(3)]
    root = dataset(tmp_path / "d", rows)
    assert find_duplicates(DuplicatesConfig(root), ALONE)["duplicates"] == 0
    assert table(root) == [] and list(Path(root).glob("duplicates/*.parquet"))


def test_many_copies_of_one_clip_leave_one(tmp_path):
    """More than a key's clips are compared with: those that no key brought together are compared afterwards."""
    motion, sound = words(80, 1), words(70, 2)
    root = dataset(tmp_path / "d", [clip(f"copy{k:03d}", motion, noisy(sound, k, 0.01)) for k in range(60)])
    summary = find_duplicates(DuplicatesConfig(root), ALONE)
    assert summary["duplicates"] == 59 and summary["groups"] == 1
    assert {row["duplicate_of"] for row in table(root)} == {None, "copy000"}


def test_a_stopped_run_goes_on_and_a_finished_one_is_left_alone(tmp_path, monkeypatch, capsys):
    root, again = dataset(tmp_path / "d", corpus()), dataset(tmp_path / "e", corpus())
    find_duplicates(DuplicatesConfig(again), ALONE)
    with monkeypatch.context() as patch:
        patch.setattr(duplicates, "grouped", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            find_duplicates(DuplicatesConfig(root), ALONE)
    work = Path(root) / duplicates.WORK
    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    assert before and not table(root)
    with monkeypatch.context() as patch:
        patch.setattr(duplicates.storage, "remove_tree", lambda _: None)  # to see what the second run wrote
        find_duplicates(DuplicatesConfig(root), ALONE)
    assert {path.name: path.stat().st_mtime_ns for path in work.iterdir()} == before
    name = "duplicates/duplicates-00000-of-00001.parquet"
    assert (Path(root) / name).read_bytes() == (Path(again) / name).read_bytes()
    capsys.readouterr()
    find_duplicates(DuplicatesConfig(root), ALONE)
    assert capsys.readouterr().out == "duplicates: done already\n"


def test_other_clips_or_limits_are_judged_again(tmp_path):
    root = dataset(tmp_path / "d", corpus())
    find_duplicates(DuplicatesConfig(root), ALONE)
    strict = duplicates.Limits(picture_distance=0.01, sound_similarity=0.999)
    assert find_duplicates(DuplicatesConfig(root, strict), ALONE)["duplicates"] == 0
    assert table(root) == []


def test_the_manifest_says_of_which_clips_the_table_is(tmp_path):
    root = dataset(tmp_path / "d", corpus())
    find_duplicates(DuplicatesConfig(root), ALONE)
    manifest = Dataset(root).manifest()
    [info] = duplicate_infos(manifest)
    assert info.count == 5 and info.sha256 == storage.sha256_file(f"{root}/{info.path}")
    assert stale_duplicates(root, manifest) == []
    update_manifest(root, {"clips": ([ShardInfo("clips/other", 1, 9, "f" * 64)], {"job": "curate"})})
    manifest = Dataset(root).manifest()
    assert duplicate_infos(manifest) is None and stale_duplicates(root, manifest) == [f"{root}/{info.path}"]
    find_duplicates(DuplicatesConfig(root), ALONE)
    assert duplicate_infos(Dataset(root).manifest()) == [info]
    # A table that is there already is entered if the manifest does not say so.
    update_manifest(root, {}, duplicates=None)
    find_duplicates(DuplicatesConfig(root), ALONE)
    assert duplicate_infos(Dataset(root).manifest()) == [info]


def test_clips_that_change_meanwhile_leave_a_stale_table(tmp_path, monkeypatch):
    root = dataset(tmp_path / "d", corpus())

    def grouped(*rest):
        update_manifest(root, {"clips": ([ShardInfo("clips/other", 1, 9, "f" * 64)], {"job": "curate"})})
        return []

    monkeypatch.setattr(duplicates, "grouped", grouped)
    find_duplicates(DuplicatesConfig(root), ALONE)
    assert duplicate_infos(Dataset(root).manifest()) is None


def test_the_command_prints_its_summary(tmp_path, capsys):
    root = dataset(tmp_path / "d", corpus())
    assert cli.main(["duplicates", "--dataset", root, "--runner", "in-process", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["duplicates"] == 4


@pytest.mark.parametrize("flag", ["--picture-distance=0.9", "--appearance-distance=99", "--sound-similarity=0.2"])
def test_a_limit_out_of_range_is_named(flag, tmp_path, capsys):
    assert cli.main(["duplicates", "--dataset", str(tmp_path), flag]) == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_tables_that_cannot_serve_are_named(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "sound_hash"} for row in corpus()]
    with pytest.raises(InputError, match="quality-00000-of-00001.parquet: no column sound_hash"):
        duplicates.read_kept(dataset(tmp_path / "a", rows, 1) + "/quality/quality-00000-of-00001.parquet")
    root = dataset(tmp_path / "b", [corpus()[0] | {"picture_hash": None}, corpus()[1]], 1)
    with pytest.raises(InputError, match="clip other00: no picture_hash"):
        duplicates.read_kept(root + "/quality/quality-00000-of-00001.parquet")
    root = dataset(tmp_path / "c", corpus())
    (Path(root) / "quality/quality-00001-of-00003.parquet").write_bytes(b"cut short")
    with pytest.raises(InputError, match="quality-00001-of-00003.parquet: not a Parquet file"):
        find_duplicates(DuplicatesConfig(root), ALONE)
    (tmp_path / "e").mkdir()
    with pytest.raises(InputError, match="manifest"):
        find_duplicates(DuplicatesConfig(str(tmp_path / "e")), ALONE)


@pytest.mark.slow
def test_an_upload_again_of_a_curated_video_is_found(tmp_path):
    """From files to the table: a video and its copy, smaller, cropped and encoded again, are curated and compared."""
    from pipelines.curate import CurateConfig, curate

    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "first.mp4").write_bytes(talking_head().read_bytes())
    change = ("-vf", "crop=iw*0.97:ih*0.97:iw*0.03:0,scale=224:224", "-crf", "28", "-c:a", "aac", "-b:a", "48k")
    ffmpeg("-i", talking_head(), "-c:v", "libx264", "-preset", "veryfast", *change, videos / "again.mp4")
    root = tmp_path / "set"
    assert curate(CurateConfig((str(videos),), str(root)), ALONE)["clips"] == 2
    summary = find_duplicates(DuplicatesConfig(str(root)), ALONE)
    assert summary["duplicates"] == summary["groups"] == 1 and summary["by_both"] == 1
    names = {clip["clip_id"] for clip in Dataset(root).column("clips")}
    assert {row["clip_id"] for row in table(root)} == names
