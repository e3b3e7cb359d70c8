import os
import subprocess
import sys

import pytest

from pipelines import failures as module
from pipelines.failures import (
    DEADLY,
    Failures,
    TooManyFailures,
    describe_failure,
    failure_limit,
    record_deaths,
    traceback_hash,
)


def caught(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error


def divide(n):
    return n / 0


def through(n):
    return divide(n)


def chained(n):
    try:
        divide(n)
    except ZeroDivisionError as error:
        raise ValueError(str(n)) from error


def test_the_hash_groups_the_same_failure():
    first, second = caught(divide, 1), caught(divide, 2)
    assert traceback_hash(first) == traceback_hash(second) and len(traceback_hash(first)) == 16
    assert traceback_hash(caught(int, "x")) == traceback_hash(caught(int, "another message"))
    others = {traceback_hash(caught(f, 1)) for f in (divide, through, chained)}
    assert len(others) == 3


def test_the_hash_does_not_depend_on_lines_or_the_folder(tmp_path):
    found = set()
    for folder, blank in (("a", ""), ("b", "\n\n\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "odd.py").write_text(f"{blank}def f():\n    raise KeyError('x')\n")
        space = {}
        exec(compile((tmp_path / folder / "odd.py").read_text(), str(tmp_path / folder / "odd.py"), "exec"), space)
        found.add(traceback_hash(caught(space["f"])))
    assert len(found) == 1


def test_a_failure_says_stage_type_and_where():
    failure = describe_failure("crop", caught(chained, 3))
    assert (failure.stage, failure.type, failure.message) == ("crop", "ValueError", "3")
    assert "ZeroDivisionError" in failure.traceback and "in divide" in failure.traceback
    assert str(module._PACKAGE) not in failure.traceback


def test_a_job_stops_after_too_many(tmp_path):
    failures = Failures(str(tmp_path), "job", "print", limit=1)
    failures.begin()
    failure = describe_failure("crop", caught(divide, 1))
    failures.note("a", failure)
    failures.note("a", failure)
    failures.check()
    failures.note("b", failure)
    with pytest.raises(TooManyFailures, match=r"2 items failed.*allows 1(.|\n)*2 x crop: ZeroDivisionError"):
        failures.check()
    with pytest.raises(TooManyFailures), failures.working_on("c"):
        pytest.fail("begun")
    # Another process started with the same limit stops at once, one with a higher limit goes on.
    with pytest.raises(TooManyFailures):
        failures.begin()
    more = Failures(str(tmp_path), "job", "print", limit=2)
    more.begin()
    assert set(more.noted()) == {"a", "b"} and more.noted()["a"] == failure
    # Notes of another making do not count, and a retry forgets.
    Failures(str(tmp_path), "job", "other", limit=0).begin()
    failures.begin(retry=True)
    assert failures.noted() == {}
    failures.end()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_limits():
    assert failure_limit(None, 100) is None and failure_limit(3, 100) == 3 and failure_limit(0, 100) == 0
    assert failure_limit(0.05, 100) == 5 and failure_limit(0.05, 10) == 0 and failure_limit(1, 10) == 1


def test_an_item_that_kills_its_worker_is_found_and_given_up(tmp_path):
    failures = Failures(str(tmp_path), "job", "print")
    failures.begin()
    code = (
        "import os, signal\n"
        "from pipelines.failures import Failures\n"
        f"f = Failures({str(tmp_path)!r}, 'job', 'print')\n"
        "with f.working_on('fine'):\n"
        "    pass\n"
        "with f.working_on('poison'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for death in range(1, DEADLY + 1):
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
        assert failures.given_up("poison") is None
        with failures.working_on("alive"):
            assert record_deaths(str(tmp_path), "job") == ["poison"], death
    assert failures.given_up("poison").type == "WorkerDied"
    assert failures.given_up("alive") is None and failures.given_up("fine") is None
    # The next run gives it another chance.
    failures.begin()
    assert failures.given_up("poison") is None and os.listdir(tmp_path / "_state/job") == []
