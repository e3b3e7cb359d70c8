"""Clips or their shards change: exactly the rows that are not there yet are made, and the bytes are a fresh run's."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import annotate as job
from pipelines import annotators, column_shard
from pipelines.annotate import annotate
from pipelines.annotators import AnnotateConfig, Backend
from pipelines.beam import RunnerOptions
from pipelines.dataset import COLUMN_FIELDS, Dataset, shard_name, update_manifest, write_shard
from pipelines.verify import verify
from tests.pipelines.painted import clip
from tests.pipelines.rows import producer

RUNNER = RunnerOptions("in-process", 1)
COLUMNS = ("image", "speech", "script")
BROKEN: set[str] = set()


def say(clip, columns, settings, backend):
    if clip["clip_id"] in BROKEN:
        raise ValueError(f"no words for {clip['clip_id']}")
    text = f"{clip['clip_id']} {columns['speech']['clip_id']} {backend}"
    return {"script": {**dict.fromkeys(COLUMN_FIELDS["script"], ""), "text": text, "words": "[]", "backend": backend}}


def with_script(monkeypatch, name: str = "spoken") -> None:
    spoken = Backend(name, say, requires=("speech",))
    items = [item if item.name != "script" else replace(item, backends=(spoken,)) for item in annotators.ANNOTATORS]
    for module in (annotators, job):
        monkeypatch.setattr(module, "ANNOTATORS", tuple(items))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [clip(index, folder) for index in range(6)]


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    BROKEN.clear()
    BROKEN.add("clip1")
    with_script(monkeypatch)


@pytest.fixture
def calls(monkeypatch):
    """label -> clips that were made since it was last cleared."""
    made: dict[str, list[str]] = {}
    inner = column_shard._make_rows

    def make(work, batch, readers, rows, function):
        made.setdefault(work.label, []).extend(str(readers["clips"][row]["clip_id"]) for row in batch)
        return inner(work, batch, readers, rows, function)

    monkeypatch.setattr(column_shard, "_make_rows", make)
    return made


def lay_out(root, *shards) -> str:
    """Puts clips into shards, as `archon curate` would: those of another layout are gone."""
    shutil.rmtree(Path(root, "clips"), ignore_errors=True)
    infos = [write_shard(root, shard_name("clips", k, len(shards)), part) for k, part in enumerate(shards)]
    update_manifest(root, {"clips": (infos, producer("clips"))})
    return str(root)


def run(root: str, **changes) -> dict:
    return annotate(AnnotateConfig(root, COLUMNS, (("speech", "energy"),)), replace(RUNNER, **changes))


def content(root: str) -> dict[str, bytes]:
    """Every file but the job's own notes; the manifest is compared without what says how long a run took."""
    files = [path for path in Path(root).rglob("*") if path.is_file() and "_state" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def fresh(folder, *shards) -> dict[str, bytes]:
    root = lay_out(folder, *shards)
    run(root)
    return content(root)


def test_one_more_source_costs_its_own_clips(tmp_path, records, calls):
    a, b, c, d, e, new = records
    root = lay_out(tmp_path / "grown", [a, b], [c, d], [e])
    run(root)
    calls.clear()
    run(lay_out(root, [a, b], [new, c], [d, e]))  # it sorts into the middle: every later shard has other clips
    assert calls == {name: ["clip5"] for name in COLUMNS}
    assert content(root) == fresh(tmp_path / "fresh", [a, b], [new, c], [d, e])
    assert verify(root)["ok"]
    assert not (Path(root) / "_state" / "annotate" / "kept").exists()


def test_unchanged_shards_are_not_touched(tmp_path, records, calls):
    root = lay_out(tmp_path, records[:2], records[2:4])
    run(root)
    before = {path: Path(path).stat().st_mtime_ns for path in Dataset(root).shards("speech")}
    calls.clear()
    run(lay_out(root, records[:2], records[2:5]))
    after = {path: Path(path).stat().st_mtime_ns for path in Dataset(root).shards("speech")}
    assert [path for path in after if after[path] == before[path]] == [str(Path(root, shard_name("speech", 0, 2)))]
    assert calls == {name: ["clip4"] for name in COLUMNS}


def test_another_layout_makes_nothing_and_leaves_nothing_of_the_old_one(tmp_path, records, calls, monkeypatch):
    root = lay_out(tmp_path / "cut", records[:2], records[2:4], records[4:])
    run(root)
    calls.clear()
    taken = Counter()
    inner = column_shard.take_whole

    def take(root, job, label, *rest):
        result = inner(root, job, label, *rest)
        taken[label] += result is not None
        return result

    monkeypatch.setattr(column_shard, "take_whole", take)
    run(lay_out(root, records[:2], records[2:5], records[5:], []))
    assert calls == {} and taken == {name: 1 for name in COLUMNS}  # a shard of the same clips is taken as it is
    assert content(root) == fresh(tmp_path / "fresh", records[:2], records[2:5], records[5:], [])
    failed = pq.read_table(Path(root, "failures", "script-00000-of-00004.parquet")).to_pylist()
    assert [(line["clip_id"], line["type"]) for line in failed] == [("clip1", "ValueError")]


def test_a_row_that_failed_moves_with_its_reason_and_is_made_again_on_demand(tmp_path, records, calls):
    root = lay_out(tmp_path / "moved", records[:3], records[3:])
    run(root)
    calls.clear()
    run(lay_out(root, records[:1], records[1:]))
    assert calls == {} and content(root) == fresh(tmp_path / "failed", records[:1], records[1:])
    calls.clear()
    BROKEN.clear()
    # Retried while the clips' shards are other ones too.
    run(lay_out(root, records), retry_failed=True)
    assert calls == {"script": ["clip1"]}
    assert content(root) == fresh(tmp_path / "good", records)


def test_a_retry_takes_no_failed_row_that_an_earlier_run_set_aside(tmp_path, records, calls, monkeypatch):
    root = lay_out(tmp_path / "stopped", records[:2], records[2:4])
    run(root)
    lay_out(root, records[2:4], records[:2])
    with monkeypatch.context() as patch:
        patch.setattr(column_shard, "take_whole", None)
        with pytest.raises(Exception, match="not callable"):
            run(root)
    BROKEN.clear()
    calls.clear()
    run(root, retry_failed=True)
    assert calls == {"script": ["clip1"]} and content(root) == fresh(tmp_path / "good", records[2:4], records[:2])


def test_a_marker_cannot_have_other_files_copied(tmp_path, records, calls):
    root = lay_out(tmp_path / "set", records[:2])
    run(root)
    (tmp_path / "secret").write_text("0123")
    path = Path(root, "_state", "annotate", "speech", "00000-of-00001.json")
    marker = json.loads(path.read_text())
    marker["files"].append({"path": "../secret", "count": 0, "size": 4, "sha256": "0" * 64})
    path.write_text(json.dumps(marker))
    calls.clear()
    run(lay_out(root, records[:1], records[1:2]))
    assert calls == {"speech": ["clip0", "clip1"]}  # nothing of that shard is trusted
    assert not [path for path in tmp_path.rglob("secret") if path.parent != tmp_path]


def test_another_producer_or_another_clip_makes_its_rows_again(tmp_path, records, calls, monkeypatch):
    root = lay_out(tmp_path / "changed", records[:2], records[2:4])
    run(root)
    calls.clear()
    with_script(monkeypatch, "said")
    other = {**records[3], "scores": json.dumps({"blur": 2.0})}
    run(lay_out(root, records[:1], [*records[1:3], other]))
    assert calls == {"image": ["clip3"], "speech": ["clip3"], "script": ["clip0", "clip1", "clip2", "clip3"]}
    assert content(root) == fresh(tmp_path / "fresh", records[:1], [*records[1:3], other])


def test_a_run_of_other_columns_leaves_what_was_set_aside(tmp_path, records, calls, monkeypatch):
    root = lay_out(tmp_path, records[:3])
    run(root)
    lay_out(root, records[:2], records[2:4])
    inner = column_shard._publish

    def fails(work, *rest):
        if work.label == "script":
            raise OSError("no space left on device")
        return inner(work, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(column_shard, "_publish", fails)
        with pytest.raises(Exception, match="no space left"):
            run(root)
    annotate(AnnotateConfig(root, ("image",)), RUNNER)
    calls.clear()
    run(root)
    # The shard of clip3 had not been reached; the rows of the others come from what the first of these runs set aside.
    assert calls == {"script": ["clip3"]} and len(Dataset(root).column("script")) == 4


def test_a_damaged_old_shard_is_made_again(tmp_path, records, calls):
    root = lay_out(tmp_path / "torn", records[:2], records[2:4])
    run(root)
    path = Path(Dataset(root).shards("speech")[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    calls.clear()
    run(lay_out(root, records[:1], records[1:4]))
    assert calls == {"speech": ["clip2", "clip3"]}
    assert content(root) == fresh(tmp_path / "fresh", records[:1], records[1:4])


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.slow
def test_killed_anywhere_between_two_layouts_it_ends_with_the_same(tmp_path, records, calls, monkeypatch):
    """A write is the last one of a run, for every fifth write of a run between two layouts."""
    from pipelines import storage

    old, new = (records[:2], records[2:4]), (records[:1], records[1:3], records[3:])
    whole = fresh(tmp_path / "fresh", *new)
    start = lay_out(tmp_path / "start", *old)
    run(start)
    publish, link = storage.publish, storage.copy
    ends = 0
    for last in range(0, 200, 5):
        root = str(tmp_path / f"killed-{last}")
        shutil.copytree(start, root)
        lay_out(root, *new)
        left = [last]

        def counted(inner, left):
            def write(*arguments):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return inner(*arguments)

            return write

        with monkeypatch.context() as patch:
            patch.setattr(storage, "publish", counted(publish, left))
            patch.setattr(storage, "copy", counted(link, left))
            try:
                run(root)
            except BaseException as error:
                assert "Killed" in repr(error)
                ends += 1
            else:
                break
        calls.clear()
        run(root)
        assert content(root) == whole, last
        made = {name: set(clips) for name, clips in calls.items()}
        assert all(clips <= {"clip4", "clip5"} for clips in made.values()), (last, made)
        shutil.rmtree(root)
    assert ends >= 5
