import os

import numpy as np
import pytest

from pipelines.parts import Parts


@pytest.fixture
def parts(tmp_path):
    return Parts(str(tmp_path), "job", "step", "00000-of-00002")


def put(parts, key, numbers):
    with parts.writer(key) as writer:
        for n in numbers:
            writer.write({"n": n, "array": np.arange(n)})


def test_what_is_written_reads_back(parts):
    put(parts, "a", [1, 2, 3])
    put(parts, "empty", [])
    assert [row["n"] for row in parts.get("a")] == [1, 2, 3] and parts.get("a")[1]["array"].tolist() == [0, 1]
    assert parts.get("empty") == [] and parts.get("b") is None
    assert parts.has("empty") and not parts.has("b")
    with parts.open("a") as part:
        assert len(part) == 3 and part[2]["n"] == 3 and [row["n"] for row in part] == [1, 2, 3]


def test_a_part_is_there_whole_or_not_at_all(parts, tmp_path):
    with pytest.raises(ValueError, match="stop"), parts.writer("a") as writer:
        writer.write({"n": 1})
        raise ValueError("stop")
    assert parts.get("a") is None and not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("keep", [0, 10, 5000, 65536, -1])
def test_a_cut_part_is_not_used(parts, keep):
    put(parts, "a", [1, 2])
    data = open(parts.path("a"), "rb").read()
    with open(parts.path("a"), "wb") as file:
        file.write(data[:keep])
    assert parts.get("a") is None


def test_a_part_under_another_key_is_not_used(parts):
    put(parts, "a", [1])
    os.rename(parts.path("a"), parts.path("b"))
    assert parts.get("b") is None


@pytest.mark.parametrize(
    "key", ["../../../escape", "/etc/passwd", "a\x00b", "gs://x/y", "", "..", "\udcff", "x" * 5000]
)
def test_no_key_leaves_the_folder(parts, key, tmp_path):
    put(parts, key, [1])
    assert [row["n"] for row in parts.get(key)] == [1]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and files[0].parent == tmp_path / "_state/job/parts/step/00000-of-00002"


def test_removed_with_the_shard(parts, tmp_path):
    put(parts, "a", [1])
    other = Parts(str(tmp_path), "job", "step", "00001-of-00002")
    put(other, "a", [2])
    parts.remove()
    assert parts.get("a") is None and other.get("a")[0]["n"] == 2
