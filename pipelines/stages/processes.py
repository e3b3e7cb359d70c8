"""Processes that read untrusted media: a session of their own, an empty environment, and limits that the kernel holds.

Nothing they need lies in a named temporary file: what they write to, or read from, is an anonymous file that the kernel
frees with its last user. So a killed worker leaves nothing behind.
"""

import contextlib
import errno
import math
import os
import re
import resource
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence

from pipelines.stages.limits import ChangingPicture, DecodeError, DecodeTimeout, Limits, MediaError, OutOfMemory

# What a process may write to a file: a clip is a few megabytes. (Pipes do not count.)
FILE_BYTES = 1 << 28
OPEN_FILES = 64
_CPU_SPARE = 5  # seconds
# ffmpeg's exit status is the negative number of the error; a thread that gets no stack is EAGAIN.
_STATUS_NO_MEMORY = (256 - errno.ENOMEM, 256 - errno.EAGAIN)
_CHANGED = r"Total changed input frames dropped : [1-9]"  # ffmpeg's last word about -drop_changed
_NO_MEMORY = ("Cannot allocate memory", "Out of memory", "std::bad_alloc")


def start(command: Sequence[str], limits: Limits, cpu_seconds: float | None = None, **options) -> subprocess.Popen:
    """Starts a program that reads untrusted bytes.

    It gets no environment unless ``env`` is given, its own session, and limits on address space, files, core dumps and,
    if given, processor time. They are set from outside, since code between fork and exec is not safe in a process with
    threads.
    """
    options = {"env": {}, "stdin": subprocess.DEVNULL, **options}
    process = subprocess.Popen(command, start_new_session=True, **options)
    wanted = {
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if cpu_seconds is not None:
        wanted[resource.RLIMIT_CPU] = math.ceil(cpu_seconds) + 1
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        for name, value in wanted.items():
            hard = resource.prlimit(process.pid, name)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # At its hard limit of processor time a process is killed in a way that does not say why.
            spare = _CPU_SPARE if name == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else 0
            resource.prlimit(process.pid, name, (value, value + spare))
    return process


def kill(process: subprocess.Popen) -> None:
    """Kills a process that `start` made, with all that it started, and waits for it."""
    _signal(process)
    process.wait()


def _signal(process: subprocess.Popen) -> None:
    if process.returncode is None:  # else its number may be another's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def read_pieces(
    command: Sequence[str], size: int, deadline: float, limits: Limits, pass_fds: Sequence[int] = ()
) -> Iterator[bytes]:
    """Runs a decoder and yields what it writes to its standard output in pieces of ``size`` bytes (the last may be
    shorter).

    Raises:
        DecodeTimeout: it ran for ``deadline`` seconds.
        OutOfMemory: it met its memory limit.
        ChangingPicture: it dropped pictures, as `-drop_changed` tells ffmpeg to.
        DecodeError: it ended with another error.
    """
    if deadline <= 0:
        raise DecodeTimeout("the source used up its time")
    expired = threading.Event()
    with tempfile.TemporaryFile() as errors:
        process = start(command, limits, deadline, stdout=subprocess.PIPE, stderr=errors, pass_fds=tuple(pass_fds))

        def stop() -> None:
            expired.set()
            _signal(process)

        timer = threading.Timer(deadline, stop)
        timer.daemon = True
        timer.start()
        finished = False
        try:
            while data := process.stdout.read(size):
                yield data
            finished = True
        finally:
            if finished:
                process.wait()
            timer.cancel()
            if not finished:
                kill(process)
            process.stdout.close()
        if expired.is_set():
            raise DecodeTimeout(f"the decoder did not finish in {deadline:.0f} s")
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
        message = errors.read().decode(errors="replace")
        if process.returncode != 0:
            raise ended_badly(process.returncode, message)
        if re.search(_CHANGED, message):
            raise ChangingPicture("the size or format of the picture changes in the middle")


def ended_badly(code: int, message: str) -> MediaError:
    """The error that says why a decoder ended with ``code`` (negative: the signal) and these last words."""
    if code == -signal.SIGXCPU:
        return DecodeTimeout("the decoder used up its processor time")
    if code in (*_STATUS_NO_MEMORY, -signal.SIGKILL) or any(words in message for words in _NO_MEMORY):
        return OutOfMemory("the decoder met its memory limit")
    lines = [line for line in message.strip().splitlines() if "[error]" in line or "[fatal]" in line]
    return DecodeError(f"ffmpeg ended with status {code}: {' | '.join(lines[-3:])[-600:]}")
