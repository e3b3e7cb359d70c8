"""The script of a clip from subtitles that lie beside its source video: NAME.srt or NAME.vtt, or NAME.LANGUAGE.srt.

A subtitle file is a stranger's text: it is read within limits, its markup is taken out, times that cannot be are
passed over and counted. The captions that video sites make roll: every cue shows the line before once more, and that
line is said once. Where a file gives no time for each word, a cue's time is shared out by the words' lengths.
"""

import hashlib
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.errors import InputError
from models.loading import load_once
from models.signals import VIDEO_FPS
from pipelines import storage
from pipelines.stages.hallucinations import LIMITS, GuardConfig, guard
from pipelines.stages.language import text_language
from pipelines.stages.transcript import (
    UNDECIDED,
    Transcript,
    Word,
    confidence_of,
    heard_share,
    in_segments,
    speech_rate,
    without_spaces,
)

BACKEND = "subtitles"

# What one file may have; more is a mistake or an attack.
MAX_BYTES, MAX_CUES, MAX_CUE_CHARACTERS = 8 << 20, 50_000, 2000
_ENDINGS = (".srt", ".vtt")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}")
_TIME = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})")
_WORD_TIME = re.compile(r"<((?:\d{1,3}:)?\d{1,2}:\d{1,2}[.,]\d{1,3})>")
# Too short to be read: a rolling caption's moment of standing still.
_SHORTEST = 0.02


class NoSubtitlesError(InputError):
    """There is no subtitle file beside the source."""


@dataclass(frozen=True)
class Cue:
    """One caption: lines of text, seconds, and the times of its words where the file gives them."""

    start: float
    end: float
    lines: tuple[str, ...]
    times: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class SubtitleFile:
    """A parsed file: ``words`` over the whole source with ``interpolated`` beside each, and what it took to read it."""

    path: str
    sha256: str
    language: str
    language_confidence: float
    words: tuple[Word, ...]
    interpolated: tuple[bool, ...]
    broken: int
    rolling: bool


# --- Finding ---


def find_subtitles(source: str) -> str:
    """Returns the subtitle file beside a video: the one of just its name first, then by language in the alphabet.

    Raises:
        NoSubtitlesError: there is none.
    """
    stem, _ = os.path.splitext(source)
    name = os.path.basename(stem)
    # The name may hold marks that a pattern would read as its own.
    plain = re.sub(r"([*?[])", r"[\1]", stem)
    found = []
    for file in storage.list_files(f"{plain}.*"):
        rest, ending = os.path.splitext(os.path.basename(file))
        if ending.lower() not in _ENDINGS or not rest.startswith(name):
            continue
        suffix = rest[len(name) :]
        if not suffix or suffix[0] == "." and _LANGUAGE.fullmatch(suffix[1:]):
            found.append((suffix, _ENDINGS.index(ending.lower()), file))
    if not found:
        raise NoSubtitlesError(f"{source}: no subtitles beside it; expected {name}.srt or .vtt, or {name}.en.srt")
    return min(found)[2]


def language_of_name(path: str) -> str:
    """Returns the language in NAME.LANGUAGE.srt, or nothing: "talk.pt-BR.vtt" -> "pt"."""
    _, dot, suffix = os.path.splitext(os.path.basename(path))[0].rpartition(".")
    return suffix.split("-")[0] if dot and _LANGUAGE.fullmatch(suffix) else ""


# --- Reading ---


@load_once(64)
def read_subtitles(path: str) -> SubtitleFile:
    """Reads and parses a file, local or gs://; the clips of one source share it.

    Raises:
        InputError: it is larger than a subtitle file is, or has no cue.
    """
    size = storage.size(path)
    if size > MAX_BYTES:
        raise InputError(f"{path}: {size} bytes; subtitles have at most {MAX_BYTES}")
    data = storage.read_bytes(path)
    cues, broken = parse_cues(decode_text(data))
    if not cues:
        raise InputError(f"{path}: no cue with a time and a text ({broken} broken)")
    cues, rolling = unrolled(cues)
    words, interpolated = timed_words(cues)
    detected, shares = text_language(" ".join(word.word for word in words)[:20_000])
    named = language_of_name(path)
    language = named or detected
    sure = shares.get(language, 0.0) if language != UNDECIDED else 0.0
    digest = hashlib.sha256(data).hexdigest()
    return SubtitleFile(path, digest, language, round(sure, 4), words, interpolated, broken, rolling)


