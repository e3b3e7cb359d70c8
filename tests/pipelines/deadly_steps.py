"""Steps that die, for tests of what becomes of the job. Worker processes import them by name."""

import os
import signal
from dataclasses import dataclass

from pipelines.beam import ShardTask, StepResult
from pipelines.dataset import shard_name, write_shard
from pipelines.failures import Failures


@dataclass(frozen=True)
class Deadly:
    """Writes a shard of the number that each item is; "poison" kills the process, "once" only the first time.

    ``claims`` False: a step that does not say what it works on.
    """

    root: str
    failures: Failures
    claims: bool = True

    def __call__(self, task: ShardTask) -> StepResult:
        rows = []
        for item in task.payload:
            self._journal(item)
            if not self.claims:
                self._work(item)
                rows.append({"item": item})
                continue
            with self.failures.working_on(item):
                died = self.failures.given_up(item)
                if died is None:
                    self._work(item)
                rows.append({"item": item if died is None else died.type})
        return StepResult((write_shard(self.root, shard_name("clips", task.index, task.count), rows),), {})

    def _journal(self, item: str) -> None:
        with open(os.path.join(self.root, "journal"), "a") as file:
            file.write(f"{item}\n")

    def _work(self, item: str) -> None:
        if item == "once":
            with open(os.path.join(self.root, "journal")) as file:
                if file.read().split().count("once") > 1:
                    return
        if item in ("poison", "once"):
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "wrong":
            raise ValueError("a wrong item")
