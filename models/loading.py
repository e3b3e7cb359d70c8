"""Models that are loaded once: a process, whatever number of threads ask for them, or a thread, where two threads must
not use one at the same time.
"""

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


def load_per_thread(maxsize: int = 1) -> Callable[[Callable], Callable]:
    """A ``functools.lru_cache`` for each thread: for objects that change while they are used.

    The function that comes back also has ``cache_clear``, which forgets what this thread has loaded.
    """

    def decorate(function: Callable) -> Callable:
        local = threading.local()

        def cached() -> Callable:
            if not hasattr(local, "cached"):
                local.cached = functools.lru_cache(maxsize)(function)
            return local.cached

        @functools.wraps(function)
        def load(*args, **kwargs):
            return cached()(*args, **kwargs)

        load.cache_clear = lambda: cached().cache_clear()
        return load

    return decorate
