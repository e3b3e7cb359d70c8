import pytest

from pipelines.ledger import Ledger, intervals


def test_intervals():
    assert intervals([5, 0, 2, 1]) == [[0, 3], [5, 6]] and intervals([]) == []


def test_a_ledger_reads_back(tmp_path):
    ledger = Ledger.read(str(tmp_path), "job")
    assert ledger.of("step", "print", 10) == set()
    ledger.set("step", "print", 10, {0, 1, 2, 7})
    ledger.write()
    again = Ledger.read(str(tmp_path), "job")
    assert again.of("step", "print", 10) == {0, 1, 2, 7}
    assert again.of("step", "other", 10) == again.of("step", "print", 11) == again.of("none", "print", 10) == set()
    again.forget("step", [1, 9])
    assert again.of("step", "print", 10) == {0, 2, 7}


def test_its_size_does_not_grow_with_what_is_done(tmp_path):
    sizes = []
    for done in (10, 100_000):
        ledger = Ledger(str(tmp_path), "job")
        ledger.set("step", "print", 100_010, set(range(done)))
        ledger.write()
        sizes.append((tmp_path / "_state/job/ledger.json").stat().st_size)
    assert sizes[1] < sizes[0] + 10


@pytest.mark.parametrize("text", ["", "{", "[]", '{"steps": {"a": {"done": 3}}}', '{"steps": []}'])
def test_a_damaged_ledger_is_an_empty_one(tmp_path, text):
    (tmp_path / "_state/job").mkdir(parents=True)
    (tmp_path / "_state/job/ledger.json").write_text(text)
    assert Ledger.read(str(tmp_path), "job").done == {}
