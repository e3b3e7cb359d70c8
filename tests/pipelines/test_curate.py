import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.errors import InputError
from pipelines import curate as job
from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate, find_sources, mark_duplicates
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
    assert pq.read_table(root / "rejects").column_names == [*identity, "stage", "kind", "reason", "detail"]
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


def test_a_killed_run_goes_on_at_the_shard_that_is_missing(videos, tmp_path, monkeypatch, made):
    config = CurateConfig((str(videos / "*.mp4"),), str(tmp_path), sources_per_shard=2)
    real, seen = job.curate_source, []

    def dies_at_tone(source, *rest):
        if source.endswith("tone.mp4"):
            raise KeyboardInterrupt
        return real(source, *rest)

    monkeypatch.setattr(job, "curate_source", dies_at_tone)
    with pytest.raises(BaseException):  # noqa: B017 - whatever Beam makes of an interrupt
        curate(config, HERE)

    def counts(source, *rest):
        seen.append(Path(source).name)
        return real(source, *rest)

    monkeypatch.setattr(job, "curate_source", counts)
    curate(config, HERE)
    assert "tone.mp4" in seen and "head.mp4" not in seen
    assert files(tmp_path) == files(made[0])


def test_other_sources_replace_the_old_shards(videos, tmp_path):
    curate(CurateConfig((str(videos / "t*.mp4"),), str(tmp_path), sources_per_shard=1), HERE)
    curate(CurateConfig((str(videos / "mute.mp4"),), str(tmp_path), sources_per_shard=1), HERE)
    rows = pq.read_table(tmp_path / "rejects").to_pylist()
    assert [row["reason"] for row in rows] == ["no_audio"] and len(list((tmp_path / "clips").iterdir())) == 1


def test_books_that_do_not_close_stop_the_job(videos, tmp_path, monkeypatch):
    from pipelines.stages.curation import SourceResult

    monkeypatch.setattr(job, "curate_source", lambda *_: SourceResult())
    with pytest.raises(Exception, match="books do not close"):
        curate(CurateConfig((str(videos / "mute.mp4"),), str(tmp_path)), HERE)


def test_inputs(videos, tmp_path):
    names = sorted(str(path) for path in videos.iterdir())
    assert find_sources([str(videos)]) == find_sources([str(videos / "*.mp4")]) == names
    listing = tmp_path / "list.txt"
    listing.write_text(f"# two\n{names[1]}\n\n{names[0]}\n{names[1]}\n")
    assert find_sources([str(listing)]) == names[:2]
    assert find_sources([names[3], str(listing)]) == [*names[:2], names[3]]
    for missing in (str(tmp_path / "*.mp4"), str(tmp_path / "none.txt"), str(tmp_path / "none.mp4")):
        with pytest.raises(InputError, match="--input"):
            find_sources([missing])


def test_a_listed_file_that_is_missing_is_a_failure_not_an_error(tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text(f"{tmp_path}/gone.mp4\n")
    summary = curate(CurateConfig((str(listing),), str(tmp_path / "out")), HERE)
    assert (summary["sources"], summary["failed"]) == (1, 1)


def test_duplicates_are_found_by_content(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "longer")):
        (tmp_path / name).write_text(text)
    marked = mark_duplicates([str(tmp_path / name) for name in "abcd"])
    assert [source.duplicate_of for source in marked] == [None, None, str(tmp_path / "a"), None]


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

    result = curate_source(str(real_clips / f"{name}.mp4"), Settings())
    whole = [row["reason"] for row in result.rejects if row["clip_id"] is None]
    assert whole == ([reason] if reason else []) and bool(result.clips) == (reason is None)
