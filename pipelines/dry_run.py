"""What a job would run, for who wants to look at it, or hands it to somebody else to run."""

from collections.abc import Sequence


class DryRun(Exception):
    """Raised in place of running a job's shards here: the plan, as it would be run.

    The runner's options ask for it, or the graph was handed over as a template.
    ``steps`` and ``tasks`` as run_shards (pipelines/beam.py) got them.
    """

    def __init__(self, job: str, root: str, steps: Sequence, tasks: Sequence):
        super().__init__(f"{job}: {len(tasks)} shards of {root} through {len(steps)} steps; not run here")
        self.job, self.root, self.steps, self.tasks = job, root, tuple(steps), tuple(tasks)
