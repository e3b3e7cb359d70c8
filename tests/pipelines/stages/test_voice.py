import numpy as np
import pytest

from pipelines.stages.voice import ACCENTS, FEMALE_VARIANTS, MALE_VARIANTS, Voice, speak

TEXT = "My brother bought a map, and papers."


@pytest.fixture(scope="module")
def speech():
    return speak(TEXT, Voice("en-us", "m3", 160, 45, 50))


def test_audio_and_words(speech):
    assert speech.rate == 22050 and speech.audio.dtype == np.int16
    assert 1.2 < len(speech.audio) / speech.rate < 4
    assert [w["word"] for w in speech.words] == ["My", "brother", "bought", "a", "map", "and", "papers"]
    starts = [w["start"] for w in speech.words]
    assert starts == sorted(starts) and all(w["end"] > w["start"] for w in speech.words)
    assert speech.words[4]["end"] < speech.words[5]["start"]  # the comma is a pause


def test_phonemes_follow_the_words(speech):
    symbols = [p["phoneme"] for p in speech.phonemes]
    assert symbols[0] == "m" and "p" in symbols and "" in symbols
    assert all(a["end"] <= b["start"] + 1e-6 for a, b in zip(speech.phonemes, speech.phonemes[1:], strict=False))
    first = next(p for p in speech.phonemes if p["phoneme"].startswith("b"))
    assert abs(first["start"] - speech.words[1]["start"]) < 0.08
    assert sum(p["stress"] for p in speech.phonemes) >= 4


def test_sound_is_where_the_vowels_are(speech):
    def level(a, b):
        part = speech.audio[int(a * speech.rate) : int(b * speech.rate)].astype(float)
        return np.sqrt((part**2).mean())

    vowels = [level(p["start"], p["end"]) for p in speech.phonemes if p["phoneme"][:1] in tuple("aeiouʌɑɔəæ")]
    pauses = [
        level(p["start"] + 0.03, p["end"]) for p in speech.phonemes if not p["phoneme"] and p["end"] - p["start"] > 0.08
    ]
    assert vowels and min(vowels) > 300 and (not pauses or max(pauses) < 0.3 * np.mean(vowels))


@pytest.mark.parametrize("variant", [FEMALE_VARIANTS[0], FEMALE_VARIANTS[-1], MALE_VARIANTS[0]])
def test_speaking_twice_gives_the_same_samples(variant):
    voice = Voice(ACCENTS[0], variant, 165, 55, 50)
    assert (
        speak("The baker sold two boats.", voice).audio.tobytes()
        == speak("The baker sold two boats.", voice).audio.tobytes()
    )


def test_voices_differ_in_pitch():
    def fundamental(voice):
        speech = speak("Oh, we all are around.", voice)
        x = speech.audio.astype(float)[: 2 * speech.rate]
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 17)) ** 2
        correlation = np.fft.irfft(spectrum)
        low, high = speech.rate // 350, speech.rate // 60
        return speech.rate / (low + correlation[low:high].argmax())

    assert fundamental(Voice("en-us", "f4", 160, 60, 40)) > 1.3 * fundamental(Voice("en-us", "m1", 160, 30, 40))


def test_unknown_voice_is_an_error():
    with pytest.raises(RuntimeError, match="no voice en-us"):
        speak("Hello.", Voice("en-us-nowhere", "m3", 160, 50, 50))


def test_every_accent_exists():
    for accent in ACCENTS[1:]:
        assert len(speak("Yes.", Voice(accent, "m3", 160, 50, 50)).audio) > 1000
