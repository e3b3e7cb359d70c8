"""Multi-process runs that survive the death of a worker.

Beam's local runner waits for ever for a worker process that was killed (out of memory, a crash in a library). So the
pipeline runs in a process of its own, an attempt. When one of its workers dies, the attempt notes which items that
worker had claimed and ends; the driver starts another attempt on what is left. An item that killed its worker twice is
given up by its step as failed (see ``Failures.given_up``), so one poisonous file cannot stop a job. All processes of an
attempt die with the driver.
"""

import ctypes
import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass

from models.errors import InputError
from pipelines.beam import RunnerOptions, ShardTask, Step, read_marker, run_pipeline
from pipelines.failures import DEADLY, process_runs, record_deaths
from pipelines.local_runner import one_thread_a_worker
from pipelines.scratch import scratch

_DIED = 70  # exit status of an attempt whose worker died
_UNEXPLAINED = 3  # attempts that may end with a dead worker which had claimed nothing


class WorkerDied(RuntimeError):
    """Workers died again and again, and no item can be named that killed them."""


@dataclass(frozen=True)
class Work:
    """What an attempt is to do; picklable. ``driver``: the process to die with."""

    job: str
    root: str
    steps: tuple[Step, ...]
    tasks: tuple[ShardTask, ...]
    options: RunnerOptions
    driver: int = 0

    def left(self) -> bool:
        return any(read_marker(self.root, self.job, s, t) is None for s in self.steps for t in self.tasks)


def run_supervised(work: Work) -> None:
    """Runs attempts until the work is done.

    Raises:
        WorkerDied: workers die without a claimed item to blame, or an item that was given up kills on.
        RuntimeError: what a step raised, as Beam tells it (InputError if it was one).
    """
    work = Work(work.job, work.root, work.steps, work.tasks, work.options, os.getpid())
    deaths: Counter = Counter()
    while True:
        status, error = _attempt(work)
        if error is not None:
            raise (InputError if error["type"] == "InputError" else RuntimeError)(error["text"])
        if status == 0 or not work.left():
            return
        # The attempt names the items of a dead worker; if it died itself, its claims are still there.
        items = [*record_deaths(work.root, work.job), *_told(work)]
        deaths.update(items or [""])
        for item in items:
            print(f"{work.job}: a worker process died on {item}; going on with what is left", flush=True)
        if not items:
            print(f"{work.job}: a worker process died ({_cause(status)}); starting again on what is left", flush=True)
        if deaths[""] >= _UNEXPLAINED or any(count > DEADLY for item, count in deaths.items() if item):
            raise WorkerDied(
                f"{work.job}: worker processes died {deaths.total()} times ({_cause(status)}); most often that is too "
                "little memory for so many workers: try --workers 1. What is finished is kept"
            )


def _cause(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else "killed, out of memory, or a crash in a library"


def _told(work: Work) -> list[str]:
    with scratch(work.root, work.job) as folder:
        path = os.path.join(folder, "died.json")
        if not os.path.exists(path):
            return []
        with open(path) as file:
            items = json.load(file)
        os.remove(path)
        return items


def _attempt(work: Work) -> tuple[int, dict | None]:
    """Runs one attempt: its exit status, and the error that it tells of, if any."""
    receive, send = os.pipe()
    command = [sys.executable, "-c", f"from pipelines.attempts import main; main({send})"]
    # A session of its own: its workers can be ended with it.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=(send,), start_new_session=True, env=_environment()
    )
    os.close(send)
    try:
        try:
            process.stdin.write(pickle.dumps(work))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died; its status tells
        status = process.wait()
        _end_session(process.pid)
        with os.fdopen(receive, closefd=False) as pipe:
            text = pipe.read()
        return status, json.loads(text) if text else None
    finally:
        _end_session(process.pid)
        process.wait()
        os.close(receive)


def _environment() -> dict[str, str]:
    """The processes of an attempt find the same modules as this one, and use one core each."""
    path = [os.getcwd() if not entry else entry for entry in sys.path]
    return {**one_thread_a_worker(), "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def _end_session(leader: int) -> None:
    """Kills what is left of an attempt's processes and waits until they are gone."""
    for _ in range(200):
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.01)


# --- In the attempt's process, and in its workers ---


@functools.lru_cache(maxsize=8)
def die_with(pid: int, group: bool = False) -> None:
    """From now on this process ends when process ``pid`` does, however that ends.

    ``group``: and its process group with it. A worker that is still starting has not called this yet, and Beam's code
    in it would wait for ever for a runner that is gone.
    """
    if sys.platform == "linux" and not group:
        # The kernel does it at once if that process is our parent; the thread below covers what is not.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def watch() -> None:
        while process_runs(pid):
            time.sleep(0.2)
        if group:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(send: int) -> None:
    """Runs the work that standard input tells; writes an error to the pipe ``send``."""
    work: Work = pickle.loads(sys.stdin.buffer.read())
    die_with(work.driver, group=True)

    def thread_failed(args) -> None:
        # The thread that waits for a worker process raises if that did not end by itself.
        if "Worker subprocess exited" in str(args.exc_value):
            _worker_died(work)
        threading.__excepthook__(args)

    threading.excepthook = thread_failed
    try:
        with scratch(work.root, work.job):
            run_pipeline(work.job, work.root, work.steps, work.tasks, work.options)
    except BaseException as error:
        with os.fdopen(send, "w") as pipe:
            json.dump({"type": type(error).__name__, "text": str(error)}, pipe)
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.flush()
    # Beam's threads would be waited for; there is nothing left to do.
    os._exit(0)


def _worker_died(work: Work) -> None:
    items = record_deaths(work.root, work.job)
    with scratch(work.root, work.job) as folder, open(os.path.join(folder, "died.json"), "w") as file:
        json.dump(items, file)
    os._exit(_DIED)
