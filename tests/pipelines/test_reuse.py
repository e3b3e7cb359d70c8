"""What `archon curate` does again, and what it does not, when something changed. With sources that cost nothing."""

import os
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import curate as job
from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate
from pipelines.dataset import Dataset, update_manifest
from pipelines.duplicates import write_tables
from pipelines.failures import TooManyFailures
from pipelines.manifest import clips_mark
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.fake_sources import fake_curate, write_source
from tests.pipelines.test_curate import HERE, files


@pytest.fixture
def done(monkeypatch):
    """The sources that were worked on, in order."""
    seen = []

    def curate_source(source, *rest):
        seen.append(Path(source).name)
        return fake_curate(source, *rest)

    monkeypatch.setattr(job, "curate_source", curate_source)
    return seen


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, sizes in (("b", [100]), ("c", [60, 100, 20]), ("d", [40, 30]), ("f", [200]), ("g", [70, 70])):
        write_source(folder / name, sizes)
    write_source(folder / "e", wrong="mute")
    write_source(folder / "h", wrong="broken")
    return folder


def run(folder, root, **options):
    runner = RunnerOptions(
        "in-process", 1, **{k: options.pop(k) for k in ("max_failures", "retry_failed") if k in options}
    )
    return curate(CurateConfig((str(folder),), str(root), **{"sources_per_shard": 2, **options}), runner)


def fresh(folder, tmp_path, **options):
    """What a run from nothing makes."""
    root = tmp_path / f"fresh{len(list(tmp_path.iterdir()))}"
    run(folder, root, **options)
    return files(root)


def nothing_left(root):
    state = root / "_state/curate"
    assert sorted(p.name for p in state.iterdir()) == ["clips", "ledger.json", "plan.json", "sources.parquet"]
    assert not list(root.rglob("*.tmp-*"))


def test_a_new_source_is_the_only_one_that_is_decoded(folder, tmp_path, done):
    root = tmp_path / "out"
    run(folder, root)
    assert sorted(done) == list("bcdefgh")
    nothing_left(root)
    for name in ("a", "dd", "z"):
        write_source(folder / name, [80])
        done.clear()
        run(folder, root)
        assert done == [name]
        nothing_left(root)
        assert files(root) == fresh(folder, tmp_path)


def test_other_shards_and_removed_sources_decode_nothing(folder, tmp_path, done):
    root = tmp_path / "out"
    run(folder, root)
    done.clear()
    run(folder, root, sources_per_shard=3)
    os.remove(folder / "b")
    run(folder, root, sources_per_shard=1)
    assert done == []
    assert files(root) == fresh(folder, tmp_path, sources_per_shard=1)


def test_a_changed_file_is_decoded_again(folder, tmp_path, done):
    root = tmp_path / "out"
    run(folder, root)
    done.clear()
    write_source(folder / "c", [100, 100])
    run(folder, root)
    assert done == ["c"] and files(root) == fresh(folder, tmp_path)


@pytest.mark.parametrize(
    ("size", "again"),
    # c stores 60 and 100; d nothing, though it has 40 and 30.
    [(65, []), (150, []), (45, []), (35, ["d"]), (10, ["c", "d"])],
)
def test_other_thresholds_decide_on_stored_scores(folder, tmp_path, done, size, again):
    root = tmp_path / "out"
    run(folder, root)
    done.clear()
    limits = FilterThresholds(min_face_size=size)
    run(folder, root, thresholds=limits)
    assert sorted(done) == again
    nothing_left(root)
    assert files(root) == fresh(folder, tmp_path, thresholds=limits)
    # And back again: what was dropped in between has to be decoded, the rest not.
    done.clear()
    run(folder, root)
    assert set(done) <= {"b", "c", "f", "g"} and files(root) == fresh(folder, tmp_path)


