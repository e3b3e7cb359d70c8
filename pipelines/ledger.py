"""Which shards of a job are done, in one small file, so that a restart does not look at every shard again.

``_state/<job>/ledger.json``: step label -> fingerprint, number of shards and the done ones as intervals
``[first, one past the last]``. The driver writes it every few seconds while a job runs. It may lag behind the markers
(a restart looks at the markers that it does not list) and it is never trusted at the end, when every marker is read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines import storage
from pipelines.state import state_path


def intervals(numbers: Iterable[int]) -> list[list[int]]:
    """[0, 1, 2, 5] -> [[0, 3], [5, 6]]"""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n:
            out[-1][1] = n + 1
        else:
            out.append([n, n + 1])
    return out


@dataclass
class Ledger:
    """``done``: step label -> (fingerprint, number of shards, indices of done shards)."""

    root: str
    job: str
    done: dict[str, tuple[str, int, set[int]]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return state_path(self.root, self.job, "ledger.json")

    @classmethod
    def read(cls, root: str, job: str) -> "Ledger":
        """Returns the ledger; an empty one if there is none or it cannot be read (then the markers are looked at)."""
        ledger = cls(root, job)
        try:
            steps = json.loads(storage.read_bytes(ledger.path))["steps"]
            for label, step in steps.items():
                numbers = {n for first, end in step["done"] for n in range(first, min(end, step["shards"]))}
                ledger.done[label] = (step["fingerprint"], step["shards"], numbers)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            ledger.done = {}
        return ledger

    def of(self, label: str, fingerprint: str, shards: int) -> set[int]:
        """The done shards of a step, if the ledger speaks of this fingerprint and number of shards; else none."""
        known = self.done.get(label)
        return set(known[2]) if known and known[:2] == (fingerprint, shards) else set()

    def set(self, label: str, fingerprint: str, shards: int, numbers: set[int]) -> None:
        self.done[label] = (fingerprint, shards, numbers)

    def forget(self, label: str, numbers: Iterable[int]) -> None:
        if label in self.done:
            self.done[label][2].difference_update(numbers)

    def write(self) -> None:
        steps = {
            label: {"fingerprint": mark, "shards": shards, "done": intervals(numbers)}
            for label, (mark, shards, numbers) in self.done.items()
        }
        storage.write_bytes(self.path, (json.dumps({"steps": steps}, sort_keys=True) + "\n").encode())
