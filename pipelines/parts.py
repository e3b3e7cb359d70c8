"""What is finished of an unfinished shard: one ArrayRecord file an item, so that a kill costs one item and not a shard.

A part is written under a temporary name and renamed, or uploaded whole, so it is there in full or not at all; its last
record says which item it belongs to and how many records it has, and a part that does not say so is not used. When all
items of a shard have their part, the shard is written from the parts in order and the parts are removed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from models.errors import InputError
from pipelines import storage
from pipelines.dataset import Record, ShardReader, ShardWriter, shard_writer
from pipelines.state import safe_name, state_path

_KEY, _COUNT = "part_key", "part_count"


class Part(Sequence):
    """One item's records, read from its file one by one."""

    def __init__(self, reader: ShardReader, count: int):
        self._reader, self._count = reader, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._reader[index]

    def read_bytes(self, index: int) -> bytes:
        """Returns a record as it is stored."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._reader.read_bytes(index)


@contextmanager
def open_part(path: str, key: str | None = None) -> Iterator[Part | None]:
    """Yields the part if the file is there, whole and this item's, else None. ``path`` may be ``gs://``.

    Without a key the file's name says whose it is to be.
    """
    mark = path.rpartition("/")[2] if key is None else safe_name(key)
    try:
        local = storage.local_copy(path)
        name = local.__enter__()
    except FileNotFoundError:
        yield None
        return
    try:
        yield _checked(name, mark)
    finally:
        local.__exit__(None, None, None)


def _checked(name: str, mark: str) -> Part | None:
    try:
        reader = ShardReader(name)
        count = len(reader) - 1
        last = reader[count] if count >= 0 else {}
    except (InputError, OSError, RuntimeError, ValueError, IndexError):
        return None
    return Part(reader, count) if last.get(_KEY) == mark and last.get(_COUNT) == count else None


@dataclass(frozen=True)
class Parts:
    """The parts of one shard of one step: ``_state/<job>/parts/<label>/<shard>/<hash of the item's key>``.

    ``task`` is the shard's ShardTask (or its name). A key should hold all that the part depends on (the item and the
    fingerprint of what makes it), so that a part of other making is not found. Any text is a safe key.
    """

    root: str
    job: str
    label: str
    task: object

    @property
    def folder(self) -> str:
        return state_path(self.root, self.job, "parts", self.label, str(self.task))

    def path(self, key: str) -> str:
        return storage.join(self.folder, safe_name(key))

    def has(self, key: str) -> bool:
        """Whether there is a part with this key that is whole."""
        with self.open(key) as part:
            return part is not None

    def get(self, key: str) -> list[Record] | None:
        """All records of a part, in memory; None if there is no such part or it is damaged. See ``open``."""
        with self.open(key) as part:
            try:
                return None if part is None else list(part)
            except (InputError, OSError, RuntimeError, ValueError):
                return None

    @contextmanager
    def open(self, key: str) -> Iterator[Part | None]:
        """Yields the part's records one by one from its file, or None if there is no such part or it is damaged."""
        with open_part(self.path(key), key) as part:
            yield part

    @contextmanager
    def writer(self, key: str) -> Iterator[ShardWriter]:
        """Yields a writer (``write(record)``). The part is there once the block has ended well, and only then."""
        with shard_writer(self.path(key)) as writer:
            yield writer
            writer.write({_KEY: safe_name(key), _COUNT: writer.count})

    def remove(self) -> None:
        """Removes all parts of this shard."""
        storage.remove_tree(self.folder)
