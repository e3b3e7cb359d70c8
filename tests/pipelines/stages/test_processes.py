import os
import sys

import pytest

from pipelines.stages import processes
from pipelines.stages.limits import DecodeError, DecodeTimeout, Limits, OutOfMemory

SMALL = Limits(memory_gigabytes=0.5)


def run(code: str, deadline: float = 60, limits: Limits = SMALL) -> bytes:
    return b"".join(processes.read_pieces([sys.executable, "-S", "-c", code], 100, deadline, limits))


def test_output_comes_in_pieces():
    code = "print('x' * 249)"
    pieces = list(processes.read_pieces([sys.executable, "-S", "-c", code], 100, 60, SMALL))
    assert [len(piece) for piece in pieces] == [100, 100, 50]


def test_a_process_knows_nothing_of_the_environment_and_leads_its_own_session(monkeypatch):
    monkeypatch.setenv("SECRET", "value")
    environment, session = run("import os; print(dict(os.environ).keys() - {'LC_CTYPE'}, os.getsid(0))").split(b") ")[
        0:2
    ]
    assert b"SECRET" not in environment and int(session) != os.getsid(0)


def test_memory_files_and_processor_time_are_limited(tmp_path):
    # The limits are set a moment after the start.
    wait = "import time, resource as r\nwhile r.getrlimit(r.RLIMIT_CORE)[1]: time.sleep(0.01)\n"
    names = "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU"
    out = run(wait + f"print([r.getrlimit(getattr(r, n))[0] for n in {names}])", deadline=50)
    assert eval(out) == [SMALL.memory, processes.FILE_BYTES, processes.OPEN_FILES, 51]
    with pytest.raises(OutOfMemory):
        run(wait + "import sys\ntry: bytearray(1 << 30)\nexcept MemoryError: sys.exit(244)")
    with pytest.raises(DecodeError):
        run(wait + f"open({str(tmp_path / 'large')!r}, 'wb').truncate({processes.FILE_BYTES + 1})")


def test_a_process_that_only_computes_runs_out_of_processor_time():
    process = processes.start([sys.executable, "-S", "-c", "while True: pass"], SMALL, cpu_seconds=0)
    code = process.wait(60)
    assert isinstance(processes.ended_badly(code, ""), DecodeTimeout)


def test_a_deadline_kills_the_process_and_its_children():
    code = "import os, sys, time\nif os.fork(): print(os.getpid(), flush=True)\ntime.sleep(600)"
    with pytest.raises(DecodeTimeout):
        for line in processes.read_pieces([sys.executable, "-S", "-c", code], 3, 1.5, SMALL):
            assert line
    # Both held the pipe: that reading ended says that both are gone.


def test_a_reader_that_stops_kills_the_process():
    pieces = processes.read_pieces(
        [sys.executable, "-S", "-c", "import os\nprint(os.getpid())\nwhile True: print()"], 8, 60, SMALL
    )
    pid = int(next(pieces).split()[0])
    pieces.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_time_left_starts_nothing():
    with pytest.raises(DecodeTimeout):
        next(processes.read_pieces(["/nonexistent"], 1, 0, SMALL))
