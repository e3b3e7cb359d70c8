import multiprocessing

from infra.memory import PeakMemory


def hold(ready, release):
    held = bytearray(b"x" * 300_000_000)
    ready.set()
    release.wait(60)
    del held


def test_counts_the_processes_it_started():
    context = multiprocessing.get_context("spawn")
    ready, release = [context.Event() for _ in range(2)], context.Event()
    with PeakMemory() as before:
        pass
    with PeakMemory(every=0.02) as during:
        children = [context.Process(target=hold, args=(event, release)) for event in ready]
        for child in children:
            child.start()
        assert all(event.wait(60) for event in ready)
        during.stop.wait(0.5)
        release.set()
        for child in children:
            child.join()
    assert during.gib > before.gib + 0.5
