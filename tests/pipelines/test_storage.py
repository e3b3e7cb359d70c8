import os

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


def test_remove_and_remove_tree(tmp_path):
    storage.write_bytes(tmp_path / "x" / "y" / "a", b"")
    storage.write_bytes(tmp_path / "x" / "b", b"")
    storage.remove(tmp_path / "x" / "b")
    storage.remove(tmp_path / "x" / "b")
    assert storage.list_files(tmp_path / "**") == [str(tmp_path / "x" / "y" / "a")]
    storage.remove_tree(tmp_path / "x")
    storage.remove_tree(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert storage.sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_bad_remote_path_says_what_was_expected():
    with pytest.raises(InputError, match="gs://BUCKET/NAME"):
        storage.read_bytes("gs://bucket")
