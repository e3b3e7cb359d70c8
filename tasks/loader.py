"""Token records -> packed batches for the prefix language model (Grain).

Records are shuffled by index; for each, a task is drawn by weight, one of its steps and a window of the clip; the step
becomes a row of ids, a prefix and a target. Rows are packed best-fit into a fixed length, or grouped by length
(tasks/grouping.py). Everything is a function of the seed and the position, and the iterator's state is a few numbers:
killed anywhere, it goes on at the exact next batch.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import InputError
from models.layers.attention import prefix_bounds
from tasks.modalities import MODALITIES, TOKEN_MODALITIES, Vocabulary
from tasks.prompts import TextCodec, serialise, to_clock, to_ids
from tasks.registry import Step, Task
from tasks.windows import Window, WindowConfig, starts, step_prompt, window_at

PACKINGS = ("best-fit", "grouped")
READ = (4, 32)  # threads and examples ahead; Grain looks at all of these for each one that it takes
WIDE_STREAMS = ("text", "image")
WIDE_UNIT = 64  # targets of these are counted in units of so many: packing looks at one number a unit
TARGET_BIT = 1 << 30  # marks a target in packed ids, which are smaller: packing and processes handle one array, not two
FIRST_WINDOW_SHARE = 1 / 3  # of windows start the clip: every generation begins there


@dataclass(frozen=True)
class LoaderConfig:
    """Shape of a batch.

    Attributes:
        length: ids of a row; an example that is longer is not used.
        rows: rows of a batch.
        block: positions of a head block.
        bins: rows that are filled at once; more waste less, and mix examples from further apart.
        window: latent steps of a window and its past.
        packing: "best-fit", or "grouped": every row one example, every batch of one length, rows * length ids in it.
        groups: how many lengths there are then.
        wide: most targets of a row whose range is text's or the image's; 0 is no bound. These two ranges are where the
            head's cost is: with a bound it has one too.
        workers: processes that read records and make examples; 0 does it in threads of this one. Grouped batches are
            made by whole, in turn, by each.
        clock: examples say when each token is: see ``LanguageModelConfig.clock``.
    """

    length: int
    rows: int
    block: int
    bins: int
    window: WindowConfig
    packing: str = PACKINGS[0]
    groups: int = 8
    workers: int = 0
    wide: int = 0
    clock: bool = False

    def __post_init__(self):
        if self.packing not in PACKINGS:
            raise InputError(f"packing={self.packing}: expected {' or '.join(PACKINGS)}")


@dataclass(frozen=True)
class HeadLayout:
    """Where the head finds each range: per range of the vocabulary its class and the first row in its table."""

    classes: tuple[int, ...]
    rows: tuple[int, ...]
    num_classes: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, model: Any) -> "HeadLayout":
        """Args: model: a ``LanguageModelConfig`` of this vocabulary."""
        found = [model.head_range(r.start, r.size) for r in vocabulary.ranges]
        return cls(tuple(c for c, _ in found), tuple(row for _, row in found), len(model.classes))


# --- One example ------------------------------------------------------------------------------------------------------


def example(
    step: Step,
    record: Mapping[str, Any],
    window: Window,
    config: LoaderConfig,
    vocabulary: Vocabulary,
    text: TextCodec,
) -> dict[str, np.ndarray] | None:
    """Builds the ids of one step on one window of a clip.

    Returns:
        ``tokens`` int32 (n,) and ``target`` int32 (n,), 1 where the token is to be predicted; with ``config.wide`` also
        ``wide``, as long as the targets of that kind in units, and with ``config.clock`` ``clock`` int32 (n,), the
        tick of each token. None if a text is empty or the example is longer than
        a row.
    """
    for name in (*(s.modality for s in step.inputs), step.output):
        if isinstance(record[name], str) and not record[name]:
            return None
    prompt = step_prompt(step.inputs, step.output, record, window, config.window, target=True)
    prefix, target, _ = serialise(prompt)
    before = to_ids(prefix, vocabulary, text)
    after = to_ids(target, vocabulary, text)
    if isinstance(prompt.make.content, str):
        after = np.append(after, np.int32(vocabulary.eos))
    if before.size + after.size > config.length:
        return None
    mark = np.zeros(before.size + after.size, np.int32)
    mark[before.size :] = 1
    built = {"tokens": np.concatenate([before, after]).astype(np.int32), "target": mark}
    if config.clock:
        built["clock"] = np.zeros(mark.size, np.int32)
        ticks = to_clock([*prefix, *target], text)
        built["clock"][: ticks.size] = ticks  # the end of a text comes after it and has none either
    if config.wide:
        # An output is of one modality: all of its targets are of the large ranges, or none is.
        many = after.size if MODALITIES[step.output].stream in WIDE_STREAMS else 0
        if many > config.wide:
            return None
        built["wide"] = np.zeros(-(-many // WIDE_UNIT), np.int32)
    return built


def marked(built: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Puts an example's two arrays into one: what `pack` takes."""
    rest = {name: array for name, array in built.items() if name != "target"}
    return rest | {"tokens": built["tokens"] | built["target"] * np.int32(TARGET_BIT)}


