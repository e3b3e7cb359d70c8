"""Prompts: a step of a task as natural-language descriptors around blocks of modality tokens, and back.

There are no task tokens. A prompt says in HTML-like words which modality each block is, in which state, how many
frames it lasts, what is given and what is wanted::

    <given> <speech state=current frames=25> [84 tokens] </speech> <image> [256 tokens] </image> </given>
    <make> <expression state=current frames=25> [56 tokens, the target] </expression> </make>

The model reads everything up to the target as its prefix, and writes the target. Blocks with a fixed number of tokens
need no end mark; a text ends with the tokenizer's end token.

Free text is escaped (``&lt;`` ``&gt;`` ``&amp;``), so that no script can close its own field. ``serialise`` and
``parse`` are inverses. Pieces of text are tokenized one by one; blocks are ids already, in ranges that no text has,
which is how ``to_pieces`` takes a row of ids apart again.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.errors import InputError
from tasks.modalities import MODALITIES, STREAMS, Vocabulary, flatten, unflatten
from tasks.registry import TASKS


class TextCodec(Protocol):
    """What prompts need of the text tokenizer."""

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, ids: np.ndarray) -> str: ...

    def pieces(self) -> list[str]: ...


@dataclass(frozen=True)
class Field:
    """One modality in a prompt.

    Attributes:
        modality: its name.
        state: "past" or "current" for time-dependent modalities, "" for others.
        frames: video frames that the block lasts; 0 without a clock (text, shape, image).
        content: codes, text, or None where it is to be made.
    """

    modality: str
    state: str = ""
    frames: int = 0
    content: np.ndarray | str | None = None

    def __eq__(self, other):
        if not isinstance(other, Field):
            return NotImplemented
        same = (self.modality, self.state, self.frames) == (other.modality, other.state, other.frames)
        if isinstance(self.content, np.ndarray) and isinstance(other.content, np.ndarray):
            return same and np.array_equal(self.content, other.content)
        return same and type(self.content) is type(other.content) and self.content == other.content

    __hash__ = None


@dataclass(frozen=True)
class Prompt:
    """What is given and what is to be made (its ``content`` is None in a request, the target in an example)."""

    given: tuple[Field, ...]
    make: Field


@dataclass(frozen=True, eq=False)
class Block:
    """Tokens of one modality, as codes; ``tick`` is when its first step is (``Modality.tick_of``)."""

    modality: str
    codes: np.ndarray
    tick: int = 0


Piece = str | Block

CLOCK_ZERO = 256  # where a window begins: far from the 0 of what has no clock

_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))
_TAG = re.compile(r"<(?P<close>/?)(?P<name>[a-z]+)(?P<attributes>(?: [a-z]+=[a-z0-9]+)*)>")


def escape(text: str) -> str:
    """Makes a text safe inside a field."""
    for raw, safe in _ESCAPES:
        text = text.replace(raw, safe)
    return text


def unescape(text: str) -> str:
    """The inverse of ``escape``. Of a text that the model wrote, whatever is no escape stays as it is."""
    for raw, safe in reversed(_ESCAPES):
        text = text.replace(safe, raw)
    return text


def _open(field: Field) -> str:
    state = f" state={field.state}" if field.state else ""
    frames = f" frames={field.frames}" if field.frames else ""
    return f"<{field.modality}{state}{frames}>"


def _block(field: Field) -> Block:
    m, codes = MODALITIES[field.modality], np.asarray(field.content)
    timed = m.has_clock and codes.ndim > m.time_axis  # other shapes are refused where ids are made of them
    tick = m.tick_of(field.state, field.frames, codes.shape[m.time_axis]) if timed else 0
    return Block(field.modality, codes, tick)


def serialise(prompt: Prompt) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Turns a prompt into (prefix, target, end): pieces of text and blocks.

    The target is empty in a request. ``end`` closes the tags: it carries no information, the model never sees it, and
    ``parse`` wants it only so that the whole is well formed.
    """
    prefix: list[Piece] = ["<given>"]
    for field in prompt.given:
        if field.content is None:
            raise ValueError(f"{field.modality}: an input without content")
        prefix[-1] += _open(field)
        if isinstance(field.content, str):
            prefix[-1] += f"{escape(field.content)}</{field.modality}>"
        else:
            prefix += [_block(field), f"</{field.modality}>"]
    prefix[-1] += f"</given><make>{_open(prompt.make)}"
    content = prompt.make.content
    target: list[Piece] = []
    if isinstance(content, str):
        target = [escape(content)]
    elif content is not None:
        target = [_block(prompt.make)]
    return prefix, target, [f"</{prompt.make.modality}></make>"]


