"""Leaves out what a recogniser, or a subtitle file, says that nobody said, and keeps why.

Known ways to be wrong: text where there is silence, the same words over and over, more words than a mouth can say,
words that the recogniser itself thinks unlikely, credits and farewells of video sites learned from subtitles, marks
for sounds. Thresholds on compression, log-probability and no-speech are the ones of Whisper's own decoding (Radford et
al., 2022, section 4.5).
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.stages.transcript import Flag, Segment, Word, heard_share, joined, without_spaces


@dataclass(frozen=True)
class GuardConfig:
    """Where a segment is left out.

    Attributes:
        heard: less of a word's time is voice: the word was not said. silent: that holds for more of a segment's words:
            nor was the rest of it.
        compression: text bytes over zlib's, for texts of at least ``compression_bytes``.
        repeats: so often the same one word, two words, three or more words in a row.
        rate, rate_without_spaces: words a second, in segments of at least ``rate_words``.
        logprob: mean log-probability of the tokens. no_speech: probability that there is no speech; counts together
            with a log-probability that is low or not known.
        farewell_heard, farewell_logprob: "thanks for watching" is believed where it is as clearly heard as this.
    """

    heard: float = 0.25
    silent: float = 0.5
    compression: float = 2.4
    compression_bytes: int = 80
    repeats: tuple[int, int, int] = (6, 4, 3)
    rate: float = 8.0
    rate_without_spaces: float = 12.0
    rate_words: int = 5
    logprob: float = -1.0
    no_speech: float = 0.6
    farewell_heard: float = 0.75
    farewell_logprob: float = -0.5


LIMITS = GuardConfig()

# A sound, a note, a mark of a speaker: not words.
_OPENERS, _CLOSERS = "[(*♪♫<（【", "])*♪♫>）】"
_READ_ALOUD = set("&+%$€£@=°")
_CREDITS = re.compile(
    r"\b(subtitles?|subtitled|captions?|captioned|closed captioning) (by|provided by|from)\b"
    r"|\b(transcript|transcribed|transcription|translated|translation) (by|provided by)\b"
    r"|\bamara ?org\b|\bopensubtitles\b|\bwww\b|\bhttps?\b|字幕|untertitel (von|der|im auftrag)|sous titres? (de|par)"
    r"|subtítulos (de|por|realizados)|legendas (por|pela)|sottotitoli (di|e revisione|creati)"
)
_FAREWELLS = re.compile(
    r"(thanks|thank you)( so much| very much)? for (watching|listening|viewing)( (this|the|my) video)?"
    r"( and (see|i'?ll see) you.*)?"
    r"|(please )?(like|subscribe|like and subscribe|don t forget to (like|subscribe)).*"
    r"|(i'?ll )?see you (in the )?next (time|video|one)|ご視聴ありがとうございました|請不吝點贊.*|请不吝点赞.*"
)


def guard(
    segments: Sequence[Segment], activity: np.ndarray, config: GuardConfig = LIMITS
) -> tuple[list[Segment], list[Flag]]:
    """Leaves out what was not said.

    Args:
        segments: what a backend heard, in the order of time.
        activity: (S,) voice activity at 25 Hz.

    Returns:
        The segments that are left, with the words that are left, and a flag for everything that is not.
    """
    kept: list[Segment] = []
    flags: list[Flag] = []
    before: list[str] = []
    for segment in segments:
        words, dropped = _sounds(segment.words)
        flags += [_flag("non-speech mark", [word]) for word in dropped]
        if not words:
            continue
        segment = Segment(tuple(words), segment.logprob, segment.no_speech)
        plain = _plain(segment.text)
        before.append(plain)
        reason = wrong(segment, activity, config)
        if not reason and plain and before[-3:] == [plain] * 3:
            reason = "repeated segment"
        if reason:
            flags.append(_flag(reason, segment.words))
            continue
        silent = [word for word in segment.words if heard_share(word.start, word.end, activity) < config.heard]
        flags += [_flag("word on silence", [word]) for word in silent]
        left = tuple(word for word in segment.words if word not in silent)
        if left:
            kept.append(Segment(left, segment.logprob, segment.no_speech))
    return kept, sorted(flags, key=lambda flag: (flag.start, flag.end, flag.reason))


def wrong(segment: Segment, activity: np.ndarray, config: GuardConfig = LIMITS) -> str:
    """Returns why a segment was not said, or nothing if it may have been."""
    words, text = segment.words, _plain(segment.text)
    heard = np.array([heard_share(word.start, word.end, activity) for word in words])
    if (heard < config.heard).mean() > config.silent:
        return "text on silence"
    if segment.no_speech is not None and segment.no_speech > config.no_speech:
        if segment.logprob is None or segment.logprob < config.logprob:
            return "no speech"
    if segment.logprob is not None and segment.logprob < config.logprob:
        return "low probability"
    if _CREDITS.search(text):
        return "credits"
    if _FAREWELLS.fullmatch(text):
        unsure = segment.logprob is not None and segment.logprob < config.farewell_logprob
        if unsure or heard.mean() < config.farewell_heard:
            return "farewell"
    if _repeats([_plain(word.word) for word in words], config.repeats):
        return "repetition"
    encoded = segment.text.encode()
    if len(encoded) >= config.compression_bytes and len(encoded) / len(zlib.compress(encoded)) > config.compression:
        return "repetition"
    limit = config.rate_without_spaces if all(without_spaces(word.word) for word in words) else config.rate
    if len(words) >= config.rate_words and len(words) > limit * (segment.end - segment.start):
        return "too fast"
    return ""


def _flag(reason: str, words: Sequence[Word]) -> Flag:
    return Flag(reason, joined(words)[:200], words[0].start, words[-1].end)


def _plain(text: str) -> str:
    """Lower case, letters and digits with single spaces between."""
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(mark if mark.isalnum() or mark == "'" else " " for mark in text).split())


def _sounds(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    """Parts words from marks of sounds: [Music], (audience laughs), ♪ la la ♪, lone dashes."""
    said: list[Word] = []
    marks: list[Word] = []
    closer = ""
    for word in words:
        text = word.word
        if closer:
            marks.append(word)
            if closer in text:
                closer = ""
        elif not any(mark.isalnum() or mark in _READ_ALOUD for mark in text):
            marks.append(word)
            if text in ("♪", "♫"):
                closer = text
        elif text[0] in _OPENERS:
            marks.append(word)
            end = _CLOSERS[_OPENERS.index(text[0])]
            closer = "" if end in text[1:] else end
        else:
            said.append(word)
    # An opening mark that is never closed was no mark of a sound: its words are words.
    if closer and closer not in ("♪", "♫"):
        first = max(k for k, word in enumerate(marks) if word.word[0] in _OPENERS)
        said, marks = sorted([*said, *marks[first:]], key=lambda word: word.start), marks[:first]
    return said, marks


def _repeats(words: Sequence[str], limits: tuple[int, int, int]) -> bool:
    """Whether some words are said over and over, directly after each other."""
    for size in range(1, len(words) // 2 + 1):
        limit = limits[min(size, len(limits)) - 1]
        if size * limit > len(words):
            break
        same = 0
        for k in range(size, len(words)):
            same = same + 1 if words[k] == words[k - size] else 0
            if same >= size * (limit - 1):
                return True
    return False
