import os

import pytest

from models.errors import InputError
from pipelines import sources as module
from pipelines.sources import Source, describe_sources, find_sources, read_sources, write_sources


def test_inputs(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.mp4").write_text(name)
    names = sorted(str(path) for path in folder.iterdir())
    assert find_sources([str(folder)]) == find_sources([str(folder / "*.mp4")]) == names
    listing = tmp_path / "list.txt"
    listing.write_text(f"# two\n{names[1]}\n\n{names[0]}\n{names[1]}\n")
    assert find_sources([str(listing)]) == names[:2]
    assert find_sources([names[3], str(listing)]) == [*names[:2], names[3]]
    for missing in (str(tmp_path / "*.mp4"), str(tmp_path / "none.txt"), str(tmp_path / "none.mp4")):
        with pytest.raises(InputError, match="--input"):
            find_sources([missing])


def paths(folder, texts):
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in texts]


def test_duplicates_are_found_by_content(tmp_path):
    names = paths(tmp_path, {"a": "one", "b": "two", "c": "one", "d": "longer"})
    found = describe_sources([*names, str(tmp_path / "none")])
    assert [source.duplicate_of for source in found] == [None, None, names[0], None, None]
    assert [source.size for source in found] == [3, 3, 3, 6, -1]
    # Only files of equal size were read.
    assert [bool(source.digest) for source in found] == [True, True, True, False, False]


def test_nothing_is_hashed_twice(tmp_path, monkeypatch):
    names = paths(tmp_path, {"a": "one", "b": "two", "c": "one"})
    first = describe_sources(names)
    write_sources(str(tmp_path / "out"), "curate", first)
    hashed, real = [], module._hash
    monkeypatch.setattr(module, "_hash", lambda path: hashed.append(path) or real(path))
    assert describe_sources(names, read_sources(str(tmp_path / "out"), "curate")) == first and hashed == []
    os.utime(names[1], ns=(1, 1))
    again = describe_sources([*names, *paths(tmp_path, {"d": "two"})], first)
    assert hashed == [names[1], str(tmp_path / "d")] and again[3].duplicate_of == names[1]


def test_the_table_reads_back(tmp_path):
    rows = [Source("a", 3, "17", "sha256:x"), Source("b", 3, "18", "sha256:x", "a"), Source("gs://c/d")]
    assert read_sources(str(tmp_path), "curate") == []
    write_sources(str(tmp_path), "curate", rows)
    assert read_sources(str(tmp_path), "curate") == rows
    assert read_sources(str(tmp_path), "curate", 1, 1) == rows[1:2]
    assert len({row.identity() for row in rows}) == 3