def sample_window(step: Step, steps: int, config: WindowConfig, rng: np.random.Generator) -> Window | None:
    """Draws a window of a clip of ``steps`` latent steps for a step of a task; None if the clip has none."""
    if step.whole_clip:
        return Window(0, steps)
    later = starts(steps)[1:]
    if not step.needs_past and (not later or rng.random() < FIRST_WINDOW_SHARE):
        return window_at(0, steps, config)
    if not later:
        return None
    if step.needs_past and later[0] == 1:
        later = later[1:] or later  # one frame is a past, but a poor one
    return window_at(int(rng.choice(later)), steps, config)


class ExampleMaker:
    """A record and a random generator -> an example: the loader's random map."""

    def __init__(
        self,
        tasks: Sequence[Task],
        weights: np.ndarray,
        config: LoaderConfig,
        vocabulary: Vocabulary,
        text: TextCodec,
        free: float = 0.0,
    ):
        """Args: free: share of examples without their conditions (all but the past of what is made)."""
        if len(weights) != len(tasks) or np.any(np.asarray(weights) < 0) or not np.sum(weights):
            raise InputError(f"tasks: {len(weights)} weights for {len(tasks)} tasks, expected as many, none negative")
        self.tasks, self.config, self.vocabulary, self.text = tuple(tasks), config, vocabulary, text
        self.free = free
        self.weights = np.asarray(weights, float) / np.sum(weights)

    def __call__(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        # Tasks in a random order in which each comes first with its weight: the next one serves where the first does
        # not fit this clip (no script, too long for a row).
        chosen = self.weights > 0
        keys = np.where(chosen, rng.exponential(size=len(chosen)) / np.where(chosen, self.weights, 1), np.inf)
        for index in np.argsort(keys)[: int(chosen.sum())]:
            steps = self.tasks[index].steps
            built = self.build(steps[rng.integers(len(steps))], record, rng)
            if built is not None:
                return built
        raise InputError(
            f"clip {record['clip_id']}: no task fits into rows of {self.config.length} tokens; "
            "expected a longer row or a shorter window"
        )

    def build(self, step: Step, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray] | None:
        window = sample_window(step, record["semantics"].shape[0], self.config.window, rng)
        if window is None:
            return None
        if self.free and rng.random() < self.free:
            step = dataclasses.replace(step, inputs=())
        return example(step, record, window, self.config, self.vocabulary, self.text)


# --- Batches ----------------------------------------------------------------------------------------------------------


def arrange(
    tokens: np.ndarray,
    segments: np.ndarray,
    positions: np.ndarray,
    target: np.ndarray,
    config: LoaderConfig,
    vocabulary: Vocabulary,
    layout: HeadLayout,
    clock: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Turns packed rows into a batch: bounds for attention, and the head's blocks.

    The token at t is predicted at t - 1, so the first target token is predicted at the *last position of the prefix*,
    and the last target token predicts nothing. Every row has its own blocks, in order of the classes of their ranges.
    One row with two segments, a prefix of 2 ids and 3 targets, then 1 and 2 (text ids are below 100 here, the speech
    range of level 0 is [100, 110) and of level 1 is [110, 120))::

        tokens          7   8  101 102 115   9  3   2   0
        segments        1   1   1   1   1    2  2   2   0
        positions       0   1   2   3   4    0  1   2   0
        target          0   0   1   1   1    0  1   1   0
        bounds          1   1   2   3   4    5  6   7   8
        predicted at            1   2   3       5   6
        blocks of 2     text [5 6] -> 3 2; level 0 [1 2] -> 1 2; level 1 [3 -] -> 5

    Args:
        tokens, segments, positions, target: int (B, S).
        clock: int (B, S), with ``config.clock``.

    Returns:
        The batch of ``models.language_model.loss``.
    """
    ranges = vocabulary.ranges
    rows, length = tokens.shape
    size = config.block
    count = -(-length // size) + len(ranges)
    # Ranges in the order of their classes, and the place of each in that order.
    order = np.array(sorted(range(len(ranges)), key=lambda r: (layout.classes[r], r)))
    place = np.argsort(order)
    row, where = np.nonzero(target * (segments > 0))
    ids = tokens[row, where]
    which = np.searchsorted([r.start for r in ranges], ids, side="right") - 1
    # Targets by row and range; within them in the order of the row.
    group = row * len(ranges) + place[which]
    by_group = np.argsort(group, kind="stable")
    row, where, ids, which, group = (x[by_group] for x in (row, where, ids, which, group))
    held = np.bincount(group, minlength=rows * len(ranges))
    blocks = -(-held // size).reshape(rows, len(ranges))  # of each range in each row
    ends = np.cumsum(blocks, axis=1)
    within = np.arange(group.size) - np.repeat(np.cumsum(held) - held, held)  # number of a target in its group
    block = (ends - blocks).reshape(-1)[group] + within // size
    at = (row, block, within % size)
    head_positions = np.zeros((rows, count, size), np.int32)
    head_targets = np.zeros((rows, count, size), np.int32)
    head_weights = np.zeros((rows, count, size), np.float32)
    head_starts = np.zeros((rows, count), np.int32)
    head_positions[at] = where - 1
    head_targets[at] = ids - np.array([r.start for r in ranges])[which]
    head_weights[at] = 1
    head_starts[row, block] = np.array(layout.rows)[which]
    # The last range of each class says where its blocks end.
    last = np.searchsorted(np.array(layout.classes)[order], np.arange(layout.num_classes), side="right") - 1
    inside = (segments > 0) & (target == 0)
    timed = {} if clock is None else {"clock": clock.astype(np.int32)}
    return timed | {
        "tokens": tokens.astype(np.int32),
        "segments": segments.astype(np.int32),
        "positions": positions.astype(np.int32),
        "bounds": prefix_bounds(segments, inside),
        "head_positions": head_positions,
        "head_targets": head_targets,
        "head_weights": head_weights,
        "head_starts": head_starts,
        "head_ends": ends[:, last].astype(np.int32),
    }


def arrange_packed(
    packed: Mapping[str, np.ndarray],
    config: LoaderConfig,
    vocabulary: Vocabulary,
    layout: HeadLayout,
    named: str = "task",
) -> dict[str, np.ndarray]:
    """``arrange`` for what ``pack`` or grouping gives.

    A field ``named`` says something of each token; with it, ``head_<named>``, int32 (B, R, P), says it of each target.
    """
    grouped = "target" in packed
    batch = arrange(
        packed["tokens"] if grouped else packed["tokens"] & (TARGET_BIT - 1),
        packed["tokens_segment_ids"],
        packed["tokens_positions"],
        packed["target"] if grouped else (packed["tokens"] >= TARGET_BIT).astype(np.int32),
        config,
        vocabulary,
        layout,
        packed.get("clock"),
    )
    if named in packed:
        # A target is predicted at the position before it; where a block is empty any value will do.
        rows = np.arange(len(packed[named]))[:, None, None]
        batch[f"head_{named}"] = packed[named][rows, batch["head_positions"] + 1]
    return batch


def pack(examples, config: LoaderConfig, more: Sequence[str] = ()) -> Any:
    """Packs a Grain IterDataset of ``marked`` examples best-fit into batches of (rows, length).

    Args:
        more: further fields of the examples, as long as their tokens.
    """
    import grain

    timed = ("clock",) if config.clock else ()
    lengths = dict.fromkeys(("tokens", *timed, *more), config.length)
    packed = grain.experimental.BestFitPackIterDataset(
        examples,
        length_struct=lengths | ({"wide": max(1, config.wide // WIDE_UNIT)} if config.wide else {}),
        num_packing_bins=max(config.bins, config.rows),
        shuffle_bins=False,
    )
    # All batches are of one shape: what is left at the end of a stream that ends is filled up with empty rows.
    return packed.batch(config.rows, drop_remainder=False).map(functools.partial(_filled, rows=config.rows))


def _filled(batch: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {name: np.pad(array, ((0, rows - len(array)), (0, 0))) for name, array in batch.items()}


def _group(examples, config: LoaderConfig) -> Any:
    """Groups a Grain MapDataset of examples by length; the rows of every batch are a multiple of ``config.rows``."""
    from tasks.grouping import GroupedIterDataset, group_lengths

    lengths = group_lengths(config.length, config.groups)
    return GroupedIterDataset(examples, lengths, config.rows * config.length, config.rows)


def _by_workers(dataset: Any, workers: int) -> Any:
    """Grain's worker processes before an IterDataset's output; its elements come in the same order, whatever their
    pace.
    """
    if not workers:
        return dataset
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers take the flags' values along, and there are none before
        flags.FLAGS.mark_as_parsed()
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=32))


class TokenRecords:
    """The given rows of the tokens column, as a Grain source. Checks that a row is a whole token record."""

    def __init__(self, column: Sequence[Mapping[str, Any]], rows: Sequence[int]):
        self._column, self._rows = column, list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        record = self._column[self._rows[index]]
        missing = [name for name in TOKEN_MODALITIES if name not in record]
        if missing:
            raise InputError(f"token record of clip {record.get('clip_id')}: no field {missing[0]!r}")
        return record

    def __repr__(self) -> str:
        return f"TokenRecords({len(self)} rows)"

    @classmethod
    def of_split(cls, column: Sequence[Mapping[str, Any]], split: str, most: int | None = None) -> "TokenRecords":
        """Returns the clips of a split ("train" or "heldout") that could be tokenized; at most the first ``most``."""
        heads = ((row, column[row]) for row in range(len(column)))
        rows = (row for row, head in heads if not head["error"] and head["split"] == split)
        return cls(column, list(itertools.islice(rows, most)))


def training_batches(
    records: TokenRecords, maker: ExampleMaker, layout: HeadLayout, seed: int, shard: tuple[int, int] = (0, 1)
) -> Any:
    """Returns an infinite Grain dataset of batches; ``iter`` of it has ``get_state`` and ``set_state``.

    Args:
        shard: (index, count) of the process: every epoch's order is shared out among the processes, and each makes
            its own share of the batch.
    """
    import grain

    index, count = shard
    if len(records) < count:
        raise InputError(f"language: {len(records)} token records to train on, expected at least {count}")
    order = grain.MapDataset.source(records).seed(seed).shuffle()
    examples = (order if count == 1 else order[index::count]).repeat(None).random_map(maker)
    if maker.config.packing == "grouped":
        batches = _by_workers(_group(examples, maker.config), maker.config.workers)
    else:
        made = _by_workers(examples.map(marked).to_iter_dataset(grain.ReadOptions(*READ)), maker.config.workers)
        batches = pack(made, maker.config)
    arranged = functools.partial(arrange_packed, config=maker.config, vocabulary=maker.vocabulary, layout=layout)
    return batches.map(arranged)


def heldout_examples(records: TokenRecords, maker: ExampleMaker, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields every step of every task on every clip once, in rounds that hold each task at most once.

    The first examples are of all tasks, whatever the number of clips: who stops early has measured every task that
    fits. From round to round a task goes on to its next step and to another clip; a pair that gives no example (no
    text, too long for a row) is passed over at once. Each pair has one fixed window.

    Args:
        records: the held-out clips.
        maker: tasks whose weight is 0 are left out.
        seed: of the windows and of the order in a round.

    Yields:
        ``tokens``, ``target`` and ``task``, int32 (n,); the task is its number in ``maker.tasks``.
    """
    at = {number: 0 for number in np.flatnonzero(maker.weights).tolist()}
    rounds = 0
    while at and len(records):
        for number in np.random.default_rng((seed, rounds)).permutation(list(at)).tolist():
            steps = maker.tasks[number].steps
            for pair in range(at[number], len(records) * len(steps)):
                # Every (clip, step) once: neighbours differ in the step, tasks begin at different clips and steps.
                place = (pair + number) % len(steps)
                row = (pair // len(steps) + place + number) % len(records)
                built = maker.build(steps[place], records[row], np.random.default_rng((seed, row, number, place)))
                if built is not None:
                    at[number] = pair + 1
                    yield built | {"task": np.full(built["tokens"].size, number, np.int32)}
                    break
            else:
                del at[number]
        rounds += 1


def heldout_batches(
    records: TokenRecords, maker: ExampleMaker, layout: HeadLayout, limit: int | None, seed: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yields at most ``limit`` fixed batches of ``heldout_examples``; all of them without a limit.

    Each also has ``head_task``, int32 (R, P): which task each target of the head's blocks is of, as its number in
    ``maker.tasks``.
    """
    import grain

    config, examples, size = maker.config, [], 0
    for built in heldout_examples(records, maker, seed):
        examples.append(built)
        size += built["tokens"].size
        if limit is not None and size >= limit * config.rows * config.length:
            break
    if not examples:
        return
    source = grain.MapDataset.source([marked(built) for built in examples]).to_iter_dataset()
    for count, batch in enumerate(pack(source, config, ("task",))):
        if count == limit:
            return
        yield arrange_packed(batch, config, maker.vocabulary, layout)
