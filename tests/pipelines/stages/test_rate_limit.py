"""Turns that several holders of one file share."""

import subprocess
import sys

from pipelines.stages.rate_limit import RateLimit, limit_file


def test_holders_of_one_file_share_the_turns(tmp_path):
    path = str(tmp_path / "rate")
    first, second = (RateLimit(path, 60.0, lambda: 1000.0) for _ in range(2))
    assert [first.reserve(), second.reserve(), first.reserve()] == [1000.0, 1001.0, 1002.0]
    code = f"from pipelines.stages.rate_limit import RateLimit; print(RateLimit({path!r}, 60.0, lambda: 1e3).reserve())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == 1003.0


def test_a_turn_is_waited_for_and_a_pause_is_free(tmp_path):
    now, slept = [1000.0], []
    limit = RateLimit(str(tmp_path / "rate"), 30.0, lambda: now[0], slept.append)
    limit.wait()
    limit.wait()
    assert slept == [2.0]
    now[0] += 100
    limit.wait()
    assert slept == [2.0]
    limit.hold(9)
    limit.wait()
    assert slept == [2.0, 9.0]


def test_nonsense_and_a_clock_set_back_do_not_stop_the_turns(tmp_path):
    path = tmp_path / "rate"
    for text in ("what", "nan", "1e300"):
        path.write_text(text)
        assert RateLimit(str(path), 60.0, lambda: 50.0).reserve() == 50.0


def test_the_file_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    path = limit_file("gemini", "p", "m")
    assert path == limit_file("gemini", "p", "m") != limit_file("gemini", "p", "n")
    assert (tmp_path / path).parent.stat().st_mode & 0o777 == 0o700
