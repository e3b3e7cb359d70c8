"""What a condition is worth: held-out likelihood with the right one, and with that of another clip.

For every step of every task on every held-out clip, two examples with the same target: one with the clip's own inputs,
one with another clip's in their place (the past of the output included). A model that reads its conditions finds the
target likelier with the right ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from models.language_model import LanguageModelConfig, Params, loss
from tasks.loader import ExampleMaker, HeadLayout, TokenRecords, arrange_packed, example, marked, pack, sample_window
from tasks.modalities import MODALITIES
from tasks.registry import Step


@dataclass(frozen=True)
class Gain:
    """Of one group of tasks.

    Attributes:
        right, shuffled: nats a target token, mean over clips.
        gain: shuffled less right, mean over clips.
        low, high: 95 % interval of the gain: clips drawn again with replacement.
        clips, tokens: what was measured.
    """

    right: float
    shuffled: float
    gain: float
    low: float
    high: float
    clips: int
    tokens: int


def swapped(step: Step, record: Mapping[str, Any], other: Mapping[str, Any], start: int) -> dict[str, Any] | None:
    """Returns the record with another clip's inputs, and the output's own content from latent step ``start`` on.

    None if the other clip is too short to give the output a past.
    """
    made = dict(record)
    for source in step.inputs:
        if source.modality != step.output:
            made[source.modality] = other[source.modality]
    m = MODALITIES[step.output]
    if start and m.has_clock:
        own, theirs = np.asarray(record[step.output]), np.asarray(other[step.output])
        at = m.step_range(0, start)[1]
        if theirs.shape[m.time_axis] < at:
            return None
        rest = np.take(own, np.arange(at, own.shape[m.time_axis]), axis=m.time_axis)
        made[step.output] = np.concatenate([m.take(theirs, 0, start), rest], axis=m.time_axis)
    return made


def pairs(records: TokenRecords, maker: ExampleMaker, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields two examples for each step of each task on each clip: ``which`` is 2 * (clip * tasks + task) + shuffled.

    The other clip is another one for every pair, and at least as long; a pair is left out if one of its
    examples does not fit.
    """
    lengths = [len(records[row]["semantics"]) for row in range(len(records))]
    for row in range(len(records)):
        record = records[row]
        others = [n for n in range(len(records)) if n != row and lengths[n] >= lengths[row]]
        others = others or [n for n in range(len(records)) if n != row]
        for number, task in enumerate(maker.tasks):
            for place, step in enumerate(task.steps):
                random = np.random.default_rng((seed, row, number, place))
                window = sample_window(step, lengths[row], maker.config.window, random)
                other = records[int(random.choice(others))]
                if window is None or len(other["semantics"]) < window.stop:
                    continue
                wrong = swapped(step, record, other, window.start)
                if wrong is None:
                    continue
                built = [
                    example(step, known, window, maker.config, maker.vocabulary, maker.text)
                    for known in (record, wrong)
                ]
                if None in built:
                    continue
                for kind, one in enumerate(built):
                    which = 2 * (row * len(maker.tasks) + number) + kind
                    yield one | {"which": np.full(one["tokens"].size, which, np.int32)}


def likelihoods(
    config: LanguageModelConfig,
    params: Params,
    records: TokenRecords,
    maker: ExampleMaker,
    layout: HeadLayout,
    progress=None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (nats, target tokens), float64 (clips, tasks, 2): right and shuffled.

    Args:
        progress: called with the number of batches so far.
        seed: of windows and of which clip is the other one.
    """
    import grain

    examples = [marked(built) for built in pairs(records, maker, seed)]
    count = len(records) * len(maker.tasks) * 2
    nats, tokens = np.zeros(count), np.zeros(count)
    measure = jax.jit(lambda params, batch: loss(config, params, batch)[1])
    batches = pack(grain.MapDataset.source(examples).to_iter_dataset(), maker.config, ("which",))
    for number, packed in enumerate(batches, 1):
        batch = arrange_packed(packed, maker.config, maker.vocabulary, layout, named="which")
        which = batch.pop("head_which").ravel()
        used = batch["head_weights"].ravel() > 0
        each = np.asarray(measure(params, batch), np.float64).ravel()
        nats += np.bincount(which[used], each[used], count)
        tokens += np.bincount(which[used], minlength=count)
        if progress is not None:
            progress(number)
    shape = (len(records), len(maker.tasks), 2)
    return nats.reshape(shape), tokens.reshape(shape)


def gain(nats: np.ndarray, tokens: np.ndarray, tasks: Sequence[int], draws: int = 10_000) -> Gain | None:
    """Sums up a group of tasks; None if no clip has any of them.

    Args:
        nats, tokens: of ``likelihoods``.
        tasks: numbers of the group's tasks.
    """
    chosen = list(tasks)
    # A pair of which one example was dropped with an unfilled row counts on neither side.
    both = np.all(tokens[:, chosen] > 0, axis=2, keepdims=True)
    total, count = ((x[:, chosen] * both).sum(1) for x in (nats, tokens))  # (clips, 2)
    there = count[:, 0] > 0
    if not there.any():
        return None
    each = total[there] / count[there]
    differences = each[:, 1] - each[:, 0]
    low, high = interval(differences, draws)
    return Gain(
        right=float(each[:, 0].mean()),
        shuffled=float(each[:, 1].mean()),
        gain=float(differences.mean()),
        low=low,
        high=high,
        clips=int(there.sum()),
        tokens=int(count[there, 0].sum()),
    )


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a mean: the values drawn again with replacement, by a fixed seed."""
    chosen = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(np.asarray(values)[chosen].mean(1), [2.5, 97.5])
    return float(low), float(high)
