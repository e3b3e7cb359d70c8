"""What was said in a clip, whoever heard it: words with times, the language, how sure it is, what was left out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from models.signals import SPEECH_RATE

UNDECIDED = "und"  # ISO 639's code of a language that is not determined

# A pause that ends a segment, seconds, and the marks that do.
_PAUSE = 0.5
_ENDS = (".", "!", "?", "。", "！", "？", "…")


@dataclass(frozen=True)
class Word:
    """One word: start and end in seconds from the start of the clip, confidence in 0..1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Segment:
    """Words that belong together. ``logprob``: mean log-probability of the recogniser's tokens, if it has one.

    ``no_speech``: the recogniser's own probability that there is nothing to transcribe.
    """

    words: tuple[Word, ...]
    logprob: float | None = None
    no_speech: float | None = None

    @property
    def text(self) -> str:
        return joined(self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end


@dataclass(frozen=True)
class Flag:
    """Something that was heard and is left out: why, what, and from when to when (seconds)."""

    reason: str
    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        words: in the order in which they begin; ``text`` is what they say.
        language: ISO 639-1, or UNDECIDED; language_confidence: the probability that it is this one, 0 if undecided.
        confidence: the words' mean confidence weighted by their duration, 0 without words.
        speech_rate: words a second of speech, 0 without words or speech.
        flags: what was left out. details: what else its maker says of it (plain JSON values).
    """

    words: tuple[Word, ...]
    language: str
    language_confidence: float
    confidence: float
    speech_rate: float
    backend: str
    flags: tuple[Flag, ...] = ()
    details: dict = field(default_factory=dict)

    @property
    def text(self) -> str:
        return joined(self.words)

    def words_as_dicts(self) -> list[dict]:
        return [asdict(word) for word in self.words]

    def fields(self) -> dict:
        """As the script column stores it."""
        return {
            "text": self.text,
            "words": json.dumps(self.words_as_dicts(), ensure_ascii=False),
            "language": self.language,
            "language_confidence": self.language_confidence,
            "confidence": self.confidence,
            "speech_rate": self.speech_rate,
            "flags": json.dumps([asdict(flag) for flag in self.flags], ensure_ascii=False),
            "details": json.dumps(self.details, ensure_ascii=False, sort_keys=True),
            "backend": self.backend,
        }


def without_spaces(word: str) -> bool:
    """Whether a word is of a script that writes no spaces between words (Chinese, Japanese, Thai, Lao, Burmese)."""
    return bool(word) and all(
        "\u3040" <= mark <= "\u30ff"
        or "\u3400" <= mark <= "\u9fff"
        or "\u0e00" <= mark <= "\u0eff"
        or "\u1000" <= mark <= "\u109f"
        or "\uff00" <= mark <= "\uffef"
        or mark in "。、，！？"
        for mark in word
    )


def joined(words: Sequence[Word]) -> str:
    """Words as text: spaces between them, except between those of scripts that have none."""
    text = ""
    for word in words:
        gap = text and not (without_spaces(text[-1]) and without_spaces(word.word[:1]))
        text += (" " if gap else "") + word.word
    return text


def in_segments(words: Sequence[Word], logprob: float | None = None, no_speech: float | None = None) -> list[Segment]:
    """Cuts words where a sentence ends or half a second is silent."""
    segments: list[list[Word]] = []
    for word in words:
        last = segments[-1][-1] if segments else None
        if last is None or word.start - last.end >= _PAUSE or last.word.endswith(_ENDS):
            segments.append([])
        segments[-1].append(word)
    return [Segment(tuple(part), logprob, no_speech) for part in segments]


def confidence_of(words: Sequence[Word]) -> float:
    """The words' mean confidence weighted by their duration, 0 without words."""
    spoken = sum(word.end - word.start for word in words)
    return round(sum(word.confidence * (word.end - word.start) for word in words) / spoken, 4) if spoken > 0 else 0.0


def speech_rate(words: Sequence[Word], activity: np.ndarray) -> float:
    """Words a second of speech; activity (S,) at 25 Hz."""
    seconds = float(np.asarray(activity).astype(bool).sum()) / SPEECH_RATE
    return round(len(words) / seconds, 3) if words and seconds > 0 else 0.0


def heard_share(start: float, end: float, activity: np.ndarray) -> float:
    """The share of a stretch of time in which there is voice; activity (S,) at 25 Hz, nothing is heard beyond it."""
    first = int(start * SPEECH_RATE)
    steps = np.asarray(activity)[first : max(int(end * SPEECH_RATE), first + 1)]
    return float(np.mean(steps.astype(bool))) if len(steps) else 0.0
