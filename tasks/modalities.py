"""The modalities: which tokens they have, on which clock, and where their tokens lie in the vocabulary.

A modality of the paper is one or more *streams* here: animation is three (shape, expression, pose), since the three
have their own tokenizers and the chain of the paper produces them one after the other. Video has no tokens: it is taken
apart into semantics and image, and the diffusion decoder makes it from these and text.

Every level of every stream is its own contiguous range of ids, in the order text, image, speech, shape, expression,
pose, semantics, so the softmax of a known position is restricted to one range. Sizes come from the tokenizers in use;
with the paper's they total 546,944.

Order of a block of tokens: level by level, the whole window, low level to high (paper, speech tokenizer).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.signals import SPEECH_RATE, TIME_STRIDE, VIDEO_FPS, grid_frames, latent_steps, speech_steps


@dataclass(frozen=True)
class Modality:
    """One stream that the language model reads and writes (or the decoder makes).

    Attributes:
        name: as in prompts, records and chains.
        stream: whose ids it uses: a key of the vocabulary; "" has no tokens.
        clock: "speech" (25 Hz), "latent" (the 30 fps grid / 4), "text" (as long as it is) or "once" (time-invariant).
        levels: residual levels; 0 for text.
        cell: shape of one level at one step.
        time_axis: where time is in the array of codes; None without one.
        about: one line.
        back: what its tokens become when they are read back, by the stream's tokenizer.
        of: the paper's modality that it is, or is a part of; "" is its own name.
    """

    name: str
    stream: str
    clock: str
    levels: int
    cell: tuple[int, ...]
    time_axis: int | None
    about: str
    back: str
    of: str = ""

    @property
    def paper_name(self) -> str:
        """The name of the paper's modality: one of seven."""
        return self.of or self.name

    @property
    def is_text(self) -> bool:
        return self.stream == "text"

    @property
    def time_dependent(self) -> bool:
        """Whether it exists in two states, past and current.

        As the paper divides them: script, speech, expression, semantics and video are time-dependent (and pose, which
        it does not place); image, description and shape are not.
        """
        return self.has_clock or self.name == "script"

    @property
    def has_clock(self) -> bool:
        """Whether it can be cut into windows. A script is time-dependent, but given and made whole."""
        return self.rate is not None

    @property
    def rate(self) -> float | None:
        """Token steps a second; None for text and for what a clip has once."""
        return {"speech": float(SPEECH_RATE), "latent": VIDEO_FPS / TIME_STRIDE}.get(self.clock)

    @property
    def ticks(self) -> int:
        """Ticks of ``TICK_RATE`` that a token step lasts: 3 of speech, 10 of what is on the latent grid."""
        return round(TICK_RATE / self.rate)

    @property
    def states(self) -> tuple[str, ...]:
        return ("past", "current") if self.time_dependent else ()

    def steps(self, frames: int) -> int:
        """Returns how many token steps a clip of ``frames`` = 4k + 1 video frames has (1 without a clock)."""
        return {"speech": speech_steps, "latent": latent_steps}.get(self.clock, lambda _: 1)(frames)

    def step_range(self, start: int, stop: int) -> tuple[int, int]:
        """Returns the token steps that lie in the latent steps [start, stop): frame 0's step first, then four frames
        each.

        Speech has 10 steps for every 3 latent steps, and one for the first: a window that starts at latent step 0 or
        1 + 3b starts on a speech step as well.
        """
        if self.clock == "latent":
            return start, stop
        if self.clock == "speech":
            return tuple(speech_steps(TIME_STRIDE * (s - 1) + 1) if s else 0 for s in (start, stop))
        return 0, 1

    def tick_of(self, state: str, frames: int, steps: int) -> int:
        """Returns the tick of the middle of a block's first step, counted from where the current window begins.

        A past block ends there. A current one of ``frames`` = 4k + 1 begins the clip with its first frame alone, which
        is step 0 of either clock; after it both start anew.
        """
        before = steps if state == "past" else frames % TIME_STRIDE
        return {"speech": 4, "latent": 7}[self.clock] - self.ticks * before

    def num_tokens(self, frames: int) -> int | None:
        """Returns the tokens of a clip of ``frames`` frames; None for text, whose length is its own.

        Those of a video are of the semantic video and the image that it is taken apart into.
        """
        if self.is_text:
            return None
        if not self.stream:
            return sum(MODALITIES[name].num_tokens(frames) for name in VIDEO_PARTS)
        return self.levels * self.steps(frames) * math.prod(self.cell)

    def tokens_in(self, seconds: float) -> int | None:
        """Returns the tokens of a clip of so many seconds: of the ``4k + 1`` frames that fit; None for text.

        Raises:
            InputError: not a frame long.
        """
        frames = grid_frames(round(seconds * VIDEO_FPS))
        if frames < 1:
            raise InputError(f"seconds={seconds:g}: expected at least {1 / VIDEO_FPS:.3f}, one frame")
        return self.num_tokens(frames)

    def take(self, codes: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Returns the codes of the latent steps [start, stop); all of them where there is no time axis."""
        if self.time_axis is None:
            return codes
        first, last = self.step_range(start, stop)
        if last > codes.shape[self.time_axis]:
            raise InputError(
                f"{self.name}: codes of {codes.shape[self.time_axis]} steps, expected at least {last} "
                f"for {TIME_STRIDE * (stop - 1) + 1} frames"
            )
        return np.take(codes, np.arange(first, last), axis=self.time_axis)


MODALITIES: dict[str, Modality] = {
    m.name: m
    for m in (
        Modality(
            "description", "text", "text", 0, (), None, "structured JSON: appearance, action, environment", "JSON"
        ),
        Modality("script", "text", "text", 0, (), None, "what is said", "text"),
        Modality("speech", "speech", "speech", 4, (), 1, "16 kHz sound, residual levels at 25 Hz", "sound, 16 kHz"),
        Modality(
            "shape", "shape", "once", 8, (), None, "3DMM identity, one fit a clip", "3DMM coefficients", "animation"
        ),
        Modality(
            "expression",
            "expression",
            "latent",
            8,
            (),
            1,
            "3DMM expression, 30 fps / 4",
            "3DMM coefficients, 30 fps",
            "animation",
        ),
        Modality(
            "pose",
            "pose",
            "latent",
            6,
            (),
            1,
            "3DMM head rotation and translation, 30 fps / 4",
            "rotation and translation, 30 fps",
            "animation",
        ),
        Modality(
            "semantics",
            "semantics",
            "latent",
            1,
            (8, 8),
            0,
            "21-class parsing video, 30 fps / 4",
            "labels 128x128, 30 fps",
        ),
        Modality("image", "image", "once", 1, (16, 16), None, "reference image", "picture 256x256"),
        Modality(
            "video",
            "",
            "latent",
            0,
            (),
            None,
            "made by the decoder from semantics, image and text",
            "by the decoder: frames, 30 fps",
        ),
    )
}
TICK_RATE = 75  # ticks a second: the fewest of which a step of either clock is a whole number
VIDEO_PARTS = ("semantics", "image")  # what a video is taken apart into (paper, semantic video reparameterization)
TOKEN_MODALITIES = tuple(m.name for m in MODALITIES.values() if m.stream)
STREAMS = ("text", "image", "speech", "shape", "expression", "pose", "semantics")
STREAM_LEVELS = {m.stream: m.levels for m in MODALITIES.values() if m.levels} | {"text": 1}


@dataclass(frozen=True)
class Range:
    """The ids of one level of one stream: [start, start + size)."""

    stream: str
    level: int
    start: int
    size: int


@dataclass(frozen=True)
class Vocabulary:
    """Where every level's ids lie.

    Attributes:
        sizes: one entry per stream, in the order of ``STREAMS``: the sizes of its levels.
        eos: the id that ends a text.
    """

    sizes: tuple[tuple[int, ...], ...]
    eos: int

    def __post_init__(self):
        for stream, levels in zip(STREAMS, self.sizes, strict=True):
            if len(levels) != STREAM_LEVELS[stream]:
                raise InputError(f"{stream}: a tokenizer of {len(levels)} levels, expected {STREAM_LEVELS[stream]}")
        if not 0 <= self.eos < self.sizes[0][0]:
            raise InputError(f"text: end token {self.eos} is not one of the {self.sizes[0][0]} text tokens")

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Every range in order of its ids."""
        out, start = [], 0
        for stream, levels in zip(STREAMS, self.sizes, strict=True):
            for level, size in enumerate(levels):
                out.append(Range(stream, level, start, size))
                start += size
        return tuple(out)

    @property
    def total(self) -> int:
        return sum(sum(levels) for levels in self.sizes)

    def stream_ranges(self, stream: str) -> tuple[Range, ...]:
        return tuple(r for r in self.ranges if r.stream == stream)

    def show(self) -> str:
        """Returns the ranges as one line: each stream's ids, its levels where it has several, the total."""
        parts = []
        for stream in STREAMS:
            ranges = self.stream_ranges(stream)
            levels = f" in levels of {' + '.join(str(r.size) for r in ranges)}" if len(ranges) > 1 else ""
            parts.append(f"{stream} {ranges[0].start}-{ranges[-1].start + ranges[-1].size - 1}{levels}")
        return f"{', '.join(parts)}; {self.total} ids, end of text {self.eos}"

    def to_json(self) -> dict:
        return {"sizes": dict(zip(STREAMS, map(list, self.sizes), strict=True)), "eos": self.eos, "total": self.total}

    @classmethod
    def from_json(cls, value: Mapping) -> "Vocabulary":
        try:
            return cls(tuple(tuple(value["sizes"][s]) for s in STREAMS), value["eos"])
        except (KeyError, TypeError) as error:
            raise InputError(
                f"vocabulary: {type(error).__name__} {error}, expected sizes of {', '.join(STREAMS)}"
            ) from None

    @classmethod
    def of_codebooks(cls, codebooks: Mapping[str, tuple[int, ...]], eos: int) -> "Vocabulary":
        """Builds the vocabulary of tokenizers whose ``codebook_sizes`` are given by stream."""
        return cls(tuple(tuple(int(n) for n in codebooks[s]) for s in STREAMS), eos)


PAPER_CODEBOOKS: dict[str, tuple[int, ...]] = {
    "text": (256_128,),
    "image": (2**18,),
    "speech": (1024,) * 4,
    "shape": (512,) * 8,
    "expression": (2048,) * 8,
    "pose": (512,) * 6,
    "semantics": (1024,),
}


@dataclass(frozen=True)
class Span:
    """``count`` consecutive positions whose tokens come from ``range``."""

    range: Range
    count: int


def spans(vocabulary: Vocabulary, modality: str, steps: int) -> tuple[Span, ...]:
    """Returns the grammar of a block of ``steps`` steps: one span per level, low to high. Not for text."""
    m = MODALITIES[modality]
    return tuple(Span(r, steps * math.prod(m.cell)) for r in vocabulary.stream_ranges(m.stream))


def flatten(vocabulary: Vocabulary, modality: str, codes: np.ndarray) -> np.ndarray:
    """Turns codes into ids, level by level, low level to high.

    Args:
        codes: integers, (4, n) speech, (8,) shape, (8, n) expression, (6, n) pose, (n, 8, 8) semantics, (16, 16) image.

    Returns:
        int32 (levels * n * cells,).

    Raises:
        InputError: wrong shape, or a code outside its level's codebook.
    """
    m, ranges = MODALITIES[modality], vocabulary.stream_ranges(MODALITIES[modality].stream)
    codes = np.asarray(codes)
    axes = list(codes.shape)
    steps = 1 if m.time_axis is None else axes[m.time_axis] if codes.ndim > m.time_axis else 0
    if codes.shape != _codes_shape(m, steps):
        raise InputError(f"{modality}: codes of shape {codes.shape}, expected {_codes_shape(m, 'n')}")
    rows = codes.reshape(m.levels, -1).astype(np.int32)
    sizes = np.array([[r.size] for r in ranges])
    if rows.size and (rows.min() < 0 or np.any(rows >= sizes)):
        raise InputError(
            f"{modality}: codes from {rows.min()} to {rows.max()}, expected less than {sizes.ravel().tolist()}"
        )
    return (rows + np.array([[r.start] for r in ranges], np.int32)).reshape(-1)


def unflatten(vocabulary: Vocabulary, modality: str, ids: np.ndarray) -> np.ndarray:
    """Turns ids back into codes: the inverse of ``flatten``.

    Raises:
        InputError: a number of ids that is no whole number of steps, or an id outside the range of its level.
    """
    m, ranges = MODALITIES[modality], vocabulary.stream_ranges(MODALITIES[modality].stream)
    ids = np.asarray(ids)
    per_step = m.levels * math.prod(m.cell)
    steps = ids.size // per_step
    if ids.size != steps * per_step or (m.time_axis is None and steps != 1):
        raise InputError(f"{modality}: {ids.size} tokens, expected a multiple of {per_step}")
    rows = ids.reshape(m.levels, -1) - np.array([[r.start] for r in ranges])
    if np.any(rows < 0) or np.any(rows >= np.array([[r.size] for r in ranges])):
        raise InputError(f"{modality}: a token that does not belong to its level")
    return rows.astype(np.int32).reshape(_codes_shape(m, steps))


def _codes_shape(m: Modality, steps) -> tuple:
    if m.name == "semantics":
        return (steps, *m.cell)
    if m.name == "image":
        return m.cell
    return (m.levels,) if m.time_axis is None else (m.levels, steps)
