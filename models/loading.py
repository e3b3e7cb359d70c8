"""Models that are loaded once a process, whatever number of threads ask for them."""

import functools
import threading
from collections.abc import Callable


def load_once(maxsize: int = 1) -> Callable[[Callable], Callable]:
    """A ``functools.lru_cache`` with a lock: of several threads that ask at once, one loads and the others wait.

    (``lru_cache`` alone lets each of them load, and keeps one of the copies.) The function that comes back also has
    ``cache_clear``.
    """

    def decorate(function: Callable) -> Callable:
        cached, lock = functools.lru_cache(maxsize)(function), threading.RLock()

        @functools.wraps(function)
        def load(*args, **kwargs):
            with lock:
                return cached(*args, **kwargs)

        load.cache_clear = cached.cache_clear
        return load

    return decorate
