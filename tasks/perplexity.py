"""How hard each task is for a trained language model: perplexity per target token on held-out clips.

The softmax is the one that training uses: over the ids of the one level that must come. A task's perplexity is that of
all its steps together, exp of their negative log-likelihood over their number of target tokens; a step that the
decoder makes has no tokens.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import numpy as np

from models.language_model import LanguageModelConfig, Params, loss
from tasks.registry import Task


@dataclass(frozen=True)
class Hardness:
    """What one task came to: ``nll`` in nats over all its target tokens, and their number (0: no held-out data)."""

    nll: float
    tokens: int

    @property
    def perplexity(self) -> float | None:
        """Per token, at least 1 (rounding can take a likelihood above it); None without data."""
        if not self.tokens:
            return None
        # A float holds e^709; what is worse than that is no worse for the weights.
        return math.exp(min(max(self.nll / self.tokens, 0.0), 700.0))


def hardness(
    config: LanguageModelConfig,
    params: Params,
    batches: Iterable[dict[str, np.ndarray]],
    tasks: tuple[Task, ...],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Hardness]:
    """Measures every task.

    Args:
        config, params: the language model.
        batches: of ``loader.heldout_batches``: batches of ``language_model.loss`` with ``head_task``.
        tasks: which the numbers in ``head_task`` are of.
        progress: called after each batch with their number so far.

    Returns:
        Task name -> what it came to, in order of ``tasks``.
    """
    nll, tokens = np.zeros(len(tasks)), np.zeros(len(tasks), np.int64)
    measure = jax.jit(lambda params, batch: loss(config, params, batch)[1])
    for count, batch in enumerate(batches, 1):
        numbers = batch["head_task"].ravel()
        used = batch["head_weights"].ravel() > 0
        each = np.asarray(measure(params, {k: v for k, v in batch.items() if k != "head_task"}), np.float64).ravel()
        nll += np.bincount(numbers[used], each[used], len(tasks))
        tokens += np.bincount(numbers[used], minlength=len(tasks))
        if progress is not None:
            progress(count)
    return {task.name: Hardness(float(n), int(t)) for task, n, t in zip(tasks, nll, tokens, strict=True)}