def decode_text(data: bytes) -> str:
    """UTF-8 or UTF-16 by their marks, else UTF-8, else UTF-16 by its zeros, else Latin-1, which is never wrong."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    zeros = np.frombuffer(data[:4000], np.uint8) == 0
    if len(zeros) >= 4 and max(zeros[::2].mean(), zeros[1::2].mean()) > 0.2:
        return data.decode("utf-16-be" if zeros[::2].mean() > zeros[1::2].mean() else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def seconds_of(text: str) -> float | None:
    """ "1:02:03,5" or "02:03.500" -> seconds; None if it is no time."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    hours, minutes, whole, fraction = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(whole) + int(fraction.ljust(3, "0")) / 1000


def plain_text(text: str) -> str:
    """Text without markup (<b>, {\\an8}), entities and control characters. Reads it once, however it is nested."""
    out: list[str] = []
    inside = ""
    for k, mark in enumerate(text):
        if inside:
            inside = "" if mark == inside else inside
        elif mark == "<" and ">" in text[k : k + 200]:
            inside = ">"
        elif mark == "{" and text[k + 1 : k + 2] == "\\" and "}" in text[k : k + 200]:
            inside = "}"
        else:
            out.append(mark)
    clean = html.unescape("".join(out))
    return " ".join("".join(mark if mark.isprintable() else " " for mark in clean).split())


def parse_cues(text: str) -> tuple[list[Cue], int]:
    """Reads SubRip and WebVTT alike: the cues in the order of their times, and how many were broken.

    A cue is a line with an arrow between two times, and the lines after it up to an empty one.
    """
    cues: list[Cue] = []
    broken, lines = 0, text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").split("\n")
    k = 0
    while k < len(lines) and len(cues) + broken < MAX_CUES:
        times = _times(lines[k])
        k += 1
        if times is None:
            continue
        body = []
        # A line of blanks is not the end: rolling captions keep their first line empty.
        while k < len(lines) and lines[k] != "" and "-->" not in lines[k]:
            body.append(lines[k])
            k += 1
        if k < len(lines) and "-->" in lines[k] and body and body[-1].strip().isdigit():
            body.pop()  # the next cue's number, without the empty line before it
        start, end = times
        raw = "\n".join(body)
        if start is None or end is None or end <= start or len(raw) > MAX_CUE_CHARACTERS:
            broken += 1
            continue
        shown = tuple(line for line in (plain_text(line) for line in body) if line)
        if shown:
            cues.append(Cue(start, end, shown, _word_times(raw, start, end)))
    return sorted(cues, key=lambda cue: (cue.start, cue.end)), broken


def _times(line: str) -> tuple[float | None, float | None] | None:
    before, arrow, after = line.partition("-->")
    if not arrow:
        return None
    words = after.split()
    return seconds_of(before), seconds_of(words[0]) if words else None


def _word_times(raw: str, start: float, end: float) -> tuple[tuple[float, str], ...]:
    """Where a cue has times inside: (seconds, text that begins then) for each piece of its last line that has any."""
    line = next((line for line in reversed(raw.split("\n")) if _WORD_TIME.search(line)), "")
    if not line:
        return ()
    pieces = _WORD_TIME.split(line)
    times = [start, *(seconds_of(time) for time in pieces[1::2])]
    texts = [plain_text(piece) for piece in pieces[::2]]
    if any(time is None or not start <= time <= end for time in times) or times != sorted(times):
        return ()
    return tuple((time, text) for time, text in zip(times, texts, strict=True) if text)


