import dataclasses
import os
import struct
import subprocess
import sys
import time

import pytest

from pipelines.stages import probing, video
from pipelines.stages.limits import DecodeTimeout, Limits, MediaError, ProbeCrashed, TooLarge, TooLong, TooManyStreams
from tests.pipelines.media import PICTURE, ffmpeg, make_video


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("probing") / "sample.mp4")


@pytest.fixture
def prober():
    prober = probing.Prober()
    yield prober
    prober.close()


def helper(prober) -> subprocess.Popen:
    return prober._process


def test_one_helper_answers_for_every_source(sample, prober, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    assert prober.ask(str(sample), Limits())["width"] == 320
    first = helper(prober)
    with pytest.raises(MediaError):
        prober.ask(str(tmp_path / "text.mp4"), Limits())
    assert prober.ask(str(sample), Limits())["codec"] == "h264" and helper(prober) is first


def test_a_helper_that_dies_costs_one_source(sample, prober):
    prober.ask(str(sample), Limits())
    first = helper(prober)
    first.kill()
    # It may be found dead before the question or by it.
    try:
        prober.ask(str(sample), Limits())
    except ProbeCrashed as error:
        assert "-9" in str(error)
    assert prober.ask(str(sample), Limits())["width"] == 320 and helper(prober) is not first


def test_a_source_that_crashes_the_reader_is_named_so(sample, prober, monkeypatch):
    start = probing.processes.start

    def crashing(command, *arguments, **options):
        code = "import sys, os, signal; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGSEGV)"
        return start([sys.executable, "-c", code], *arguments, **options)

    monkeypatch.setattr(probing.processes, "start", crashing)
    with pytest.raises(ProbeCrashed, match="-11"):
        prober.ask(str(sample), Limits())
    monkeypatch.undo()
    assert prober.ask(str(sample), Limits())["width"] == 320


def test_a_reader_that_hangs_is_stopped(prober, tmp_path):
    os.mkfifo(tmp_path / "never.mp4")  # opening it waits for a writer
    with pytest.raises(DecodeTimeout):
        prober.ask(str(tmp_path / "never.mp4"), Limits(probe_seconds=1.5))


def test_the_helper_gets_no_more_memory_than_the_limit(prober, tmp_path):
    large = make_video(tmp_path / "large.mp4", "color=size=5120x4096:rate=30:duration=0.2", None)
    assert prober.ask(str(large), Limits())["width"] == 5120
    with pytest.raises(MediaError):  # the decoder calls it damage if it has no memory left
        prober.ask(str(large), Limits(memory_gigabytes=0.12))
    assert prober.ask(str(large), Limits())["width"] == 5120


def test_a_header_that_cannot_be_true(tmp_path):
    path = make_video(tmp_path / "lie.mkv", PICTURE, None)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration: a float64, in milliseconds
    for seconds, error in ((3600.0 * 5, "cannot be true"), (3600.0 * 7, "more than 6 h")):
        data[at : at + 8] = struct.pack(">d", seconds * 1000)
        path.write_bytes(data)
        with pytest.raises(TooLong, match=error):
            video.probe(str(path))


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(max_hours=1 / 3600), TooLong),
        (Limits(max_megapixels=0.05), TooLarge),
        (Limits(max_gigabytes=1e-5), TooLarge),
        (Limits(max_streams=1), TooManyStreams),
    ],
)
def test_each_limit_has_its_error(sample, limits, error):
    with pytest.raises(error):
        video.probe(str(sample), limits)


def test_oblong_pixels_count_as_they_are_shown(tmp_path):
    wide = make_video(tmp_path / "wide.mp4", "testsrc2=size=64x64:rate=30:duration=0.2", None, "-vf", "setsar=20")
    with pytest.raises(TooLarge, match="1280x64 is more than 0.05 megapixels"):
        video.probe(str(wide), Limits(max_megapixels=0.05))


def test_time_that_is_used_up(sample):
    info = dataclasses.replace(video.probe(str(sample)), started=0.0, limits=Limits(max_minutes=1e-9))
    with pytest.raises(DecodeTimeout):
        video.decode_audio(info)


def test_a_helper_ends_with_its_worker(sample):
    code = (
        "import os, sys\nfrom pipelines.stages import probing\nfrom pipelines.stages.limits import Limits\n"
        f"probing.PROBER.ask({str(sample)!r}, Limits())\n"
        "print(probing.PROBER._process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(out.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().split(")")[1].split()[0]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the helper outlives its worker")


@pytest.mark.parametrize(
    ("codec", "container", "order", "scan"),
    [
        (("libx264", "-flags", "+ilme+ildct"), "mp4", "tff", "interlaced"),
        (("mpeg2video", "-flags", "+ilme+ildct"), "ts", "bff", "interlaced"),
        (("mjpeg", "-field_order", "tt", "-pix_fmt", "yuvj420p"), "mov", "tff", "tff"),
        (("mjpeg", "-field_order", "bb", "-pix_fmt", "yuvj420p"), "mov", "bff", "bff"),
        (("libx264",), "mp4", "prog", "progressive"),
    ],
)
def test_which_field_is_first(codec, container, order, scan, tmp_path):
    path = tmp_path / f"fields.{container}"
    ffmpeg("-f", "lavfi", "-i", PICTURE, "-vf", f"setfield={order}", "-c:v", *codec, "-t", "0.4", path)
    assert video.probe(str(path)).scan == scan
