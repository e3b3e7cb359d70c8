import numpy as np
import pytest

from models.signals import speech_steps
from pipelines.stages import video, voice_activity
from tests.pipelines.media import talking_head


@pytest.fixture(scope="module")
def spoken():
    return video.decode_audio(video.probe(str(talking_head())))


def test_speech_is_found_and_silence_and_noise_are_not(spoken):
    rng = np.random.default_rng(0)
    silence = np.zeros(32_000, np.int16)
    audio = np.concatenate([silence, spoken, silence])
    intervals = voice_activity.speech_intervals(voice_activity.speech_probability(audio))
    total = sum(end - begin for begin, end in intervals)
    assert 0.5 * len(spoken) < total < 1.1 * len(spoken)
    assert intervals[0][0] > 30_000 and intervals[-1][1] < 34_000 + len(spoken)
    for other in (
        silence,
        rng.normal(0, 2000, 32_000).astype(np.int16),
        (8000 * np.sin(np.arange(32_000) / 6)).astype(np.int16),
    ):
        assert voice_activity.speech_intervals(voice_activity.speech_probability(other)) == []


def test_float_and_integer_sound_are_the_same(spoken):
    a = voice_activity.speech_probability(spoken[:16_000])
    b = voice_activity.speech_probability(spoken[:16_000].astype(np.float32) / 32768)
    assert np.allclose(a, b, atol=1e-6) and len(a) == -(-16_000 // 512)


def test_activity_has_one_value_a_token_step(spoken):
    audio = np.concatenate([np.zeros(16_000, np.int16), spoken])[: round(61 * 16_000 / 30)]
    activity = voice_activity.speech_activity(audio)
    assert activity.dtype == np.uint8 and len(activity) == speech_steps(61)
    assert activity[:20].sum() == 0 and activity[30:].mean() > 0.5


def test_edges_of_intervals():
    probability = np.zeros(100, np.float32)
    probability[10:30] = 0.9
    probability[32:50] = 0.9  # a pause of two windows is bridged
    probability[70:73] = 0.9  # too short to be speech
    assert voice_activity.speech_intervals(probability) == [(10 * 512, 50 * 512)]
    assert voice_activity.speech_intervals(np.ones(20, np.float32)) == [(0, 20 * 512)]
    assert len(voice_activity.speech_probability(np.zeros(0, np.int16))) == 0