def parse(pieces: Sequence[Piece]) -> Prompt:
    """Reads a serialised prompt back (prefix + target + end, concatenated; a request may stop at the prefix).

    Raises:
        InputError: the pieces are not a prompt; says what was expected where.
    """
    given: list[Field] = []
    stream = _Pieces(pieces)
    stream.tag("given")
    while not stream.at_close("given"):
        given.append(stream.field())
    stream.close("given")
    stream.tag("make")
    name, attributes = stream.tag()
    if stream.finished():
        return Prompt(tuple(given), _field(name, attributes, None))
    made = _field(name, attributes, stream.content(name))
    stream.close(name)
    stream.close("make")
    if not stream.finished():
        raise InputError("prompt: something follows </make>")
    return Prompt(tuple(given), made)


def _field(name: str, attributes: dict[str, str], content: np.ndarray | str | None) -> Field:
    unknown = sorted(set(attributes) - {"state", "frames"})
    if unknown:
        raise InputError(f"prompt: <{name}> has no attribute {unknown[0]!r}")
    frames = attributes.get("frames", "0")
    if not frames.isdigit():
        raise InputError(f"prompt: <{name}> frames={frames}, expected a number")
    return Field(name, attributes.get("state", ""), int(frames), content)


class _Pieces:
    """A reader of pieces: tags, blocks and text, left to right."""

    def __init__(self, pieces: Sequence[Piece]):
        self._rest: list[Piece] = []
        for piece in pieces:  # text that was split is one text
            if isinstance(piece, str) and self._rest and isinstance(self._rest[-1], str):
                self._rest[-1] += piece
            elif piece != "" or isinstance(piece, Block):
                self._rest.append(piece)

    def finished(self) -> bool:
        return not self._rest

    def _match(self) -> re.Match | None:
        return _TAG.match(self._rest[0]) if self._rest and isinstance(self._rest[0], str) else None

    def _drop(self, count: int) -> None:
        self._rest[0] = self._rest[0][count:]
        if not self._rest[0]:
            del self._rest[0]

    def at_close(self, name: str) -> bool:
        match = self._match()
        return bool(match and match["close"] and match["name"] == name)

    def tag(self, name: str | None = None) -> tuple[str, dict[str, str]]:
        match = self._match()
        wanted = f"<{name}>" if name else "the tag of a modality"
        if match is None or match["close"] or (name and match["name"] != name):
            raise InputError(f"prompt: {self._here()}, expected {wanted}")
        if name is None and not (match["name"] in MODALITIES and MODALITIES[match["name"]].stream):
            raise InputError(f"prompt: {match[0]}, expected {wanted}")
        self._drop(match.end())
        pairs = [word.split("=") for word in match["attributes"].split()]
        if len({key for key, _ in pairs}) != len(pairs):
            raise InputError(f"prompt: {match[0]} says one thing twice")
        return match["name"], dict(pairs)

    def close(self, name: str) -> None:
        if not self.at_close(name):
            raise InputError(f"prompt: {self._here()}, expected </{name}>")
        self._drop(self._match().end())

    def content(self, name: str) -> np.ndarray | str:
        if MODALITIES[name].is_text:
            text = ""
            if self._rest and isinstance(self._rest[0], str):
                text = self._rest[0].split("<", 1)[0]
                if text:
                    self._drop(len(text))
            return unescape(text)
        if not self._rest or not isinstance(self._rest[0], Block) or self._rest[0].modality != name:
            raise InputError(f"prompt: {self._here()}, expected tokens of {name}")
        return self._rest.pop(0).codes

    def field(self) -> Field:
        name, attributes = self.tag()
        content = self.content(name)
        self.close(name)
        return _field(name, attributes, content)

    def _here(self) -> str:
        if not self._rest:
            return "the end"
        head = self._rest[0]
        return repr(head[:40]) if isinstance(head, str) else f"tokens of {head.modality}"


