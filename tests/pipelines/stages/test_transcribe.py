"""Transcription of a sentence that espeak-ng speaks."""

import numpy as np
import pytest

from models.signals import AUDIO_RATE, SPEECH_HOP
from pipelines.stages.language import NOT_ENGLISH
from pipelines.stages.transcribe import transcribe
from pipelines.stages.transcript import UNDECIDED
from pipelines.stages.voice_activity import speech_activity
from tests.benchmarks.language import real

LEAD = 0.5


@pytest.fixture(scope="module")
def counted():
    """A voice that counts, after half a second of silence: the sound, and when espeak-ng says it says what."""
    from scipy.signal import resample_poly

    from pipelines.stages.voice import Voice, speak

    speech = speak("one two three four five six seven", Voice("en-us", "", 120, 40, 60))
    voice = resample_poly(speech.audio.astype(np.float64), AUDIO_RATE, speech.rate)
    audio = np.concatenate([np.zeros(round(LEAD * AUDIO_RATE)), np.clip(voice, -32768, 32767), np.zeros(3000)])
    return audio.astype(np.int16), speech.words


@pytest.fixture(scope="module")
def sentence(counted) -> np.ndarray:
    return counted[0]


def test_words_and_times_of_a_spoken_sentence(counted):
    audio, truth = counted
    script = transcribe(audio)
    assert script.text == " ".join(word.word for word in script.words)
    assert script.backend == "pocketsphinx" and script.speech_rate > 0
    heard = {word.word: word for word in script.words}
    # A machine's voice for a recogniser trained on people: most of the words, not all.
    common = [word for word in truth if word["word"] in heard]
    assert len(common) >= 3
    for word in common:
        assert abs(heard[word["word"]].start - LEAD - word["start"]) < 0.2
        assert abs(heard[word["word"]].end - LEAD - word["end"]) < 0.25
    starts = [word.start for word in script.words]
    assert starts == sorted(starts) and script.words[-1].end <= len(audio) / AUDIO_RATE + 0.05
    assert all(0 <= word.confidence <= 1 for word in script.words) and 0 < script.confidence <= 1


def test_the_clip_before_does_not_matter(sentence):
    first = transcribe(sentence)
    transcribe(np.random.default_rng(0).normal(0, 3000, 16000).astype(np.int16))
    assert transcribe(sentence) == first


def test_threads_hear_what_one_hears(sentence):
    from concurrent.futures import ThreadPoolExecutor

    sounds = [sentence, sentence[: len(sentence) // 2], sentence[len(sentence) // 2 :]]
    alone = [transcribe(sound) for sound in sounds]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(transcribe, sounds)) == alone


@pytest.mark.parametrize("samples", [0, 8000])
def test_silence_has_no_words(samples):
    script = transcribe(np.zeros(samples, np.int16))
    assert script.text == "" and script.words == () and script.confidence == script.speech_rate == 0
    assert (script.language, script.language_confidence) == (UNDECIDED, 0)


def test_words_where_nobody_speaks_are_left_out(sentence):
    steps = -(-len(sentence) // SPEECH_HOP)
    silent = transcribe(sentence, np.zeros(steps, np.uint8))
    assert silent.words == () and {flag.reason for flag in silent.flags} == {"text on silence"}
    half = np.arange(steps) < steps // 2
    kept = transcribe(sentence, half).words
    assert kept and max(word.start for word in kept) < len(sentence) / AUDIO_RATE / 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "language"), [("latentsync_demo2", NOT_ENGLISH), ("sadtalker_wda_hill", "en")])
def test_the_language_of_people(real_clips, name, language):
    ((_, _, audio),) = real([f"{real_clips / name}.mp4=xx"])
    script = transcribe(audio, speech_activity(audio))
    assert script.language == language and script.language_confidence > 0.5
