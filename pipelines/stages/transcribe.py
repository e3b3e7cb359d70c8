"""The script of a clip: words with times and confidences, by PocketSphinx 5 and the English model in its wheel.

PocketSphinx hears English words in any language. A second, cheap pass over the same sound hears only its phones, in any
order: how far the words' phones agree with those, and how sure the words are, says whether the speech is English at
all (pipelines/stages/language.py). https://github.com/cmusphinx/pocketsphinx, BSD licence.
"""

import math
import os
import re
import threading

import numpy as np

from models.loading import load_once
from models.signals import AUDIO_RATE
from pipelines.stages.hallucinations import LIMITS, GuardConfig, guard
from pipelines.stages.language import EnglishEvidence, phone_agreement, spoken_language
from pipelines.stages.speech import levels_db
from pipelines.stages.transcript import (
    UNDECIDED,
    Transcript,
    Word,
    confidence_of,
    heard_share,
    in_segments,
    speech_rate,
)

BACKEND = "pocketsphinx"

# The decoder's clock, frames a second.
_FRAME_RATE = 100
# Digital silence, dBFS.
_SILENCE = -60.0
_ALTERNATIVE = re.compile(r"\(\d+\)$")
_WORDS, _PHONES = "_default", "phones"
_LEAST_SHARE = 0.25  # of a piece's time that is voice, for it to count


# The decoder hears one utterance at a time, and is too large for one a thread.
_one_at_a_time = threading.Lock()


@load_once()
def _decoder():
    import pocketsphinx

    decoder = pocketsphinx.Decoder(samprate=float(AUDIO_RATE), loglevel="FATAL")
    model = os.path.join(pocketsphinx.get_model_path(), "en-us", "en-us-phone.lm.bin")
    decoder.add_allphone_file(_PHONES, model)
    return decoder


def _heard(audio: np.ndarray, search: str) -> list:
    """One pass over the sound: the decoder's segments with word, start_frame, end_frame, ascore, prob.

    (``ascore`` is a likelihood to the power 1 / 1024 in the pass over phones, not in the one over words.)
    """
    with _one_at_a_time:
        decoder = _decoder()
        decoder.activate_search(search)
        # Without this the cepstral mean of the clip before leaks into this one: the order of clips would matter.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(np.ascontiguousarray(audio, np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        return list(decoder.seg() or ())


def transcribe(audio: np.ndarray, activity: np.ndarray | None = None, limits: GuardConfig = LIMITS) -> Transcript:
    """Transcribes speech; the same audio always gives the same transcript.

    Args:
        audio: int16 (N,), 16 kHz.
        activity: (ceil(N / 640),) voice activity at 25 Hz; a word that the recogniser hears where nobody speaks is left
            out. None: only words heard in digital silence are.
        limits: what else is left out.
    """
    if len(audio) == 0:
        return Transcript((), UNDECIDED, 0.0, 0.0, 0.0, BACKEND)
    if activity is None:
        activity = levels_db(audio / 32768) > _SILENCE
    # Fillers (silence, noise, sentence marks) are written <...> or [...].
    heard = [segment for segment in _heard(audio, _WORDS) if segment.word[0] not in "<[+"]
    words = [
        Word(
            _ALTERNATIVE.sub("", segment.word),
            round(segment.start_frame / _FRAME_RATE, 2),
            round((segment.end_frame + 1) / _FRAME_RATE, 2),
            round(min(float(segment.prob), 1.0), 4),
        )
        for segment in heard
    ]
    kept, flags = guard(in_segments(words), activity, limits)
    left = tuple(word for segment in kept for word in segment.words)
    evidence = english_evidence(heard, _heard(audio, _PHONES), activity) if left else None
    language, sure = spoken_language(evidence)
    details = {} if evidence is None else {"english": round(evidence.probability(), 4)}
    return Transcript(
        left, language, sure, confidence_of(left), speech_rate(left, activity), BACKEND, tuple(flags), details
    )


def english_evidence(words: list, phones: list, activity: np.ndarray) -> EnglishEvidence | None:
    """Compares what the two passes heard where there is voice; None where that is nothing.

    Args:
        words, phones: the decoder's segments of each pass, words without fillers.
        activity: (S,) voice activity at 25 Hz.
    """

    def voiced(segment) -> bool:
        start, end = segment.start_frame / _FRAME_RATE, (segment.end_frame + 1) / _FRAME_RATE
        return heard_share(start, end, activity) >= _LEAST_SHARE

    words = [segment for segment in words if voiced(segment)]
    if not words:
        return None
    begin, end = words[0].start_frame, words[-1].end_frame
    of_words = [phone for segment in words for phone in _decoder().lookup_word(segment.word).split()]
    heard = [
        segment.word
        for segment in phones
        if segment.word.isalpha() and segment.word != "SIL" and voiced(segment)
        if begin <= (segment.start_frame + segment.end_frame) / 2 <= end
    ]
    posterior = np.mean([math.log(max(min(float(segment.prob), 1.0), 1e-6)) for segment in words])
    likelihood = sum(math.log(max(float(segment.ascore), 1e-300)) for segment in words)
    frames = sum(segment.end_frame - segment.start_frame + 1 for segment in words)
    return EnglishEvidence(
        len(words),
        round(float(posterior), 4),
        round(phone_agreement(of_words, heard), 4),
        round(likelihood / frames, 4),
    )
