"""Windows of a clip, and the prompt of a step on a window.

A clip in every modality is longer than a small model's context, so the model works on windows of latent steps and the
time-dependent modalities carry the paper's two states: what lies in the window is *current*; what the output was just
before it is *past*. The grid of starts is 3 latent steps = 12 frames = 0.4 s = 10 speech steps, on which speech and
latent steps meet (the first window also has step 0, frame 0 alone)::

    latent   0 | 1 2 3 | 4 5 6 | ...
    speech   0 | 1..10 | 11..20 | ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.signals import TIME_STRIDE
from tasks.modalities import MODALITIES
from tasks.prompts import Field, Prompt
from tasks.registry import Source

BLOCK = 3  # latent steps between window starts

Content = np.ndarray | str


@dataclass(frozen=True)
class WindowConfig:
    """Latent steps of a full window (after the first step of the clip) and of the past before it."""

    current: int = 6
    past: int = 3

    def __post_init__(self):
        if self.current % BLOCK or self.past % BLOCK or self.current < BLOCK or self.past < BLOCK:
            raise InputError(f"window: current={self.current} past={self.past}, expected multiples of {BLOCK}")


@dataclass(frozen=True)
class Window:
    """Latent steps [start, stop) of a clip; start is 0 or 1 + 3b."""

    start: int
    stop: int

    @property
    def frames(self) -> int:
        return span_frames(self.start, self.stop)


def span_frames(start: int, stop: int) -> int:
    """Returns how many video frames the latent steps [start, stop) last: one for step 0, four for every other."""
    return TIME_STRIDE * (stop - start) - (TIME_STRIDE - 1 if start == 0 and stop > 0 else 0)


def window_at(start: int, steps: int, config: WindowConfig) -> Window:
    """Returns the window at a latent step of a clip of ``steps`` latent steps; the clip's last may be short."""
    return Window(start, min(steps, start + config.current + (start == 0)))


def slide(steps: int, config: WindowConfig, begin: int = 0) -> list[Window]:
    """Returns the windows that cover a clip from a latent step on, one after the other."""
    windows = [window_at(begin, steps, config)]
    while windows[-1].stop < steps:
        windows.append(window_at(windows[-1].stop, steps, config))
    return windows


def starts(steps: int) -> list[int]:
    """Returns every latent step at which a window of the clip may start."""
    return [0, *range(1, steps, BLOCK)]


def step_prompt(
    inputs: Sequence[Source],
    output: str,
    known: Mapping[str, Content],
    window: Window,
    config: WindowConfig,
    *,
    target: bool,
) -> Prompt:
    """Builds the prompt of one step on one window.

    A window that does not start the clip also gives the past of a time-dependent output, whatever the task: that is
    how a long clip is continued. Inputs are listed in one fixed order, the past of a modality before its present: what
    a model has learned does not hang on the order in which somebody names things.

    Args:
        inputs: the step's inputs.
        output: what is to be made.
        known: codes or text of the whole clip (of the output: at least up to the window's start).
        window: the window.
        config: how long the past is.
        target: whether the output's content is put in (an example) or not (a request).
    """
    past = (max(0, window.start - config.past), window.start)
    fields = []
    listed = list(inputs)
    if window.start and MODALITIES[output].has_clock and Source(output, "past") not in listed:
        listed.append(Source(output, "past"))
    for source in listed:
        span = past if source.state == "past" else (window.start, window.stop)
        if source.state == "past" and not window.start:
            raise ValueError(f"{source.modality}: no past at the start of a clip")
        fields.append(_field(source.modality, source.state, known[source.modality], span))
    make = _field(output, "current", known[output] if target else None, (window.start, window.stop))
    fields.sort(key=lambda field: (list(MODALITIES).index(field.modality), field.state != "past"))
    return Prompt(tuple(fields), make)


def _field(name: str, state: str, content: Content | None, span: tuple[int, int]) -> Field:
    m = MODALITIES[name]
    if content is not None and not m.is_text:
        content = m.take(np.asarray(content), *span)
    return Field(name, state if m.time_dependent else "", span_frames(*span) if m.has_clock else 0, content)
