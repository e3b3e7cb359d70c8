import grain
import numpy as np
import pytest

from models.errors import InputError
from tasks.grouping import GroupedIterDataset, group_lengths

LENGTHS, BUDGET = (4, 8, 16), 32


def examples(count: int = 400) -> grain.MapDataset:
    """Example i: between 1 and 16 ids, all of them i + 1."""
    sizes = np.random.default_rng(3).integers(1, 17, count)
    built = [{"tokens": np.full(n, i + 1, np.int32), "target": np.arange(n) % 2} for i, n in enumerate(sizes)]
    return grain.MapDataset.source(built)


def test_lengths_grow_by_a_factor_to_the_longest():
    assert group_lengths(8192, 5) == (512, 1024, 2048, 4096, 8192)
    assert group_lengths(8192, 1) == (8192,)
    assert group_lengths(1280, 4)[-1] == 1280 and len(group_lengths(1280, 4)) == 4
    assert all(size % 128 == 0 for size in group_lengths(8192, 17))
    with pytest.raises(InputError, match="groups: 0"):
        group_lengths(8192, 0)


def test_a_batch_has_one_length_and_every_example_comes_once():
    seen, shapes = [], set()
    for batch in GroupedIterDataset(examples(), LENGTHS, BUDGET):
        rows, length = batch["tokens"].shape
        shapes.add((rows, length))
        sizes = batch["tokens_segment_ids"].sum(1)
        shorter = {4: 0, 8: 4, 16: 8}[length]
        assert ((sizes > shorter) & (sizes <= length)).all()
        for row, size in enumerate(sizes):
            ids = batch["tokens"][row]
            assert (ids[:size] == ids[0]).all() and not ids[size:].any()
            assert batch["tokens_positions"][row, :size].tolist() == list(range(size))
            assert batch["target"][row, :size].tolist() == (np.arange(size) % 2).tolist()
            seen.append(int(ids[0]))
    assert shapes == {(8, 4), (4, 8), (2, 16)}
    assert len(set(seen)) == len(seen) > 400 - 8 - 4 - 2


def test_it_goes_on_at_the_exact_next_batch():
    dataset = GroupedIterDataset(examples(), LENGTHS, BUDGET)
    whole = list(dataset)
    for stop in (0, 1, 7, len(whole) - 1):
        stopped = iter(dataset)
        for _ in range(stop):
            next(stopped)
        again = iter(dataset)
        again.set_state(stopped.get_state())
        rest = list(again)
        assert len(rest) == len(whole) - stop
        for ours, theirs in zip(rest, whole[stop:], strict=True):
            assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_rows_come_in_multiples():
    assert GroupedIterDataset(examples(), (4, 8), 56, multiple=4).rows == (12, 4)
    with pytest.raises(InputError, match="32 ids are not 4 rows of 16"):
        GroupedIterDataset(examples(), LENGTHS, BUDGET, multiple=4)


def test_a_state_of_other_groups_is_refused():
    state = iter(GroupedIterDataset(examples(), (16,), BUDGET)).get_state()
    with pytest.raises(InputError, match="the saved state has 1, not 3"):
        iter(GroupedIterDataset(examples(), LENGTHS, BUDGET)).set_state(state)
