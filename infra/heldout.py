"""What the measures of a trained language model share: its held-out clips as rows of one, and a line now and then."""

import sys
import time
from collections.abc import Callable
from typing import Any

BLOCK = 64  # positions of a head block: what is measured does not hang on it


def one_row_maker(language: Any) -> tuple[Any, Any]:
    """Returns (ExampleMaker, HeadLayout) of all tasks alike, for batches of one row as long as the model's context.

    Args:
        language: a ``tasks.generate.Language``.
    """
    from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig
    from tasks.mixture import uniform_weights
    from tasks.registry import TASKS

    loader = LoaderConfig(
        language.length, rows=1, block=BLOCK, bins=8, window=language.window, clock=language.config.clock
    )
    maker = ExampleMaker(TASKS, uniform_weights(TASKS), loader, language.vocabulary, language.text)
    return maker, HeadLayout.of(language.vocabulary, language.config)


def row_progress(name: str, every: float = 10.0) -> Callable[[int], None]:
    """Returns a function of the rows done so far that says so, at most every so many seconds."""
    begin = time.monotonic()
    reported = begin

    def progress(rows: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > every:
            reported = time.monotonic()
            print(f"[{name}] {rows} rows in {reported - begin:.0f} s", file=sys.stderr, flush=True)

    return progress
