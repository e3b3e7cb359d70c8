import threading
import time

from models.loading import load_once


def test_threads_that_ask_at_once_get_one_copy(tmp_path):
    """A counter file has one line a load: eight threads, two different models."""

    @load_once(2)
    def load(name):
        with open(tmp_path / "loads", "a") as file:
            file.write(f"{name}\n")
        time.sleep(0.05)  # long enough for all threads to be waiting
        return object()

    start, got = threading.Barrier(8), []

    def ask(name):
        start.wait()
        got.append((name, load(name)))

    threads = [threading.Thread(target=ask, args=("ab"[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((tmp_path / "loads").read_text().split()) == ["a", "b"]
    assert len(got) == 8 and len({id(model) for _, model in got}) == 2
    assert load.__name__ == "load"
    load.cache_clear()
    load("a")
    assert len((tmp_path / "loads").read_text().split()) == 3
