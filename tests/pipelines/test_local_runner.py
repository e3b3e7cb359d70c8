import os

from pipelines.local_runner import one_thread_a_worker


def test_workers_get_one_thread_and_keep_what_the_user_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    changed = one_thread_a_worker()
    assert changed["OMP_NUM_THREADS"] == "1" and changed["OPENBLAS_NUM_THREADS"] == "3"
    assert changed["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x" and "OMP_NUM_THREADS" not in os.environ
