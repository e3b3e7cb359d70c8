import numpy as np
import pytest

from models.face.model import deform, load_face_model
from pipelines.stages import talk


def _phonemes(symbols, each=0.12, start=0.2, stress=()):
    return [
        {"phoneme": s, "start": start + k * each, "end": start + (k + 1) * each, "stress": int(k in stress)}
        for k, s in enumerate(symbols)
    ]


def _track(symbols, **keywords):
    phonemes = _phonemes(symbols, **keywords)
    return talk.mouth_track(phonemes, int(30 * (phonemes[-1]["end"] + 0.3))), phonemes


def _at(track, phoneme, name, late=0.5):
    frame = int(30 * (phoneme["start"] + late * (phoneme["end"] - phoneme["start"])))
    return track[frame, talk._MOUTH.index(name)]


def test_visemes_of_english_phonemes():
    assert talk.visemes("m") == talk.visemes("b") == ["p"]
    assert talk.visemes("aɪ") == ["a", "ɪ"] and talk.visemes("tʃ") == ["t", "ʃ"] and talk.visemes("") == [""]
    assert talk.openness("ɑː") > talk.openness("ɛ") > talk.openness("iː") > talk.openness("m") == 0


def test_lips_meet_between_open_vowels():
    track, phonemes = _track(["ɑː", "m", "ɑː"])
    column = talk._MOUTH.index("lip_close")
    frames = slice(int(30 * phonemes[1]["start"]), int(30 * phonemes[1]["end"]) + 1)
    assert track[frames, column].max() > 0.18
    assert _at(track, phonemes[0], "jaw_x") > 3 * track[frames, talk._MOUTH.index("jaw_x")].min()


def test_rounding_starts_before_the_round_vowel():
    track, phonemes = _track(["s", "uː"])
    plain, _ = _track(["s", "iː"])
    assert _at(track, phonemes[1], "lip_round") > 0.55
    assert _at(track, phonemes[0], "lip_round", 0.8) > _at(plain, phonemes[0], "lip_round", 0.8) + 0.05


def test_the_mouth_rests_in_silence_and_moves_smoothly():
    track, _ = _track(["h", "ɛ", "l", "oʊ", "", "w", "ɜː", "l", "d"])
    assert np.abs(track[0]).max() < 0.05 and np.abs(track[-1]).max() < 0.05
    assert np.abs(np.diff(track, axis=0)).max() < 0.45
    assert talk.mouth_track([], 30).shape == (30, len(talk._MOUTH))


def test_blinks_are_natural():
    rng = np.random.default_rng(0)
    track = talk.blink_track(rng, 3000, 2.8)
    closed = track > 0.8
    starts = (np.diff(closed.astype(int)) == 1).sum()
    assert 20 < starts < 70 and 0.03 < closed.mean() < 0.15 and track.min() == 0 and track.max() == 1
    assert talk.blink_track(rng, 60, 2.8).max() == 1  # also in a short clip


@pytest.fixture(scope="module")
def performance():
    model = load_face_model()
    phonemes = _phonemes(["h", "ə", "l", "oʊ", "m", "aɪ", "f", "ɹ", "ɛ", "n", "d"] * 3, stress=(3, 8, 14, 19, 25, 30))
    frames = int(30 * (phonemes[-1]["end"] + 0.2))
    return model, talk.perform(model, phonemes, frames, talk.Manner(), np.random.default_rng(3)), frames


def test_performance_stays_in_range(performance):
    model, (expression, motion), frames = performance
    assert expression.shape == (frames, model.num_expression) and motion.shape == (frames, 6)
    assert expression.min() >= -0.6 and expression.max() <= 1
    degrees = np.degrees(np.abs(motion[:, :3])).max(0)
    assert degrees[0] <= 6.01 and degrees[1] <= 12.01 and degrees[2] <= 6.01 and np.abs(motion[:, 3:]).max() < 0.03


def test_head_moves_slowly_and_is_not_still(performance):
    _, (_, motion), _ = performance
    turn = np.degrees(motion[:, :3])
    assert turn.std(0).min() > 0.3 and np.abs(np.diff(turn, axis=0)).max() < 3


def test_eyes_hold_the_camera_against_the_turn(performance):
    model, (expression, motion), _ = performance
    assert np.corrcoef(expression[:, model.expression_index("gaze_x")], motion[:, 1])[0, 1] > 0.5


def test_the_same_seed_performs_the_same(performance):
    model, (expression, _), frames = performance
    phonemes = _phonemes(["h", "ə", "l", "oʊ", "m", "aɪ", "f", "ɹ", "ɛ", "n", "d"] * 3, stress=(3, 8, 14, 19, 25, 30))
    again, _ = talk.perform(model, phonemes, frames, talk.Manner(), np.random.default_rng(3))
    np.testing.assert_array_equal(again, expression)
    other, _ = talk.perform(model, phonemes, frames, talk.Manner(), np.random.default_rng(4))
    mouth = [model.expression_index(n) for n in talk._MOUTH]
    np.testing.assert_array_equal(other[:, mouth], expression[:, mouth])  # the mouth follows the phonemes alone
    assert not np.array_equal(other, expression)


@pytest.mark.parametrize("each", [0.07, 0.14])
def test_lips_meet_on_the_head_and_do_not_cross(performance, each):
    model = performance[0]
    phonemes = _phonemes(["ɑː", "m", "iː", "b", "oʊ", "p", "æ"], each=each)
    frames = int(30 * (phonemes[-1]["end"] + 0.3))
    expression, _ = talk.perform(model, phonemes, frames, talk.Manner(), np.random.default_rng(0))
    points = deform(model.landmark_model(), np.zeros(model.num_shape, np.float32), expression) * 1000
    gap = (points[:, [61, 62, 63], 1] - points[:, [67, 66, 65], 1]).mean(1)
    for closed in (1, 3, 5):
        frame = int(30 * (phonemes[closed]["start"] + 0.5 * each))
        assert gap[frame - 1 : frame + 2].min() < 1.0
    assert gap.min() > -0.6 and gap.max() > 4


def test_eyes_do_not_hold_lids_apart_in_a_blink(performance):
    model, (expression, _), _ = performance
    shut = expression[:, model.expression_index("blink_left")] == 1
    assert shut.any() and np.abs(expression[shut, model.expression_index("gaze_y")]).max() == 0
