"""From dataset columns to batches, by Grain: random windows of clips for training, fixed windows for evaluation.

The order of rows, the windows and every augmentation are functions of the seed and the index alone, so an iterator that
was moved to a saved position gives what it would have given.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError
from pipelines.dataset import Dataset

Item = dict[str, np.ndarray]


class Rows:
    """Random access to some rows of a column, decoded once and kept while they fit into a memory budget.

    Args:
        dataset: the dataset.
        column: its column.
        rows: row indices.
        read: record -> the arrays that are needed of it (a top-level function).
        budget: bytes of decoded arrays kept; least recently used go first.
    """

    def __init__(
        self,
        dataset: Dataset,
        column: str,
        rows: Sequence[int],
        read: Callable[[dict], Item],
        budget: int = 1 << 30,
    ):
        self._column, self._rows, self._read, self._budget = dataset.column(column), list(rows), read, budget
        self._kept: OrderedDict[int, Item] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        index = int(index)
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            return kept
        item = self._read(self._column[self._rows[index]])
        self._kept[index] = item
        self._size += sum(a.nbytes for a in item.values())
        while self._size > self._budget and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._size -= sum(a.nbytes for a in old.values())
        return item


def split_rows(dataset: Dataset, column: str, split: str) -> list[int]:
    """Returns the rows of a split ("train", "heldout") whose record in the column carries no error.

    Raises:
        InputError: there are none.
    """
    good = set(dataset.good_rows(column))
    rows = [row for row in dataset.split(split) if row in good]
    if not rows:
        raise InputError(
            f"{dataset.root}: no usable {split} row in column {column!r}; training needs clips of two sources at least"
        )
    return rows


def data_identity(root: Path | str, *columns: str) -> str:
    """Returns a hash of the shards behind the columns and the split: a dataset's identity for a training job.

    Raises:
        InputError: a shard is missing, truncated or replaced (by its size and count; the message names it).
    """
    dataset = Dataset(root)
    dataset.verify("clips", *columns)
    digest = hashlib.sha256()
    for column in ("clips", *columns):
        for info in dataset.shard_infos(column):
            digest.update(f"{column} {info.path} {info.sha256}\n".encode())
    return digest.hexdigest()


def train_iterator(
    rows: Sequence[Any], make: Callable[[Any, np.random.Generator], Item], *, batch: int, seed: int
) -> Iterator[Item]:
    """Returns an endless iterator of batches with ``get_state`` and ``set_state``.

    Args:
        rows: random access to items.
        make: (item, random numbers of this example) -> arrays of fixed shapes.
        batch: examples a batch.
        seed: of the order and of every example.
    """
    import grain

    data = (
        grain.MapDataset.source(rows)
        .shuffle(seed=seed)
        .repeat()
        .random_map(lambda item, rng: make(item, rng), seed=seed)
        .batch(batch)
    )
    # The buffer runs ahead of the step on its own threads; order and content do not depend on it.
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * batch)))


def fixed_batches(
    rows: Sequence[Any], make: Callable[[Any, float], Item], *, batch: int, batches: int
) -> Iterator[Item]:
    """Yields ``batches`` batches that cover the rows in turn, each at windows spread over its length.

    Args:
        rows: random access to items.
        make: (item, where in 0..1 the window lies) -> arrays of the shapes that training has.
        batch: examples a batch.
        batches: how many.
    """
    total = batch * batches
    rounds = -(-total // len(rows))
    for first in range(0, total, batch):
        items = [make(rows[j % len(rows)], (j // len(rows) + 0.5) / rounds) for j in range(first, first + batch)]
        yield {name: np.stack([item[name] for item in items]) for name in items[0]}


def window(length: int, size: int, where: float | np.random.Generator) -> int:
    """Returns the start of a window of ``size`` in ``length`` (0 if it is longer), at a fraction 0..1 or drawn."""
    spare = max(length - size, 0)
    if isinstance(where, np.random.Generator):
        return int(where.integers(spare + 1))
    return int(where * spare)


def cut(x: np.ndarray, start: int, size: int) -> np.ndarray:
    """Returns ``x[start : start + size]``, its last element repeated where ``x`` is too short."""
    piece = x[start : start + size]
    if len(piece) < size:
        piece = np.pad(piece, [(0, size - len(piece))] + [(0, 0)] * (x.ndim - 1), mode="edge")
    return piece
