"""How often each task is sampled.

Uniform for a first run; with the perplexities p_i that such a run measures, the paper's weight is

    S(i)  proportional to  log(p_i) / N_m(i)

where N_m(i) is the number of tasks whose output modality is that of task i: hard tasks come more often, and a modality
with many tasks does not crowd out the others.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from models.errors import InputError
from tasks.registry import Task

# A task whose perplexity is 1 (nothing left to learn, or log p = 0) still gets this share of the largest log p,
# so that it is not forgotten.
FLOOR = 0.02


def uniform_weights(tasks: Sequence[Task]) -> np.ndarray:
    """Returns float64 (tasks,) that sum to 1."""
    return np.full(len(tasks), 1 / len(tasks))


def mixture_weights(tasks: Sequence[Task], perplexity: Mapping[str, float]) -> np.ndarray:
    """Returns the paper's sampling weights, float64 (tasks,) that sum to 1.

    A chained task counts under the modality of its last output, which is what it is for. A task without a perplexity
    (no held-out data) gets the median of log p.

    Args:
        perplexity: task name -> perplexity per token under a baseline trained with uniform sampling, at least 1.

    Raises:
        InputError: a perplexity that is not a finite number of at least 1, or none at all.
    """
    logs = {}
    for name, value in perplexity.items():
        if not math.isfinite(value) or value < 1:
            raise InputError(f"perplexity of {name}: {value}, expected a finite number of at least 1")
        logs[name] = math.log(value)
    known = [logs[task.name] for task in tasks if task.name in logs]
    if not known:
        raise InputError("perplexity: none of the tasks is measured")
    top, middle = max(known), float(np.median(known))
    if top == 0:
        return uniform_weights(tasks)
    count = Counter(task.outputs[-1] for task in tasks)
    weights = [max(logs.get(task.name, middle), FLOOR * top) / count[task.outputs[-1]] for task in tasks]
    return np.array(weights) / sum(weights)
