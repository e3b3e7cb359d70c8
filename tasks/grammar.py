"""Which text may come: a text of fixed form as a table that the sampler follows, so that what it writes always parses.

A form is a sequence of parts, each a choice of strings. Read character by character it is a finite automaton; walked
piece by piece of the text tokenizer it becomes a table (state, piece) -> state.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from models.errors import InputError
from tasks.prompts import escape

Form = Sequence[Sequence[str]]


def grammar_table(form: Form, pieces: Sequence[str], end: int) -> np.ndarray:
    """Returns the states that pieces lead to.

    Args:
        form: the parts; what a part may say is not empty, and none of it begins another choice of the same part.
        pieces: the text of every id, empty for ids that write nothing.
        end: the id that ends a text; it is allowed where the form is complete, and there alone.

    Returns:
        int32 (S, len(pieces)); row 0 is the beginning, -1 is not allowed.

    Raises:
        InputError: a choice begins another one, or the pieces cannot write the form.
    """
    steps = _automaton(form)
    last = len(steps) - 1
    by_first = defaultdict(list)
    for index, piece in enumerate(pieces):
        if piece and index != end:
            by_first[piece[0]].append((index, piece))
    table = np.full((len(steps), len(pieces)), -1, np.int32)
    for state, out in enumerate(steps):
        for first in out:
            for index, piece in by_first[first]:
                at = state
                for character in piece:
                    at = steps[at].get(character)
                    if at is None:
                        break
                else:
                    table[state, index] = at
    table[last, end] = last
    # From every state that a sample can be in there must be a way on.
    stuck = (table < 0).all(1)
    if stuck.any():
        wanted = sorted({character for state in np.flatnonzero(stuck) for character in steps[state]})
        raise InputError(f"text tokenizer: no piece writes {' or '.join(map(repr, wanted))}, which the form needs")
    return table


def _automaton(form: Form) -> list[dict[str, int]]:
    """The form's states, each character -> next state; 0 is the beginning, the last one is the end."""
    steps: list[dict[str, int]] = [{}]
    begin = 0
    for part in form:
        texts = sorted({escape(text) for text in part})
        for text, following in zip(texts, texts[1:], strict=False):
            if following.startswith(text):
                raise InputError(f"form: {text!r} begins {following!r}, expected choices that tell themselves apart")
        join: list[tuple[int, str]] = []
        for text in texts:
            at = begin
            for character in text[:-1]:
                if character not in steps[at]:
                    steps.append({})
                    steps[at][character] = len(steps) - 1
                at = steps[at][character]
            join.append((at, text[-1]))
        # All choices of a part meet where the next part begins.
        steps.append({})
        begin = len(steps) - 1
        for at, character in join:
            steps[at][character] = begin
    return steps
