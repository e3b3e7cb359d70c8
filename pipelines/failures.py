"""Failures of items (a source, a clip) while a job runs: counted across workers; too many stop the job.

Workers share nothing but the dataset's folder, so all of this is small files below ``_state/<job>/``: a note for each
failed item, a flag that stops the job, a claim for each item that is being worked on (it tells which item killed a
worker), and a count of the deaths that an item has caused.

    failures = Failures(root, job, made_by, limit=...)       # picklable: a part of the step
    with failures.working_on(item):                          # raises TooManyFailures when the job is to stop
        try:
            ...
        except Exception as error:
            failures.note(item, describe_failure("stage", error))
"""

import hashlib
import json
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines import storage
from pipelines.state import safe_name, state_path

DEADLY = 2  # an item whose worker died this often in one run is given up
WORKER_DIED = "WorkerDied"
_STOP = "stop"
_PACKAGE = Path(__file__).resolve().parents[1]


class TooManyFailures(Exception):
    """More items failed than ``--max-failures`` allows."""


@dataclass(frozen=True)
class Failure:
    """Why an item failed. ``traceback_hash`` is the same for the same failure of another item."""

    stage: str
    type: str
    message: str
    traceback_hash: str
    traceback: str


def traceback_hash(error: BaseException) -> str:
    """16 hex digits over the type and the functions that the error came through, without line numbers or messages.

    Causes count too, and files are named from the folder that holds the package, so that the hash is the same on
    another machine and after an edit elsewhere in a file.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        parts.append(f"{type(current).__module__}.{type(current).__qualname__}")
        for frame in traceback.extract_tb(current.__traceback__):
            parts.append(f"{_relative(frame.filename)}:{frame.name}")
        current = current.__cause__
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _relative(filename: str) -> str:
    path = Path(filename)
    if path.is_relative_to(_PACKAGE):
        inside = path.relative_to(_PACKAGE).as_posix()
        if "site-packages/" not in inside:
            return inside
    for mark in ("site-packages", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        if mark in path.parts:
            return "/".join(path.parts[len(path.parts) - path.parts[::-1].index(mark) :])
    return path.name


def describe_failure(stage: str, error: BaseException, replace: Mapping[str, str] | None = None) -> Failure:
    """``replace``: texts that differ from run to run (a temporary name) and what to say instead.

    The same failure gives the same texts: addresses of objects and the folder of the package are left out.
    """

    def plain(text: str) -> str:
        for old, new in (replace or {}).items():
            text = text.replace(old, new)
        text = re.sub(r"\b0x[0-9a-f]{6,}", "0x...", text.replace(f"{_PACKAGE}{os.sep}", ""))
        return text.encode("utf-8", "backslashreplace").decode()

    text = "".join(traceback.format_exception(error))
    return Failure(stage, type(error).__name__, plain(str(error))[:500], traceback_hash(error), plain(text)[-8000:])


def worker_died(item: str) -> Failure:
    """What an item is told to have failed of that killed its worker: nothing could catch that."""
    text = f"the process that worked on {item} died {DEADLY} times (killed, out of memory, or a crash in a library)"
    digest = hashlib.sha256(WORKER_DIED.encode()).hexdigest()[:16]
    return Failure("worker", WORKER_DIED, text, digest, text)


@dataclass(frozen=True)
class Failures:
    """The failed items of one job, as all its workers see them.

    ``made_by`` is the fingerprint of what makes the items: notes of another making do not count. ``limit`` is the most
    items that may fail (None: any number); see ``failure_limit``. ``local``: workers are processes of this machine, so
    claims are kept to find which item killed one.
    """

    root: str
    job: str
    made_by: str
    limit: int | None = None
    local: bool = True

    def _path(self, *names: str) -> str:
        return state_path(self.root, self.job, *names)

    @property
    def folder(self) -> str:
        return self._path("failures", safe_name(self.made_by))

    def begin(self, retry: bool = False) -> None:
        """Called once by the driver before it starts workers. ``retry``: forget what failed before.

        Raises:
            TooManyFailures: there are already more than the limit.
        """
        storage.remove(storage.join(self.folder, _STOP))
        storage.remove_tree(self._path("claims"))
        storage.remove_tree(self._path("deaths"))
        if retry:
            storage.remove_tree(self.folder)
        self._stop_if_too_many()
        self.check()

    def end(self) -> None:
        """Called once by the driver when the job has ended well: the books hold what the notes said."""
        for name in ("failures", "claims", "deaths"):
            storage.remove_tree(self._path(name))

    def check(self) -> None:
        """Raises TooManyFailures if the job is to stop."""
        if self.limit is not None and storage.exists(storage.join(self.folder, _STOP)):
            raise TooManyFailures(self.describe())

    def note(self, item: str, failure: Failure) -> None:
        """Remembers that an item failed (once, however often it is noted) and stops the job if that is one too many."""
        note = json.dumps({"item": item, **asdict(failure)}, ensure_ascii=True)
        storage.write_bytes(storage.join(self.folder, f"{safe_name(item)}.failure"), note.encode())
        self._stop_if_too_many()

    def _stop_if_too_many(self) -> None:
        if self.limit is not None and len(self._names()) > self.limit:
            storage.write_bytes(storage.join(self.folder, _STOP), b"too many failures\n")

    def _names(self) -> list[str]:
        return [name for name in storage.list_names(self.folder) if name.endswith(".failure")]

    def noted(self) -> dict[str, Failure]:
        """Item -> why it failed."""
        out = {}
        for name in self._names():
            note = json.loads(storage.read_bytes(storage.join(self.folder, name)))
            item = note.pop("item")
            out[item] = Failure(**note)
        return out

    def describe(self) -> str:
        """How many failed, of what, and one message of each."""
        notes = self.noted()
        kinds = Counter((note.stage, note.type, note.traceback_hash) for note in notes.values())
        example = {(n.stage, n.type, n.traceback_hash): f"{item}: {n.message}" for item, n in sorted(notes.items())}
        lines = [f"  {count} x {s}: {t} [{h}], as {example[s, t, h]}" for (s, t, h), count in kinds.most_common()]
        most = "" if self.limit is None else f", and --max-failures allows {self.limit}"
        return "\n".join([f"{self.job}: {len(notes)} items failed{most}; what is finished is kept", *lines])

    # --- Which item killed a worker ---

    @contextmanager
    def working_on(self, item: str) -> Iterator[None]:
        """Says, while the block runs, that this process works on the item. TooManyFailures if the job is to stop."""
        self.check()
        if not self.local:
            yield
            return
        claim = self._path("claims", safe_name(item))
        storage.write_bytes(claim, json.dumps({"item": item, "pid": os.getpid()}).encode())
        try:
            yield
        finally:
            storage.remove(claim)

    def given_up(self, item: str) -> Failure | None:
        """The failure of an item that has killed its worker too often in this run, else None."""
        if self.local and storage.exists(self._path("deaths", f"{safe_name(item)}-{DEADLY}")):
            return worker_died(item)
        return None


def record_deaths(root: str, job: str) -> list[str]:
    """Counts a death for every item whose process is gone; returns those items. For the machine the workers ran on."""
    items = []
    for name in storage.list_names(state_path(root, job, "claims")):
        path = state_path(root, job, "claims", name)
        try:
            claim = json.loads(storage.read_bytes(path))
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # released, or half-written, just now
        if process_runs(claim["pid"]):
            continue
        known = set(storage.list_names(state_path(root, job, "deaths")))
        count = next(n for n in range(1, DEADLY + 1) if n == DEADLY or f"{name}-{n}" not in known)
        storage.write_bytes(state_path(root, job, "deaths", f"{name}-{count}"), claim["item"].encode())
        storage.remove(path)
        items.append(claim["item"])
    return items


def process_runs(pid: int) -> bool:
    """Whether a process lives; one that ended and was not waited for does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def failure_limit(max_failures: float | None, items: int) -> int | None:
    """``--max-failures`` as a number of items: below 1 it is a share of them."""
    if max_failures is None:
        return None
    return int(max_failures * items) if 0 < max_failures < 1 else int(max_failures)