def unrolled(cues: Sequence[Cue]) -> tuple[list[Cue], bool]:
    """Takes out the lines that a cue shows once more; returns the cues that are left and whether the file rolls.

    Lines are taken out where cues overlap, and in a file of which every third cue begins with the line before: two
    people may well say "No." after each other.
    """

    def again(before: Cue, cue: Cue) -> int:
        for size in range(min(len(before.lines), len(cue.lines)), 0, -1):
            if before.lines[-size:] == cue.lines[:size]:
                return size
        return 0

    pairs = [(before, cue) for before, cue in zip(cues, cues[1:], strict=False) if cue.start - before.end < 0.05]
    shared = sum(again(before, cue) > 0 for before, cue in pairs)
    rolling = shared >= 2 and shared >= len(cues) / 3
    kept: list[Cue] = []
    before = None
    for cue in cues:
        size = again(before, cue) if before and cue.start - before.end < 0.05 else 0
        if not (rolling or (before and cue.start < before.end - 1e-6)):
            size = 0
        if size and kept and kept[-1].start < cue.start < kept[-1].end:
            kept[-1] = replace(kept[-1], end=cue.start)
        lines = cue.lines[size:]
        if lines and not (rolling and cue.end - cue.start < _SHORTEST):
            same = " ".join(text for _, text in cue.times).split() == " ".join(lines).split()
            kept.append(replace(cue, lines=lines, times=cue.times if same else ()))
        before = cue
    return kept, rolling


def timed_words(cues: Sequence[Cue]) -> tuple[tuple[Word, ...], tuple[bool, ...]]:
    """Words in the order of their times, and whether each one's time is shared out; nobody has said how sure: 1."""
    timed: list[tuple[Word, bool]] = []
    for cue in cues:
        # A rolling line stays while the next is spoken: what is said does not overlap.
        pieces = cue.times or ((cue.start, " ".join(cue.lines)),)
        ends = [*(time for time, _ in pieces[1:]), cue.end]
        for (start, text), end in zip(pieces, ends, strict=True):
            words = split_words(text)
            lengths = np.array([len(word) + 1 for word in words], float)
            edges = start + (end - start) * np.concatenate([[0.0], np.cumsum(lengths) / max(lengths.sum(), 1)])
            shared = not cue.times or len(words) > 1
            for k, word in enumerate(words):
                timed.append((Word(word, round(edges[k], 3), round(edges[k + 1], 3), 1.0), shared))
    timed.sort(key=lambda pair: (pair[0].start, pair[0].end))
    return tuple(word for word, _ in timed), tuple(shared for _, shared in timed)


def split_words(text: str) -> list[str]:
    """Words by spaces; of scripts that write none, the characters."""
    words: list[str] = []
    for part in text.removeprefix(">>").removeprefix("- ").split():
        run = ""
        for mark in part:
            if without_spaces(mark) and mark.isalnum():
                words += [run] if run else []
                words.append(mark)
                run = ""
            elif without_spaces(mark) and words and not run:
                words[-1] += mark
            else:
                run += mark
        words += [run] if run else []
    return words


# --- One clip ---


def subtitles_script(
    source: str, start_frame: int, end_frame: int, activity: np.ndarray, limits: GuardConfig = LIMITS
) -> Transcript:
    """Cuts the script of a clip out of the subtitles of its source.

    A word's confidence is the share of its time in which there is voice: that is what can be known of it. Seconds of
    the subtitles are those of the source's picture, ``start_frame / 30`` is where the clip begins.

    Args:
        source: the video that the clip is from, local or gs://. start_frame, end_frame: on its 30 fps clock.
        activity: (S,) voice activity of the clip at 25 Hz.

    Raises:
        NoSubtitlesError: the source has none. InputError: they cannot be read.
    """
    file = read_subtitles(find_subtitles(source))
    begin, end = start_frame / VIDEO_FPS, end_frame / VIDEO_FPS
    words, interpolated = [], 0
    for word, shared in zip(file.words, file.interpolated, strict=True):
        if not begin <= (word.start + word.end) / 2 < end:
            continue
        first, last = max(word.start - begin, 0.0), min(word.end, end) - begin
        sure = heard_share(first, last, activity)
        words.append(Word(word.word, round(first, 2), round(last, 2), round(sure, 4)))
        interpolated += shared
    kept, flags = guard(in_segments(words), activity, limits)
    left = tuple(word for segment in kept for word in segment.words)
    details = {
        "file": file.path,
        "sha256": file.sha256,
        "interpolated": interpolated,
        "broken_cues": file.broken,
        "rolling": file.rolling,
    }
    return Transcript(
        left,
        file.language,
        file.language_confidence,
        confidence_of(left),
        speech_rate(left, activity),
        BACKEND,
        tuple(flags),
        details,
    )
