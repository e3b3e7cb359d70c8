"""Rates, sizes and the time grid that every part of Archon shares: the one place where they are written down.

Facts: video 30 fps and 256x256 crops (paper, training data), speech 16 kHz at 25 token frames a second (paper, speech
tokenizer), animation and semantic video a factor of 4 shorter in time (paper, animation and semantic tokenizers).

The time grid. Animation and semantic tokenizers are causal: their first step sees frame 0 alone and every later step
sees four more
frames. A clip therefore has ``4k + 1`` frames and ``k + 1`` token steps::

    frames   0 | 1 2 3 4 | 5 6 7 8 | ...
    step     0 |    1    |    2    | ...
"""

VIDEO_FPS = 30
CROP_SIZE = 256
SEMANTIC_SIZE = 128
AUDIO_RATE = 16_000
SPEECH_HOP = 640
SPEECH_RATE = AUDIO_RATE // SPEECH_HOP
TIME_STRIDE = 4
NUM_LANDMARKS = 68


def grid_frames(frames: int) -> int:
    """Returns the largest ``4k + 1`` that is at most ``frames`` (0 for no frames)."""
    return (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1 if frames > 0 else 0


def grid_frames_up(frames: int) -> int:
    """Returns the smallest ``4k + 1`` that is at least ``frames`` (and at least 1)."""
    return -(-max(frames - 1, 0) // TIME_STRIDE) * TIME_STRIDE + 1


def latent_steps(frames: int) -> int:
    """Returns how many animation or semantic token steps a clip of ``frames`` = 4k + 1 video frames has: k + 1."""
    return (frames - 1) // TIME_STRIDE + 1


def audio_samples(frames: int) -> int:
    """Returns how many 16 kHz samples last as long as ``frames`` video frames."""
    return round(frames * AUDIO_RATE / VIDEO_FPS)


def speech_steps(frames: int) -> int:
    """Returns how many 25 Hz speech token frames cover ``frames`` video frames."""
    return -(-audio_samples(frames) // SPEECH_HOP)


def frames_of_audio(samples: int) -> int:
    """Returns how many video frames last as long as ``samples`` audio samples, to the nearest frame."""
    return round(samples * VIDEO_FPS / AUDIO_RATE)
