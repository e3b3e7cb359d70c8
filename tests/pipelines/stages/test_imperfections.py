import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages import imperfections as faults


def test_kinds_are_parsed_in_one_order():
    assert faults.parse_kinds("cut, blur") == ("blur", "cut")
    assert faults.parse_kinds("all") == faults.KINDS and faults.parse_kinds("none") == ()
    with pytest.raises(InputError, match="--imperfections rain"):
        faults.parse_kinds("blur,rain")


def test_a_kind_comes_in_its_share_of_clips_and_ignores_the_others():
    alone = [bool(faults.drawn(3, k, ("blur",), 0.3)) for k in range(300)]
    among = ["blur" in faults.drawn(3, k, faults.KINDS, 0.3) for k in range(300)]
    assert alone == among and 0.22 < np.mean(alone) < 0.38
    assert all(faults.drawn(3, k, faults.KINDS, 1.0).keys() == set(faults.KINDS) for k in range(5))


def edges(image):
    return np.abs(np.diff(image.astype(float), axis=1)).mean()


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(0, 256, (64, 64, 3), np.uint8), 2, 0), 2, 1)


@pytest.mark.parametrize("form", ["defocus", "motion"])
def test_blur_is_in_its_frames_alone_and_keeps_the_light(picture, form):
    fault = faults.Imperfection("blur", 10, 30, 8.0, "pixels at 512", {"form": form, "degrees": 20.0})
    blur = faults.Blur(fault, 512)
    np.testing.assert_array_equal(blur(picture, 9), picture)
    np.testing.assert_array_equal(blur(picture, 30), picture)
    soft = blur(picture, 20)
    assert edges(soft) < 0.8 * edges(picture) and abs(float(soft.mean()) - picture.mean()) < 2
    assert edges(blur(picture, 10)) > edges(soft)  # it comes gradually


def test_noise_has_its_strength_and_differs_between_frames():
    fault = faults.Imperfection("noise", 0, 9, 10.0, "levels")
    noise = faults.Noise(fault, 128, 96, np.random.default_rng(1))
    grey = np.full((96, 128, 3), 128, np.uint8)
    one, two = noise(grey, 0), noise(grey, 1)
    assert one.shape == grey.shape and 7 < (one.astype(float) - 128).std() < 14
    assert (one != two).mean() > 0.5


def test_a_pause_moves_what_comes_after_it():
    rate = 1000
    words = [{"word": w, "start": float(k), "end": k + 0.9} for k, w in enumerate("abcde")]
    phonemes = [{"phoneme": "a", "start": float(k), "end": k + 0.9, "stress": 0} for k in range(5)]
    audio = np.full(5 * rate, 1000, np.int16)
    sound, spoken, said, (start, end) = faults.insert_pause(np.random.default_rng(0), audio, rate, words, phonemes, 3.0)
    assert len(sound) == len(audio) + round((end - start) * rate)
    assert (sound[round(start * rate) + 1 : round(end * rate) - 1] == 0).all() and sound[0] == 1000
    assert [w["word"] for w in spoken] == list("abcde")
    assert all(w["end"] <= start + 1e-6 or w["start"] >= end - 1e-6 for w in spoken)
    silent = [p for p in said if not p["phoneme"]]
    assert len(silent) == 1 and silent[0]["start"] == pytest.approx(start)
    assert faults.insert_pause(np.random.default_rng(0), audio, rate, words, phonemes, 0.1) is None


def test_drawn_strengths_are_recorded():
    for draw in (faults.draw_compression, faults.draw_blur, faults.draw_noise):
        record = draw(np.random.default_rng(2), 100).record()
        assert record["kind"] in faults.KINDS and 0 <= record["start"] < record["end"] <= 100
        assert record["strength"] > 0 and record["unit"]
