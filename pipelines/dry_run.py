"""What a job would run, for who wants to look at it and run nothing."""

from collections.abc import Sequence


class DryRun(Exception):
    """Raised in place of running a job's shards when the runner's options ask for it: the plan, as it would be run.

    ``steps`` and ``tasks`` as run_shards (pipelines/beam.py) got them.
    """

    def __init__(self, job: str, root: str, steps: Sequence, tasks: Sequence):
        super().__init__(f"{job}: {len(tasks)} shards of {root} through {len(steps)} steps; nothing was run")
        self.job, self.root, self.steps, self.tasks = job, root, tuple(steps), tuple(tasks)
