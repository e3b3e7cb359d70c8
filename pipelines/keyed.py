"""Batches whose elements carry their key, so that a label never lands on the wrong clip.

A batch function gets keyed items and answers with (key, result) pairs in any order: as they complete, from threads or
over a network. Answers are matched by key and never by position. One bad element loses one element: when a batch
raises, what it had answered is kept and the rest is tried again in halves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipelines.records import Record


@dataclass(frozen=True)
class Keyed:
    """One clip of a batch: its key, its record and the records of the columns that are needed, by column."""

    key: str
    clip: Record
    columns: dict[str, Record]


Fields = dict[str, Record]  # column -> its fields
Outcome = Fields | Exception
BatchFunction = Callable[[Sequence[Keyed]], Iterable[tuple[str, Outcome]]]


class WrongKey(Exception):
    """A batch function answered for an element twice, not at all, or for one that it was not given."""


def run_keyed(function: BatchFunction, items: Sequence[Keyed]) -> dict[str, Outcome]:
    """Returns key -> result or exception, for exactly the keys of the items.

    An exception that is *answered* belongs to its element and is not tried again. One that is *raised* belongs to the
    batch: halves of what is not answered are tried, down to single elements. An element that is left out is asked for
    once more on its own. Two answers for one element are an error of that element. An answer for an unknown key makes
    all answers of that call worthless (nobody knows whose they are), and its elements are tried one by one.

    Raises:
        ValueError: two items have the same key.
    """
    if len({item.key for item in items}) != len(items):
        raise ValueError("two items of a batch have the same key")
    outcomes: dict[str, Outcome] = {}
    todo = [list(items)] if items else []
    while todo:
        batch = todo.pop()
        answers, problem = _call(function, batch)
        outcomes.update(answers)
        rest = [item for item in batch if item.key not in answers]
        if not rest:
            continue
        if len(batch) == 1:
            outcomes[batch[0].key] = problem or WrongKey(f"no answer for {batch[0].key}")
        elif problem is None or isinstance(problem, WrongKey):
            todo += [[item] for item in rest]
        elif len(rest) < len(batch):
            todo.append(rest)
        else:
            todo += [rest[: len(rest) // 2], rest[len(rest) // 2 :]]
    return outcomes


def _call(function: BatchFunction, batch: Sequence[Keyed]) -> tuple[dict[str, Outcome], Exception | None]:
    """One call: the answers by key, and what it raised."""
    asked = {item.key for item in batch}
    answers: dict[str, Outcome] = {}
    try:
        for key, outcome in function(batch):
            if key not in asked:
                return {}, WrongKey(f"an answer for {key!r}, which was not asked about")
            answers[key] = outcome if key not in answers else WrongKey(f"two answers for {key}")
    except Exception as error:
        return answers, error
    return answers, None


def one_by_one(function: Callable[[Keyed], Fields]) -> BatchFunction:
    """A function of one element as a batch function: what it raises is the element's own failure."""

    def run(items: Sequence[Keyed]):
        for item in items:
            try:
                yield item.key, function(item)
            except Exception as error:
                yield item.key, error

    return run