def test_a_shaping_threshold_decodes_everything_again(folder, tmp_path, done):
    run(folder, tmp_path / "out")
    done.clear()
    run(folder, tmp_path / "out", thresholds=FilterThresholds(max_seconds=5))
    assert sorted(done) == list("bcdefgh")


def killed(monkeypatch, folder, root, at, **options):
    """A run that ends while it works on the source ``at``, after its first clip."""
    with monkeypatch.context() as patch:
        before = job.curate_source

        def dies(source, settings, keep, *rest):
            if Path(source).name == at:
                keep({"clip_id": "half"})
                raise KeyboardInterrupt
            return before(source, settings, keep, *rest)

        patch.setattr(job, "curate_source", dies)
        with pytest.raises(BaseException):  # noqa: B017 - whatever Beam makes of an interrupt
            run(folder, root, **options)


def test_a_kill_costs_one_source(folder, tmp_path, done, monkeypatch):
    root, options = tmp_path / "out", {"sources_per_shard": 4}
    killed(monkeypatch, folder, root, "e", **options)
    assert done == list("bcd") and not (root / "clips").exists()
    killed(monkeypatch, folder, root, "g", **options)
    assert done == list("bcdef")
    run(folder, root, **options)
    assert sorted(done) == list("bcdefgh")
    nothing_left(root)
    assert files(root) == fresh(folder, tmp_path, **options)


def test_a_kill_between_changes_costs_one_source(folder, tmp_path, done, monkeypatch):
    """Parts and shards of two layouts, the second unfinished, serve a third."""
    root = tmp_path / "out"
    run(folder, root)
    write_source(folder / "a", [80])
    write_source(folder / "z", [80])
    killed(monkeypatch, folder, root, "z")
    write_source(folder / "aa", [90, 90])
    done.clear()
    run(folder, root, sources_per_shard=5)
    assert sorted(done) == ["aa", "z"]
    nothing_left(root)
    assert files(root) == fresh(folder, tmp_path, sources_per_shard=5)


def test_a_lost_or_cut_shard_is_made_again(folder, tmp_path, done):
    root = tmp_path / "out"
    run(folder, root)
    before = files(root)
    done.clear()
    os.remove(root / "quality/quality-00000-of-00004.parquet")
    path = root / "clips/clips-00002-of-00004.array_record"
    path.write_bytes(path.read_bytes()[:100])
    run(folder, root)
    assert sorted(done) == list("bcfg") and files(root) == before


def test_damage_to_what_was_set_aside_costs_only_those_sources(folder, tmp_path, done):
    root = tmp_path / "out"
    run(folder, root)
    done.clear()
    path = root / "clips/clips-00000-of-00004.array_record"
    data = bytearray(path.read_bytes())
    data[:] = b"\0" * len(data)  # of the right size
    path.write_bytes(bytes(data))
    write_source(folder / "a", [80])
    run(folder, root)
    assert sorted(done) == ["a", "b", "c"] and files(root) == fresh(folder, tmp_path)


def test_failed_sources_are_retried_and_nothing_else(folder, tmp_path, done):
    root = tmp_path / "out"
    write_source(folder / "i", wrong="broken")
    first = run(folder, root)
    assert first["failed"] == 2
    before = files(root)
    done.clear()
    run(folder, root)
    assert done == []
    run(folder, root, retry_failed=True)
    assert sorted(done) == ["h", "i"] and files(root) == before
    nothing_left(root)


def test_a_retry_takes_what_now_succeeds(folder, tmp_path, done, monkeypatch):
    root = tmp_path / "out"
    run(folder, root)
    fake = job.curate_source

    def mended(source, settings, keep, *rest):
        if Path(source).name == "h":
            source = str(write_source(tmp_path / "h", [100]))
        return fake(source, settings, keep, *rest)

    monkeypatch.setattr(job, "curate_source", mended)
    summary = run(folder, root, retry_failed=True)
    assert (summary["failed"], summary["sources_with_clips"]) == (0, 5)


