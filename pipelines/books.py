"""A job's books: every item that came in was kept, filtered with a reason, or failed with a stage and a type.

An item is whatever the job handles one by one: a source for curate, a clip for annotate and tokenize. Each shard has
its books (in its marker), their sum is the job's, and a job whose books do not close ends with an error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines import storage
from pipelines.dataset import MANIFEST, Dataset


class BooksError(Exception):
    """Items were lost or counted twice. The message has the numbers."""


@dataclass
class Books:
    """``filtered``: reason -> items. ``failed``: (stage, type, traceback hash) -> items."""

    job: str
    unit: str = "items"
    items: int = 0
    kept: int = 0
    filtered: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)

    def keep(self, count: int = 1) -> None:
        self.kept += count

    def filter(self, reason: str) -> None:
        self.filtered[reason] += 1

    def fail(self, stage: str, kind: str, traceback_hash: str) -> None:
        self.failed[stage, kind, traceback_hash] += 1

    def close(self, expected: int | None = None) -> "Books":
        """Returns itself if items = kept + filtered + failed (= ``expected``, if given).

        Raises:
            BooksError: with the numbers, if not.
        """
        out = self.kept + self.filtered.total() + self.failed.total()
        if out != self.items or expected not in (None, self.items):
            wanted = "" if expected is None else f" ({expected} expected)"
            raise BooksError(
                f"{self.job}: the books do not close: {self.items} {self.unit} in{wanted}, but {self.kept} kept + "
                f"{self.filtered.total()} filtered {dict(self.filtered)} + {self.failed.total()} failed "
                f"{ {' '.join(key): count for key, count in self.failed.items()} } = {out}"
            )
        return self

    def add(self, other: "Books") -> None:
        self.items += other.items
        self.kept += other.kept
        self.filtered += other.filtered
        self.failed += other.failed

    def as_dict(self) -> dict:
        """Plain JSON values, in a fixed order."""
        return {
            "unit": self.unit,
            "items": self.items,
            "kept": self.kept,
            "filtered": dict(sorted(self.filtered.items())),
            "failed": [
                {"stage": stage, "type": kind, "traceback_hash": digest, "count": count}
                for (stage, kind, digest), count in sorted(self.failed.items())
            ],
        }

    @classmethod
    def from_dict(cls, job: str, values: Mapping) -> "Books":
        failed = Counter({(f["stage"], f["type"], f["traceback_hash"]): f["count"] for f in values["failed"]})
        filtered = Counter(values["filtered"])
        return cls(job, values["unit"], values["items"], values["kept"], filtered, failed)

    def lines(self) -> list[str]:
        """What is printed at the end of a job."""
        out = [
            f"{self.job}: {self.items} {self.unit} in = {self.kept} kept + {self.filtered.total()} filtered + "
            f"{self.failed.total()} failed"
        ]
        out += [f"{self.job}:   {count} filtered: {reason}" for reason, count in self.filtered.most_common()]
        for (stage, kind, digest), count in self.failed.most_common():
            out.append(f"{self.job}:   {count} failed: {kind} in {stage} [{digest}]")
        return out


def sum_books(job: str, unit: str, shards: Iterable[Mapping], expected: int | None = None) -> Books:
    """Adds up the shards' books (as dicts) and closes the sum.

    Raises:
        BooksError: the sum does not close.
    """
    total = Books(job, unit)
    for values in shards:
        total.add(Books.from_dict(job, values))
    return total.close(expected)


def books_for_manifest(root: str, books: Books) -> dict:
    """The manifest's ``books`` with this job's set: pass it to ``update_manifest(..., books=...)``."""
    known = {}
    if storage.exists(storage.join(root, MANIFEST)):
        known = Dataset(root).manifest().get("books", {})
    return {**known, books.job: books.as_dict()}
