"""Speech measurements on sounds whose level, pauses and pitch are known."""

import numpy as np
import pytest

from models.errors import InputError
from models.signals import AUDIO_RATE, SPEECH_HOP
from pipelines.stages.speech import SpeechConfig, levels_db, normalise, pitch, voice_activity


def voice(hertz: float, seconds: float, level: float = 0.1) -> np.ndarray:
    """A buzz with falling harmonics, as a voice has."""
    time = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    return level * sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8))


def to_int16(wave: np.ndarray) -> np.ndarray:
    return np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)


@pytest.mark.parametrize("hertz", [85.0, 130.0, 210.0, 330.0])
def test_pitch_of_a_voice(hertz):
    measured = pitch(voice(hertz, 1.0), SpeechConfig())[1:-1]
    assert np.abs(measured / hertz - 1).max() < 0.02


def test_noise_and_silence_have_no_pitch():
    rng = np.random.default_rng(0)
    assert (pitch(rng.normal(0, 0.1, AUDIO_RATE), SpeechConfig()) > 0).mean() < 0.1
    assert (pitch(np.zeros(AUDIO_RATE), SpeechConfig()) == 0).all()


def test_activity_follows_the_pauses():
    rng = np.random.default_rng(1)
    gap = np.zeros(AUDIO_RATE)
    wave = np.concatenate([gap, voice(120, 1.0), gap, voice(180, 1.0)]) + rng.normal(0, 1e-3, 4 * AUDIO_RATE)
    active = voice_activity(wave, SpeechConfig())
    expected = np.repeat([False, True, False, True], AUDIO_RATE // SPEECH_HOP)
    assert (active == expected).mean() > 0.97


def test_short_gap_is_speech_and_a_click_is_not():
    step = SPEECH_HOP / AUDIO_RATE
    word, quiet = voice(120, 20 * step), np.zeros(2 * SPEECH_HOP)
    wave = np.concatenate([word, quiet, word, np.zeros(30 * SPEECH_HOP), voice(500, step), np.zeros(10 * SPEECH_HOP)])
    active = voice_activity(wave, SpeechConfig())
    assert active[:42].all()
    assert not active[43:].any()


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
def test_speech_comes_to_the_target_level(level):
    config = SpeechConfig()
    audio = to_int16(np.concatenate([voice(150, 2.0, level), np.zeros(AUDIO_RATE)]))
    speech = normalise(audio, config)
    assert speech.audio.dtype == np.int16 and len(speech.audio) == len(audio)
    active = np.repeat(speech.activity.astype(bool), SPEECH_HOP)[: len(audio)]
    measured = 10 * np.log10(np.mean((speech.audio[active] / 32768.0) ** 2))
    assert abs(measured - config.target_level) < 0.5
    assert len(speech.activity) == len(speech.pitch_hz) == -(-len(audio) // SPEECH_HOP)
    # The pause carries no pitch, the voice does.
    assert (speech.pitch_hz[-20:] == 0).all() and abs(np.median(speech.pitch_hz[2:45]) - 150) < 3


def test_a_peak_limits_the_gain():
    config = SpeechConfig()
    wave = voice(150, 2.0, 0.005)
    wave[8000] = 0.9
    speech = normalise(to_int16(wave), config)
    assert np.abs(speech.audio / 32768.0).max() <= 10 ** (config.peak_level / 20) + 1e-3


def test_silence_stays_silent():
    speech = normalise(np.zeros(16000, np.int16))
    assert not speech.audio.any() and not speech.activity.any() and np.isfinite(speech.gain_db)


def test_levels_of_a_known_square_wave():
    assert np.allclose(levels_db(np.full(1280, 0.1)), -20)


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match="silero, energy"):
        normalise(np.zeros(16000, np.int16), backend="guess")


def test_silero_hears_no_speech_in_a_tone_and_the_length_fits():
    audio = to_int16(np.sin(np.arange(20000) * 0.1) * 0.3)
    speech = normalise(audio, backend="silero")
    assert len(speech.activity) == -(-len(audio) // SPEECH_HOP) and speech.activity.mean() < 0.2
