"""How often each task is sampled.

Uniform for a first run; with the perplexities p_i that such a run measures, the paper's weight is

    S(i)  proportional to  log(p_i) / N_m(i)

where N_m(i) is the number of tasks whose output modality is that of task i: hard tasks come more often, and a modality
with many tasks does not crowd out the others.

The file of weights (``archon measure mixture`` writes it, ``archon train language --tasks FILE`` reads it) is JSON::

    {"model": "work/models/language", "weights_sha256": "...", "step": 150, "uniform_baseline": true, ...,
     "tasks": {"speech-to-script": {"perplexity": 81.2, "tokens": 1290, "weight": 0.021}, ...}}

It names every task of the registry; the perplexity of a task without held-out data is null.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.errors import InputError
from tasks.registry import Task

# A task whose perplexity is 1 (nothing left to learn, or log p = 0) still gets this share of the largest log p,
# so that it is not forgotten.
FLOOR = 0.02

UNIFORM = "uniform"


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


def read_mixture(text: str, tasks: Sequence[Task]) -> tuple[tuple[str, float], ...]:
    """Reads what ``--tasks`` says.

    Args:
        text: "uniform"; names of tasks joined by ",", which come equally often and no other at all; or the path of a
            file of weights.
        tasks: the registry.

    Returns:
        (task, weight) for every task in order of the registry; weights sum to 1, those of other tasks are 0.

    Raises:
        InputError: neither tasks nor a file; a file that is not one of weights, or not of these tasks.
    """
    names = [task.name for task in tasks]
    if text == UNIFORM:
        weights = dict.fromkeys(names, 1.0)
    elif set(chosen := [name.strip() for name in text.split(",")]) <= set(names):
        weights = {name: float(name in chosen) for name in names}
    elif os.path.isfile(text):  # False for what is no path at all, such as many names
        weights = _read_weights(Path(text), names)
    else:
        unknown = next(name for name in chosen if name not in names)
        raise InputError(
            f"--tasks {text}: no task {unknown!r} and no such file; expected {UNIFORM}, names of tasks joined by ',' "
            "(`archon tasks` lists them), or a file that `archon measure mixture` wrote"
        )
    total = sum(weights.values())
    return tuple((name, weights[name] / total) for name in names)


def _read_weights(path: Path, names: Sequence[str]) -> dict[str, float]:
    """Returns task -> weight of a file of weights, one for each of the names."""
    try:
        table = {name: entry["weight"] for name, entry in json.loads(path.read_text(encoding="utf-8"))["tasks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: not a file of weights ({type(error).__name__}: {error}); expected {{"tasks": {{NAME: '
            '{"weight": NUMBER, ...}, ...}}, as `archon measure mixture` writes it'
        ) from None
    unknown, missing = sorted(set(table) - set(names)), [name for name in names if name not in table]
    if unknown or missing:
        said = [f"{len(unknown)} unknown ({', '.join(unknown)})"] if unknown else []
        said += [f"{len(missing)} missing ({', '.join(missing)})"] if missing else []
        raise InputError(
            f"{path}: tasks: {' and '.join(said)}; expected exactly the {len(names)} of the registry: measure again"
        )
    for name, weight in table.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InputError(f"{path}: tasks.{name}.weight: {weight!r}, expected a number of at least 0")
    if not sum(table.values()):
        raise InputError(f"{path}: tasks: every weight is 0, expected one above it")
    return table