def test_failed_sources_of_an_unfinished_job_are_retried(folder, tmp_path, done, monkeypatch):
    root, options = tmp_path / "out", {"sources_per_shard": 9}
    write_source(folder / "c", wrong="broken")
    killed(monkeypatch, folder, root, "f", **options)
    assert done == list("bcde")
    done.clear()
    run(folder, root, retry_failed=True, **options)
    assert done == list("cfgh")
    nothing_left(root)
    assert files(root) == fresh(folder, tmp_path, **options)


def test_too_many_failures_stop_the_run_and_a_higher_limit_goes_on(folder, tmp_path, done):
    root = tmp_path / "out"
    for name in ("b", "c"):
        write_source(folder / name, wrong="broken")
    with pytest.raises(TooManyFailures, match=r"2 items failed.*allows 1(.|\n)*2 x probe: ValueError"):
        run(folder, root, max_failures=1)
    assert done == ["b", "c"]
    with pytest.raises(TooManyFailures):
        run(folder, root, max_failures=1)
    assert done == ["b", "c"]
    # The last source of all fails too: the books say it, at the end.
    with pytest.raises(TooManyFailures, match="3 sources failed"):
        run(folder, root, max_failures=2)
    assert sorted(done) == list("bcdefgh")
    run(folder, root, max_failures=0.5)
    assert sorted(done) == list("bcdefgh") and files(root) == fresh(folder, tmp_path)


def test_a_failure_is_in_the_tables_and_the_books(folder, tmp_path, done):
    from pipelines.dataset import Dataset

    root = tmp_path / "out"
    run(folder, root)
    books = Dataset(root).manifest()["books"]["curate"]
    assert books["items"] == 7 and books["kept"] == 4
    assert books["filtered"] == {"face_too_small": 1, "no_audio": 1}
    row = next(row for row in pq.read_table(root / "rejects").to_pylist() if row["kind"] == "failed")
    assert [(f["stage"], f["type"], f["traceback_hash"]) for f in books["failed"]] == [
        ("probe", "ValueError", row["traceback_hash"])
    ]
    assert "in fake_curate" in row["traceback"]
    sources = pq.read_table(root / "sources").to_pylist()
    assert [row["status"] for row in sources] == ["kept", "kept", "filtered", "filtered", "kept", "kept", "failed"]
    assert [row["clips"] for row in sources] == [1, 2, 0, 0, 1, 2, 0] and sources[1]["kept_seconds"] == 8


def test_a_name_that_is_no_text_is_accounted_for(folder, tmp_path):
    """And real files' worth of nonsense: not one is a video."""
    odd = os.fsencode(folder) + b"/\xff\xfe.mp4"
    with open(odd, "wb") as file:
        file.write(b"x")
    summary = curate(CurateConfig((str(folder),), str(tmp_path / "out")), HERE)
    assert summary["sources"] == summary["failed"] == 8


def test_the_table_of_duplicates_goes_when_the_clips_change(folder, tmp_path, done, capsys):
    root = tmp_path / "out"
    run(folder, root)

    def entered():
        return Dataset(root).manifest().get("duplicates")

    found = [asdict(info) for info in write_tables(str(root), [{"clip_id": "x"}])]
    made_from = clips_mark(Dataset(root).manifest())
    update_manifest(root, {}, duplicates={"made_from": made_from, "count": 1, "files": found})
    run(folder, root)
    assert entered() and len(list((root / "duplicates").iterdir())) == 1
    assert "removed" not in capsys.readouterr().out
    run(folder, root, thresholds=FilterThresholds(min_face_size=80.0))
    assert not entered() and not (root / "duplicates").exists()
    assert "table of duplicates was of other clips and is removed" in capsys.readouterr().out
    # One that nothing says it of, as of a run that was killed, is not trusted either.
    write_tables(str(root), [])
    run(folder, root, thresholds=FilterThresholds(min_face_size=80.0))
    assert not (root / "duplicates").exists()
