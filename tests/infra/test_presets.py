"""Every size of a part makes the same tokens, so that what is built on them does not change with it."""

import pytest

from infra.presets import expression, image, language, pose, semantic, shape, speech
from models.signals import AUDIO_RATE, CROP_SIZE, SEMANTIC_SIZE, SPEECH_HOP, TIME_STRIDE, VIDEO_FPS

SIZES = ("TINY", "PAPER")


def ratio(strides) -> int:
    result = 1
    for stride in strides:
        result *= stride
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("module", "levels", "codes"), [(shape, 8, 512), (expression, 8, 2048), (pose, 6, 512)])
def test_animation_has_the_papers_codes(module, levels, codes, size):
    model = getattr(module, size).model
    assert (model.rvq.levels, model.rvq.codes) == (levels, codes)
    assert ratio(model.strides) == (1 if module is shape else TIME_STRIDE)


@pytest.mark.parametrize("size", SIZES)
def test_speech_has_25_steps_a_second_of_4_levels(size):
    training = getattr(speech, size)
    assert (training.model.rvq.levels, training.model.rvq.codes) == (4, 1024)
    hop = training.model.patch * ratio(training.model.strides)
    assert hop == SPEECH_HOP and AUDIO_RATE / hop == 25 and training.window % hop == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("module", "bits", "pixels", "side", "time"), [(image, 18, CROP_SIZE, 16, 1), (semantic, 10, SEMANTIC_SIZE, 8, 4)]
)
def test_visual_tokens_have_the_papers_grid(module, bits, pixels, side, time, size):
    net = getattr(module, size).model.net
    assert net.bits == bits
    assert pixels / (net.patch[1] * ratio(s for _, s in net.strides)) == side
    assert net.patch[0] * ratio(t for t, _ in net.strides) == time


def test_the_papers_schedule_of_the_language_model():
    paper = language.PAPER
    assert (paper.warmup, paper.peak_rate, paper.final_rate) == (4_000, 1e-3, 5e-5)
    assert (paper.weight_decay, paper.rows, paper.length) == (1e-3, 256, 8192)
    # Ten seconds of current state, and as many of past.
    assert paper.window.current * TIME_STRIDE == 10 * VIDEO_FPS == paper.window.past * TIME_STRIDE
