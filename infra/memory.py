"""How much memory a piece of work takes: this process and every process it starts, together."""

import threading
from types import TracebackType


class PeakMemory:
    """Samples, while it is entered, the resident memory of this process and of all below it.

    ``gib`` is the largest sum seen. Pages that processes share count once for each, so it is an upper bound.
    """

    def __init__(self, every: float = 0.5):
        self.every, self.gib = every, 0.0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._sample()
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop.set()
        self.thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self.stop.wait(self.every):
            self._sample()

    def _sample(self) -> None:
        self.gib = max(self.gib, resident_gib())


def resident_gib() -> float:
    """Resident memory of this process and of all below it now, in GiB."""
    import psutil

    total, own = 0, psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return total / 2**30
