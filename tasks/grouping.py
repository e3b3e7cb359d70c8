"""Batches of examples of about one length: the paper's alternating groups, an alternative to packing.

Every batch has rows of one length out of a few, and as many rows as the budget of ids allows; each row is one example,
so attention never meets a neighbour. Each length is a shape of its own, and the training step compiles once for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from models.errors import InputError

STEP = 128  # lengths of groups are multiples of this: a tile of the accelerator


def group_lengths(length: int, groups: int) -> tuple[int, ...]:
    """Returns ascending row lengths, each about the same factor above the one before; the last is ``length``.

    >>> group_lengths(8192, 5)
    (512, 1024, 2048, 4096, 8192)

    Args:
        length: the longest row.
        groups: at most how many; short rows may leave room for fewer. The shortest group is a sixteenth of the longest.
    """
    if groups < 1:
        raise InputError(f"groups: {groups}, expected at least 1")
    if groups == 1:
        return (length,)
    ratio = 16 ** (1 / (groups - 1))
    tile = min(STEP, max(1, length // 16))
    rounded = (round(length / ratio**k / tile) * tile for k in range(1, groups))
    return tuple(sorted({length, *(max(tile, size) for size in rounded if size < length)}))


class GroupedIterDataset(grain.IterDataset):
    """Batches of one group each, from examples that can be made again by number.

    An element is {name: int32 (rows, length)} for each field, padded with 0, with ``tokens_segment_ids`` (1 in an
    example, 0 in padding) and ``tokens_positions``, as Grain's packing names them.

    Args:
        examples: Grain MapDataset of {name: (n,)}; it has no end, or the last, unfilled batches are dropped.
        lengths: ascending row lengths; the last fits every example.
        budget: ids of a batch: rows = budget // length.
        multiple: of which the number of rows is a multiple (devices that share a batch).
    """

    def __init__(self, examples: grain.MapDataset, lengths: Sequence[int], budget: int, multiple: int = 1):
        super().__init__()
        self.examples, self.lengths = examples, tuple(lengths)
        self.rows = tuple(budget // size // multiple * multiple for size in self.lengths)
        if not all(self.rows):
            raise InputError(f"groups: {budget} ids are not {multiple} rows of {self.lengths[self.rows.index(0)]}")

    def set_slice(self, share: slice, sequential_slice: bool = False) -> None:
        """Grain's way of giving each worker process its share of the examples."""
        del sequential_slice
        self.examples = self.examples[share]

    def __iter__(self) -> "GroupedIterator":
        return GroupedIterator(self)


class GroupedIterator(grain.DatasetIterator):
    """The state is numbers alone: the next example's, and those that wait in each group."""

    def __init__(self, dataset: GroupedIterDataset):
        super().__init__()
        self._dataset = dataset
        self._next = 0
        self._waiting: list[list[int]] = [[] for _ in dataset.lengths]
        self._made: dict[int, Mapping[str, np.ndarray]] = {}

    def __next__(self) -> dict[str, np.ndarray]:
        dataset = self._dataset
        while True:
            if self._next >= len(dataset.examples):
                raise StopIteration
            number, self._next = self._next, self._next + 1
            built = dataset.examples[number]
            size = next(iter(built.values())).size
            group = int(np.searchsorted(dataset.lengths, size))
            self._waiting[group].append(number)
            self._made[number] = built
            if len(self._waiting[group]) == dataset.rows[group]:
                numbers, self._waiting[group] = self._waiting[group], []
                return _padded([self._example(n) for n in numbers], dataset.lengths[group])

    def _example(self, number: int) -> Mapping[str, np.ndarray]:
        """An example that waited; one from before the state was set is made again."""
        built = self._made.pop(number, None)
        return self._dataset.examples[number] if built is None else built

    def get_state(self) -> dict[str, Any]:
        return {"next": self._next, "waiting": [list(numbers) for numbers in self._waiting]}

    def set_state(self, state: dict[str, Any]) -> None:
        if len(state["waiting"]) != len(self._dataset.lengths):
            raise InputError(f"groups: the saved state has {len(state['waiting'])}, not {len(self._dataset.lengths)}")
        self._next = state["next"]
        self._waiting = [list(numbers) for numbers in state["waiting"]]
        self._made = {}


def _padded(examples: Sequence[Mapping[str, np.ndarray]], length: int) -> dict[str, np.ndarray]:
    batch = {name: np.zeros((len(examples), length), np.int32) for name in examples[0]}
    segments, positions = (np.zeros((len(examples), length), np.int32) for _ in range(2))
    for row, built in enumerate(examples):
        for name, values in built.items():
            batch[name][row, : values.size] = values
        size = built["tokens"].size
        segments[row, :size] = 1
        positions[row, :size] = np.arange(size)
    return batch | {"tokens_segment_ids": segments, "tokens_positions": positions}
