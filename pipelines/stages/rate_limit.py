"""A rate that all processes of a machine keep together: turns are handed out through one small locked file."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from models.errors import InputError

# A turn further ahead than this was left by a clock that has since been set back.
_HORIZON_SECONDS = 3600.0


def limit_file(*names: str) -> str:
    """Returns the file of this user and machine in which the turns of what ``names`` name are kept."""
    folder = os.path.join(tempfile.gettempdir(), f"archon-rates-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder, follow_symlinks=False).st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    return os.path.join(folder, hashlib.sha256("\0".join(names).encode()).hexdigest()[:16])


@dataclass(frozen=True)
class RateLimit:
    """Turns at least ``60 / per_minute`` seconds apart, for everybody who uses the same file.

    ``clock`` gives seconds since the epoch, the same for all processes; ``sleep`` waits.
    """

    path: str
    per_minute: float
    clock: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def reserve(self) -> float:
        """Takes the next free turn and returns its time, which may be now."""
        return self._change(lambda free, now: (max(free, now), max(free, now) + 60 / self.per_minute))

    def wait(self) -> None:
        """Takes the next free turn and waits for it."""
        left = self.reserve() - self.clock()
        if left > 0:
            self.sleep(left)

    def hold(self, seconds: float) -> None:
        """Nobody gets a turn for that long: what a service asks for when it is overrun."""
        self._change(lambda free, now: (free, max(free, now + min(seconds, _HORIZON_SECONDS))))

    def _change(self, change: Callable[[float, float], tuple[float, float]]) -> float:
        import fcntl

        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            now = self.clock()
            try:
                free = float(file.read() or 0)
            except ValueError:
                free = 0.0
            if not free <= now + _HORIZON_SECONDS:
                free = now
            answer, free = change(free, now)
            file.seek(0)
            file.truncate()
            file.write(repr(free))
        return answer
