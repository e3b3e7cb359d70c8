import os
import socket
import threading

import pytest

from models.errors import InputError
from pipelines import storage


def test_atomic_file_publishes_or_leaves_nothing(tmp_path):
    path = tmp_path / "a" / "b.txt"
    storage.write_bytes(path, b"one")
    with pytest.raises(RuntimeError), storage.atomic_file(path) as temporary:
        open(temporary, "wb").write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert os.listdir(path.parent) == ["b.txt"]


def test_what_a_killed_job_left_is_removed(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / f"y{storage.TEMPORARY_MARK}1").write_bytes(b"")
    (tmp_path / "x" / "y").write_bytes(b"")
    assert storage.remove_temporary_files(tmp_path) == 1
    assert os.listdir(tmp_path / "x") == ["y"]


def test_list_files_is_sorted_and_skips_folders(tmp_path):
    for name in ("b.mp4", "a.mp4", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.mp4").mkdir()
    assert [os.path.basename(p) for p in storage.list_files(tmp_path / "*.mp4")] == ["a.mp4", "b.mp4"]


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert storage.sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on a Cloud Storage emulator, over a real connection."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="corpus")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    storage._client.cache_clear()
    yield "gs://corpus"
    storage._client.cache_clear()
    server.stop()
    assert threading.active_count() >= 1


def test_cloud_storage_round_trip(bucket, tmp_path):
    path = f"{bucket}/set/one.bin"
    assert not storage.exists(path)
    storage.write_bytes(path, b"12345")
    storage.write_bytes(path, b"123456")
    assert storage.exists(path) and storage.size(path) == 6
    assert storage.read_bytes(path) == b"123456"
    storage.write_bytes(f"{bucket}/set/deeper/two.bin", b"")
    assert storage.list_files(f"{bucket}/set/*.bin") == [path]
    with storage.local_copy(path) as local:
        assert open(local, "rb").read() == b"123456"
    assert not os.path.exists(local)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{bucket}/set/none")


def test_bad_remote_path_says_what_was_expected():
    with pytest.raises(InputError, match="gs://BUCKET/NAME"):
        storage._blob("gs://bucket")
