"""A thousand damaged files through the whole road of a source: none stops the job, each is accounted for."""

import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from pipelines.stages import limits, video
from pipelines.stages.curation import Settings, curate_source
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.media import ffmpeg, talking_head
from tests.pipelines.stages.mutations import mutated_files, small_files

FILES, SEED = 1000, 7
# No speech is asked for, so that what has any sound goes on to its pictures.
SETTINGS = Settings(thresholds=FilterThresholds(min_source_speech_seconds=0))
FILTERED = {"no_audio", "no_face", "no_frontal_face", "no_speech"}
FAILED = {name for name, kind in vars(limits).items() if isinstance(kind, type) and issubclass(kind, limits.MediaError)}


def outcome(path) -> tuple[str, str, str]:
    """The one row of a source without clips."""
    clips = []
    result = curate_source(str(path), SETTINGS, clips.append)
    rows = [row for row in result.rejects if row["clip_id"] is None]
    assert not clips and not result.clips and len(rows) == 1 and rows[0]["source"] == str(path)
    return rows[0]["stage"], rows[0]["kind"], rows[0]["reason"]


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> bytes:
    """A head that speaks just long enough; made before a test's own folder for temporary files is the one in use."""
    path = tmp_path_factory.mktemp("head") / "head.mp4"
    ffmpeg("-i", talking_head(), "-t", "2.5", "-c", "copy", path)
    return path.read_bytes()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_undamaged_files_reach_the_pictures(tmp_path):
    for path in small_files(tmp_path):
        assert outcome(path) == ("faces", "filtered", "no_face")


NAMES = (
    "two\nlines.mp4",
    "'single' \"double\" `back`.mp4",
    "-i.mp4",
    "%d %03d.mp4",
    "concat:a|b.mp4",
    "subfile,,start,0,end,9,,:x.mp4",
    "ünïcödé ✓.mp4",
    ";touch harm;.mp4",
    "$(touch harm).mp4",
    "file:..;http:,[0:v]null\\.mp4",
    "x" * 250 + ".mp4",
    os.fsdecode(b"not text \xff\xfe.mp4"),
)


def test_names_are_only_names(tmp_path, monkeypatch):
    """Nothing that a name spells is run, opened or written."""
    original = small_files(tmp_path)[0].read_bytes()
    folder = tmp_path / "named"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in NAMES:
        (folder / name).write_bytes(original)
    for name in NAMES:
        assert outcome(folder / name) == ("faces", "filtered", "no_face"), name
    assert sorted(os.listdir(folder)) == sorted(NAMES)
    assert all((folder / name).read_bytes() == original for name in NAMES)


@pytest.mark.slow
def test_damage_behind_the_header_is_accounted_for_too(head, tmp_path, scratch):
    """A speaking head whose packets are damaged goes as far as it can: a clip, or one row that says why not."""
    for seed in range(4):
        rng = np.random.default_rng([SEED, seed])
        damaged = bytearray(head)
        for at in rng.integers(len(head) // 10, len(head) * 9 // 10, 10 ** (seed + 1) // 4 + 1):
            damaged[at] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(damaged)
        clips = []
        result = curate_source(str(path), Settings(), clips.append)
        whole = [row for row in result.rejects if row["clip_id"] is None]
        assert len(clips) == result.clips and len(whole) == (0 if clips else 1)
        assert all(len(video.decode_clip(clip["video"])) == clip["num_frames"] for clip in clips)
        assert {row["reason"] for row in result.rejects if row["kind"] == "failed"} <= FAILED
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path, scratch):
    originals = small_files(tmp_path)
    (tmp_path / "damaged").mkdir()
    files = list(mutated_files(originals, tmp_path / "damaged", FILES, SEED))
    before = {path: path.read_bytes() for path in files}
    outcome(originals[0])  # what is loaded once is loaded
    process = psutil.Process()
    memory, descriptors = process.memory_info().rss, process.num_fds()
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(outcome, files))
    assert len(rows) == FILES
    counts = Counter(rows)
    kinds = {kind: sum(n for row, n in counts.items() if row[1] == kind) for kind in ("filtered", "failed")}
    assert sum(kinds.values()) == FILES
    # Many die at the header, many are read to the end: both halves of the road were travelled.
    assert kinds["failed"] > FILES / 5 and kinds["filtered"] > FILES / 5, counts
    assert {row[2] for row in rows if row[1] == "filtered"} <= FILTERED, counts
    assert {row[2] for row in rows if row[1] == "failed"} <= FAILED, counts
    assert process.memory_info().rss - memory < 300e6 and process.num_fds() <= descriptors + 4
    assert not any(child.status() != psutil.STATUS_ZOMBIE and "ffmpeg" in child.name() for child in process.children())
    assert list(scratch.iterdir()) == []
    assert all(path.read_bytes() == data for path, data in before.items())
    assert sorted(os.listdir(tmp_path)) == sorted(["damaged", "scratch", *(path.name for path in originals)])
