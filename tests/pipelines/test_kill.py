"""`archon curate` killed at random moments, driver or worker, and started again: nothing lost, nothing done twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.failures import process_runs
from tests.pipelines.media import ffmpeg, make_video, talking_head
from tests.pipelines.test_curate import files

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
LOOKS = ("eq=brightness=0.04", "eq=contrast=0.92", "hflip")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three heads of other content each, and three files that give no clip."""
    folder = tmp_path_factory.mktemp("videos")
    for index, look in enumerate(LOOKS):
        command = ("-i", talking_head(), "-t", "2.5", "-vf", look, "-c:v", "libx264", "-preset", "ultrafast")
        ffmpeg(*command, "-c:a", "copy", folder / f"head{index}.mp4")
    (folder / "text.mp4").write_text("a text file")
    make_video(folder / "mute.mp4", sound=None)
    make_video(folder / "tone.mp4")
    return folder


def start(videos, root) -> subprocess.Popen:
    command = [sys.executable, "-m", "infra.cli", "curate", "--input", str(videos), "--output", str(root)]
    options = ["--runner", "multi-process", "--workers", "2", "--sources-per-shard", "2"]
    return subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(root) -> dict[str, tuple[int, int]]:
    """Parts and markers: file -> what changes when it is written again."""
    state = Path(root, "_state/curate")
    paths = [*state.glob("parts/clips/*/*"), *state.glob("clips/*.json")]
    out = {}
    for path in paths:
        if ".tmp-" not in path.name:
            status = path.stat()
            out[str(path.relative_to(state))] = (status.st_ino, status.st_mtime_ns)
    return out


def check_nothing_was_done_twice(before, after):
    for name, stamp in before.items():
        if name in after:
            assert after[name] == stamp, f"{name} was made twice"
        else:
            shard = Path(name).parts[2]
            assert f"clips/{shard}.json" in after, f"{name} is lost"


def kill_driver(process) -> None:
    """Kills the driver; whatever it had started has to go with it."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(process_runs(child.pid) and "ffmpeg" not in _name(child) for child in family):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)


def _name(process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "ffmpeg"


def workers(process) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "sdk_worker_main" in " ".join(child.cmdline()) and child.name() != "sh":
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def check_the_end(root, expected):
    assert files(root) == expected
    state = Path(root, "_state/curate")
    assert sorted(path.name for path in state.iterdir()) == ["clips", "ledger.json", "plan.json", "sources.parquet"]
    assert not list(Path(root).rglob("*.tmp-*"))


@pytest.mark.slow
def test_killed_at_twenty_random_moments(videos, tmp_path):
    reference, root = tmp_path / "reference", tmp_path / "killed"
    begun = time.monotonic()
    assert start(videos, reference).wait() == 0
    length = time.monotonic() - begun
    expected = files(reference)
    check_the_end(reference, expected)

    moments, kills, ended, died = random.Random(0), 0, 0, {"driver": 0, "worker": 0}
    before: dict = {}
    process, spared, begun = start(videos, root), True, time.monotonic()
    while kills < KILLS:
        delay = moments.uniform(0.1, 0.7) * length
        victim = moments.choice(["driver", "worker"])
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            there = workers(process)
            kills += 1
            # Two kills of a worker over one source, in one run, are taken for the source's fault.
            if victim == "worker" and there and spared:
                os.kill(moments.choice(there).pid, signal.SIGKILL)
                died["worker"], spared = died["worker"] + 1, False
                continue
            kill_driver(process)
            died["driver"] += 1
        else:
            assert process.returncode == 0
            # The first run compiled what the others load, so moments in its length may lie behind their end.
            if not before:
                length = min(length, time.monotonic() - begun)
            check_the_end(root, expected)
            shutil.rmtree(root)
            before, ended = {}, ended + 1
        if root.exists():
            after = finished(root)
            check_nothing_was_done_twice(before, after)
            before = after
        process, spared, begun = start(videos, root), True, time.monotonic()
    assert process.wait() == 0
    check_nothing_was_done_twice(before, finished(root))
    check_the_end(root, expected)
    assert min(died.values()) >= 3, died


@pytest.mark.slow
def test_workers_that_are_still_starting_go_with_their_driver(videos, tmp_path):
    process = start(videos, tmp_path)
    while not workers(process):
        assert process.poll() is None
        time.sleep(0.05)
    kill_driver(process)