# --- Tokens -----------------------------------------------------------------------------------------------------------


def to_ids(pieces: Sequence[Piece], vocabulary: Vocabulary, text: TextCodec) -> np.ndarray:
    """Returns int32 ids of pieces: text by the tokenizer, blocks by their ranges."""
    parts = [
        np.asarray(text.encode(piece), np.int32)
        if isinstance(piece, str)
        else flatten(vocabulary, piece.modality, piece.codes)
        for piece in pieces
    ]
    return np.concatenate([np.zeros(0, np.int32), *parts])


def to_clock(pieces: Sequence[Piece], text: TextCodec) -> np.ndarray:
    """Returns when each id of ``to_ids`` is, int32: a tick, from ``CLOCK_ZERO`` on; 0 for what has no clock."""
    parts = [np.zeros(0, np.int32)]
    for piece in pieces:
        if isinstance(piece, str):
            parts.append(np.zeros(len(text.encode(piece)), np.int32))
        elif MODALITIES[piece.modality].has_clock:
            steps = piece.codes.shape[MODALITIES[piece.modality].time_axis]
            parts.append(block_clock(piece.modality, steps, piece.tick))
        else:
            parts.append(np.zeros(piece.codes.size, np.int32))
    return np.concatenate(parts)


def block_clock(modality: str, steps: int, tick: int) -> np.ndarray:
    """Returns when each id of a block is, int32 (levels * steps * cells,), in the order of ``flatten``."""
    m = MODALITIES[modality]
    times = CLOCK_ZERO + tick + m.ticks * np.arange(steps, dtype=np.int32)
    return np.repeat(np.tile(times, m.levels), math.prod(m.cell))


def to_pieces(ids: np.ndarray, vocabulary: Vocabulary, text: TextCodec) -> list[Piece]:
    """Takes ids apart: runs of text ids are decoded (an end token ends its run), runs of one stream become blocks.

    Args:
        ids: int32 (n,), what ``to_ids`` gave (two blocks of one stream never touch: tags lie between them).
    """
    starts = np.array([vocabulary.stream_ranges(s)[0].start for s in STREAMS])
    stream = np.searchsorted(starts, ids, side="right") - 1
    cuts = np.flatnonzero(np.diff(stream)) + 1
    pieces: list[Piece] = []
    for run, which in zip(np.split(ids, cuts), np.split(stream, cuts), strict=True):
        if not run.size:
            continue
        if STREAMS[which[0]] == "text":
            pieces.append(text.decode(run[run != vocabulary.eos]))
        else:
            pieces.append(Block(STREAMS[which[0]], unflatten(vocabulary, STREAMS[which[0]], run)))
    return pieces


def show(pieces: Sequence[Piece]) -> str:
    """Returns pieces as one readable line: blocks as their number of tokens."""
    return "".join(p if isinstance(p, str) else f"[{p.codes.size} {p.modality} tokens]" for p in pieces)


def prompt_corpus(frames: Sequence[int] = (12, 13, 24, 25, 48, 49, 73, 97, 121, 145, 169, 181)) -> list[str]:
    """Returns the texts of the prompts of every task, at several window lengths, for training the text tokenizer."""
    lines = set()
    for task in TASKS:
        for step in task.steps:
            for count in frames:
                fields = [_blank(s.modality, s.state, count) for s in step.inputs]
                past = [] if step.needs_past else [_blank(step.output, "past", count)]
                for inputs in (fields, fields + past):
                    prefix, _, end = serialise(Prompt(tuple(inputs), _blank(step.output, "current", count)))
                    lines.update(piece for piece in prefix + end if isinstance(piece, str))
    return sorted(lines)


def _blank(name: str, state: str, frames: int) -> Field:
    m = MODALITIES[name]
    return Field(
        name,
        state if m.time_dependent else "",
        frames if m.has_clock else 0,
        "" if m.is_text else np.zeros(0, np.int32),
    )
