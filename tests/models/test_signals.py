from models import signals


def test_grid_is_4k_plus_1():
    assert [signals.grid_frames(t) for t in (0, 1, 4, 5, 8, 9, 300)] == [0, 1, 1, 5, 5, 9, 297]
    assert [signals.grid_frames_up(t) for t in (1, 2, 5, 6, 9)] == [1, 5, 5, 9, 9]


def test_steps_and_samples_of_a_clip():
    # The paper: 2,432 semantic tokens for 5 s.
    assert signals.latent_steps(149) == 38
    assert signals.latent_steps(149) * 64 == 2_432
    assert signals.audio_samples(30) == 16_000
    assert signals.speech_steps(30) == 25
    assert signals.speech_steps(31) == 26


def test_audio_round_trip_is_within_half_a_frame():
    for samples in (16_000, 50_123, 79_999):
        frames = signals.frames_of_audio(samples)
        assert abs(signals.audio_samples(frames) - samples) <= signals.AUDIO_RATE / signals.VIDEO_FPS / 2 + 1
