import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.errors import InputError
from pipelines import curate as job
from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate, shard_size
from pipelines.dataset import Dataset
from pipelines.stages.filters import LABELS, SCORES
from tests.pipelines.media import make_video, talking_head

HERE = RunnerOptions("in-process", 1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "head.mp4").write_bytes(talking_head().read_bytes())
    (folder / "twin.mp4").write_bytes(talking_head().read_bytes())
    (folder / "text.mp4").write_text("a text file")
    make_video(folder / "mute.mp4", sound=None)
    make_video(folder / "tone.mp4")
    return folder


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    return root, curate(CurateConfig((str(videos / "*.mp4"),), str(root), sources_per_shard=2), HERE)


def files(root, *, state=False):
    """Name -> bytes of everything in a dataset but the markers, which hold times."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file() and (state or "_state" not in path.parts)
    }


def test_the_books_close(made):
    root, summary = made
    rejects = pq.read_table(root / "rejects").to_pylist()
    assert summary["sources"] == 5 and summary["clips"] == 1
    assert (summary["filtered"], summary["failed"], summary["sources_with_clips"]) == (3, 1, 1)
    whole = {Path(row["source"]).name: (row["kind"], row["reason"]) for row in rejects if row["clip_id"] is None}
    assert whole == {
        "text.mp4": ("failed", "UnreadableVideo"),
        "mute.mp4": ("filtered", "no_audio"),
        "tone.mp4": ("filtered", "no_speech"),
        "twin.mp4": ("filtered", "duplicate"),
    }
    json.dumps(summary)


def test_tables_keep_their_columns(made):
    root, _ = made
    identity = ["source", "clip_id", "start_frame", "end_frame"]
    reject = ["stage", "kind", "reason", "detail", "traceback_hash", "traceback"]
    assert pq.read_table(root / "rejects").column_names == [*identity, *reject]
    assert pq.read_table(root / "quality").column_names == [*identity, *SCORES, *LABELS, "flags", "kept"]


def test_the_dataset_reads_back(made, videos):
    root, summary = made
    dataset = Dataset(root)
    clips = list(dataset.column("clips"))
    assert len(clips) == 1 and clips[0]["source"] == str(videos / "head.mp4")
    assert len(dataset.shards("clips")) == 3  # five sources, two a shard
    producer = dataset.manifest()["columns"]["clips"]["producer"]
    assert producer["backend"] == summary["backend"] == "dlib" and producer["thresholds"]["min_seconds"] == 2
    quality = pq.read_table(root / "quality").to_pylist()
    assert [row["clip_id"] for row in quality if row["kept"]] == [clips[0]["clip_id"]]


def test_two_runs_give_the_same_bytes(made, videos, tmp_path):
    root, _ = made
    curate(CurateConfig((str(videos / "*.mp4"),), str(tmp_path), sources_per_shard=2), HERE)
    assert files(tmp_path) == files(root)


def test_a_finished_run_does_nothing_again(made, videos, monkeypatch):
    root, first = made
    before = files(root, state=True)
    monkeypatch.setattr(job, "curate_source", lambda *_: pytest.fail("done twice"))
    again = curate(CurateConfig((str(videos / "*.mp4"),), str(root), sources_per_shard=2), HERE)
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}
    assert files(root, state=True) == before


def test_other_sources_replace_the_old_shards(videos, tmp_path):
    curate(CurateConfig((str(videos / "t*.mp4"),), str(tmp_path), sources_per_shard=1), HERE)
    curate(CurateConfig((str(videos / "mute.mp4"),), str(tmp_path), sources_per_shard=1), HERE)
    rows = pq.read_table(tmp_path / "rejects").to_pylist()
    assert [row["reason"] for row in rows] == ["no_audio"] and len(list((tmp_path / "clips").iterdir())) == 1


def test_books_that_do_not_close_stop_the_job(videos, tmp_path, monkeypatch):
    from pipelines.stages.curation import SourceResult

    monkeypatch.setattr(job, "curate_source", lambda *_: SourceResult(clips=1))
    with pytest.raises(Exception, match="books do not close"):
        curate(CurateConfig((str(videos / "mute.mp4"),), str(tmp_path)), HERE)


def test_a_listed_file_that_is_missing_is_a_failure_not_an_error(tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text(f"{tmp_path}/gone.mp4\n")
    summary = curate(CurateConfig((str(listing),), str(tmp_path / "out")), HERE)
    assert (summary["sources"], summary["failed"]) == (1, 1)


def test_the_default_shard_depends_on_the_sources_alone():
    assert [shard_size(count) for count in (1, 19, 64, 65, 200, 10_000)] == [1, 1, 1, 2, 4, 4]


def test_bad_settings(tmp_path, videos):
    with pytest.raises(InputError, match="sources-per-shard"):
        curate(CurateConfig((str(videos),), str(tmp_path), sources_per_shard=0), HERE)
    with pytest.raises(InputError, match="landmark-weights"):
        curate(CurateConfig((str(videos),), str(tmp_path), landmarks="mediapipe"), HERE)


@pytest.mark.slow
def test_two_workers_make_what_one_makes(made, videos, tmp_path):
    config = CurateConfig((str(videos / "*.mp4"),), str(tmp_path), sources_per_shard=2)
    curate(config, RunnerOptions("multi-process", 2))
    assert files(tmp_path) == files(made[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sadtalker_wda_hill", None),
        ("talkvid_talk_emotion", None),
        ("speakervid_half3", None),
        ("speakervid_dialogue2_1", None),
        ("speakervid_side3", "no_frontal_face"),
        ("datajuicer_video4", "several_faces"),
        ("liveportrait_d3", "no_speech"),
        ("liveportrait_d13", "no_audio"),
    ],
)
def test_real_clips(real_clips, name, reason):
    from pipelines.stages.curation import Settings, curate_source

    result = curate_source(str(real_clips / f"{name}.mp4"), Settings(), lambda record: None)
    whole = [row["reason"] for row in result.rejects if row["clip_id"] is None]
    assert whole == ([reason] if reason else []) and bool(result.clips) == (reason is None)
