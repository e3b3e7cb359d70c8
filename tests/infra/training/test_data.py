"""Batches: deterministic, positioned, and of the rows that are good."""

import numpy as np
import pytest

from infra.training import data
from models.errors import InputError
from pipelines.dataset import Dataset
from tests.infra.training.synthetic import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(write_dataset(tmp_path_factory.mktemp("data"), clips=6, frames=13, broken="pose"))


def read_pose(record):
    return {"pose": record["pose"]}


def test_rows_skip_errors_and_stay_within_the_budget(dataset):
    train, heldout = data.split_rows(dataset, "pose", "train"), data.split_rows(dataset, "pose", "heldout")
    assert 1 not in train + heldout and len(train) + len(heldout) == 5 and not set(train) & set(heldout)
    rows = data.Rows(dataset, "pose", train, read_pose, budget=13 * 6 * 4 * 2)
    for _ in range(2):
        for index, row in enumerate(train):
            np.testing.assert_array_equal(rows[index]["pose"], dataset.column("pose")[row]["pose"])
    assert len(rows._kept) == 2


def test_no_rows_is_an_input_error(tmp_path):
    alone = Dataset(write_dataset(tmp_path, clips=1, frames=5, shards=1))
    with pytest.raises(InputError, match="two sources"):
        data.split_rows(alone, "pose", "heldout")


def test_iterator_continues_from_a_saved_position():
    def make(item, rng):
        return {"x": np.float32(item + rng.random())}

    def iterator():
        return data.train_iterator(list(range(7)), make, batch=3, seed=5)

    first = iterator()
    batches = [next(first)["x"] for _ in range(8)]
    again = iterator()
    for _ in range(3):
        next(again)
    state = again.get_state()
    moved = iterator()
    moved.set_state(state)
    np.testing.assert_array_equal(np.stack([next(moved)["x"] for _ in range(5)]), np.stack(batches[3:]))
    assert sorted(np.floor(np.concatenate(batches[:7])).astype(int).tolist()) == sorted(list(range(7)) * 3)
    assert len(np.unique(np.concatenate(batches))) == 24  # the same row draws other numbers in the next epoch


def test_fixed_batches_cover_rows_and_places():
    seen = [
        b["x"]
        for b in data.fixed_batches(
            [0, 10, 20], lambda item, where: {"x": np.float32(item + where)}, batch=4, batches=2
        )
    ]
    assert [x.shape for x in seen] == [(4,), (4,)]
    values = np.concatenate(seen)
    assert set(np.floor(values / 10).astype(int)) == {0, 1, 2} and len(set(values.tolist())) == 8


def test_window_and_cut():
    assert data.window(10, 4, 0.0) == 0 and data.window(10, 4, 1.0) == 6 and data.window(3, 4, 0.5) == 0
    starts = {data.window(10, 4, np.random.default_rng(i)) for i in range(100)}
    assert starts == set(range(7))
    np.testing.assert_array_equal(data.cut(np.arange(3), 1, 4), [1, 2, 2, 2])


def test_identity_follows_the_shards(dataset, tmp_path):
    identity = data.data_identity(dataset.root, "pose")
    assert identity == data.data_identity(dataset.root, "pose") != data.data_identity(dataset.root, "shape")
    other = write_dataset(tmp_path, clips=6, frames=13)
    assert data.data_identity(other, "pose") != identity
    # A job that opens a dataset with a shard cut short says so before it trains.
    path = Dataset(other).shards("pose")[0]
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="pose-00000-of-.*truncated"):
        data.data_identity(other, "pose")
