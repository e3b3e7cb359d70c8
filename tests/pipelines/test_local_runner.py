import os

from pipelines.local_runner import one_thread_a_worker


def test_workers_get_one_thread_and_the_environment_comes_back(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with one_thread_a_worker():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x" and "OMP_NUM_THREADS" not in os.environ
