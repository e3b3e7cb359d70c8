"""The script of a clip: words with times and confidences, by PocketSphinx 5 and the English model in its wheel.

PocketSphinx hears English in any language: the language of a transcript is that of the model, not a measurement, and on
other speech the confidence is what tells (faster than real time on one core; https://github.com/cmusphinx/pocketsphinx,
BSD licence).
"""

import re
from dataclasses import asdict, dataclass

import numpy as np

from models.loading import load_once
from models.signals import AUDIO_RATE, SPEECH_RATE
from pipelines.stages.speech import levels_db

BACKEND = "pocketsphinx"
MODEL_LANGUAGE = "en"

# The decoder's clock, frames a second.
_FRAME_RATE = 100
# Digital silence, dBFS, and how much of a word must be voice.
_SILENCE = -60.0
_HEARD = 0.25
_ALTERNATIVE = re.compile(r"\(\d+\)$")


@dataclass(frozen=True)
class Word:
    """One word: start and end in seconds from the start of the clip, confidence = posterior probability in 0..1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said. ``confidence`` is the words' mean confidence weighted by their duration, 0 without words."""

    text: str
    words: tuple[Word, ...]
    model_language: str
    confidence: float
    backend: str = BACKEND

    def words_as_dicts(self) -> list[dict]:
        return [asdict(word) for word in self.words]


@load_once()
def _decoder():
    from pocketsphinx import Decoder

    return Decoder(samprate=float(AUDIO_RATE), loglevel="FATAL")


def transcribe(audio: np.ndarray, activity: np.ndarray | None = None) -> Transcript:
    """Transcribes speech; the same audio always gives the same transcript.

    Args:
        audio: int16 (N,), 16 kHz.
        activity: (ceil(N / 640),) voice activity at 25 Hz; a word that the recogniser hears where nobody speaks is left
            out. None: only words heard in digital silence are.
    """
    decoder = _decoder()
    # Without this the cepstral mean of the clip before leaks into this one: the order of clips would matter.
    decoder.reinit_feat()
    if len(audio) == 0:
        return Transcript("", (), MODEL_LANGUAGE, 0.0)
    decoder.start_utt()
    decoder.process_raw(np.ascontiguousarray(audio, np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    if activity is None:
        activity = levels_db(audio / 32768) > _SILENCE
    words = []
    for segment in decoder.seg() or ():
        # Fillers (silence, noise, sentence marks) are written <...> or [...].
        if segment.word[0] in "<[+":
            continue
        word = _ALTERNATIVE.sub("", segment.word)
        start, end = segment.start_frame / _FRAME_RATE, (segment.end_frame + 1) / _FRAME_RATE
        steps = activity[int(start * SPEECH_RATE) : max(int(end * SPEECH_RATE), int(start * SPEECH_RATE) + 1)]
        if np.mean(steps) < _HEARD:
            continue
        words.append(Word(word, round(start, 2), round(end, 2), round(min(float(segment.prob), 1.0), 4)))
    spoken = sum(word.end - word.start for word in words)
    confidence = sum(word.confidence * (word.end - word.start) for word in words) / spoken if words else 0.0
    return Transcript(" ".join(word.word for word in words), tuple(words), MODEL_LANGUAGE, round(confidence, 4))
