import numpy as np
import pytest

from pipelines.stages import sound_scores, video
from tests.pipelines.media import talking_head


def test_snr():
    rng = np.random.default_rng(0)
    mask = np.zeros(48_000, bool)
    mask[16_000:32_000] = True
    noise = rng.normal(0, 0.01, 48_000)
    tone = np.where(mask, 0.1 * np.sqrt(2) * np.sin(np.arange(48_000) / 5), 0)
    assert sound_scores.snr_db(noise + tone, mask) == pytest.approx(20, abs=1)
    assert sound_scores.snr_db(noise, np.zeros(48_000, bool)) == 0
    # Speech throughout, with dips: measured against the quietest moments.
    dips = np.where(np.arange(48_000) % 8000 < 800, 0.001, 0.1) * rng.normal(0, 1, 48_000)
    assert sound_scores.snr_db(dips, np.ones(48_000, bool)) > 30


def speaking(shift=0, frames=120):
    """Landmarks whose chin falls with a syllable rhythm, and noise with the same rhythm ``shift`` frames later."""
    rng = np.random.default_rng(1)
    rhythm = np.abs(np.sin(np.cumsum(rng.uniform(0.2, 0.6, frames + 20))))
    points = np.zeros((frames, 68, 2))
    points[:, 17:27, 1] = -50
    points[:, 8, 1] = 50 + 10 * rhythm[10 : 10 + frames]
    late = np.interp(np.arange(frames * 16_000 // 30) * 30 / 16_000 - shift + 10, np.arange(frames + 20), rhythm)
    audio = 8000 * (0.05 + late**2) * rng.normal(0, 1, len(late))
    return points, np.clip(audio, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("shift", [0, 3, -2])
def test_lip_sync_finds_the_shift(shift):
    value, lag = sound_scores.lip_sync(*speaking(shift))
    assert value > 0.5 and abs(lag - shift) <= 1


@pytest.mark.parametrize("shift", [-5, -3, 0, 2, 5])
def test_the_shift_of_a_rendered_speaker_is_found_within_a_frame(shift):
    """The head's true landmarks with its own sound moved by a known number of frames; another rhythm fits less."""
    landmarks = np.load(talking_head().with_suffix(".truth.npz"))["landmarks"]
    audio = video.decode_audio(video.probe(str(talking_head())))
    value, lag = sound_scores.lip_sync(landmarks, np.roll(audio, round(shift * 16_000 / 30)))
    assert abs(lag - shift) <= 1 and value > 0.5
    assert sound_scores.lip_sync(landmarks, audio[::-1])[0] < value - 0.2


def test_lip_sync_of_a_still_mouth_cannot_be_told():
    points, audio = speaking()
    assert sound_scores.lip_sync(np.repeat(points[:1], len(points), axis=0), audio) is None
    assert sound_scores.lip_sync(points[:5], audio[:100]) is None
    assert sound_scores.sync_scores(points[:5], audio[:100]) == {}
    assert set(sound_scores.sync_scores(points, audio)) == {"lip_sync", "lip_sync_lag"}


def test_sound_scores_cover_the_rest():
    _, audio = speaking()
    loud = np.clip(audio.astype(np.int32) * 20, -32768, 32767).astype(np.int16)
    scores = sound_scores.sound_scores(loud, np.ones(len(audio), bool))
    assert scores["clipping"] > 0.1 and scores["speech"] == 1 and -20 < scores["loudness_db"] <= 0
