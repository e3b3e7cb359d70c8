import threading
import time

from models.loading import load_once, load_per_thread


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


def test_each_thread_has_its_own_and_keeps_it():
    @load_per_thread(2)
    def load(name):
        return [name]

    got = {}

    def ask(number):
        got[number] = (load("a"), load("a"), load("b"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(first is again and other == ["b"] for first, again, other in got.values())
    assert len({id(first) for first, _, _ in got.values()}) == 3
    mine = load("a")
    load.cache_clear()
    assert load("a") is not mine and load.__name__ == "load"
