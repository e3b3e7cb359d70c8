import cv2
import numpy as np
import pytest

from pipelines.stages import picture_scores
from tests.pipelines.stages.test_head_scores import generic_head


def noise_frames(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (count, 256, 256, 3)).astype(np.uint8)


def test_frozen_pictures_count_beyond_what_the_frame_rate_explains():
    frames = noise_frames(60)
    assert picture_scores.frozen_share(frames, 30) == 0
    pal = frames[[index * 25 // 30 for index in range(60)]]
    assert picture_scores.frozen_share(pal, 25) < 0.05 < 0.1 < picture_scores.frozen_share(pal, 30)
    assert picture_scores.frozen_share(np.repeat(frames[:1], 60, axis=0), 25) == 1
    assert picture_scores.frozen_share(frames[:1], 30) == 1


def test_lettering_is_seen_and_a_plain_picture_is_not():
    x = np.linspace(0, 200, 256)
    plain = np.repeat(np.tile(x, (256, 1))[None, :, :, None], 3, axis=-1).astype(np.uint8)
    plain = np.repeat(plain, 10, axis=0)
    assert picture_scores.text_share(plain) == 0
    captioned = plain.copy()
    for frame in captioned:
        cv2.putText(frame, "subscribe now please", (10, 240), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
    assert picture_scores.text_share(captioned) > 0.01
    moving = np.stack([np.roll(frame, 23 * i, axis=0) for i, frame in enumerate(captioned)])
    assert picture_scores.text_share(moving) == 0
    assert picture_scores.text_share([]) == 0


def test_picture_scores_see_blur_and_light():
    marks = np.repeat(generic_head()[None], 30, axis=0)
    marks[:, 8] = (128, 200)
    marks[:, 17:27] = (128, 90)
    frames = noise_frames()
    sharp = picture_scores.picture_scores(frames, marks, 30)
    soft = picture_scores.picture_scores(np.stack([cv2.GaussianBlur(f, (0, 0), 4) for f in frames]), marks, 30)
    dark = picture_scores.picture_scores(frames // 8, marks, 30)
    assert soft["blur"] < sharp["blur"] / 20 and dark["luminance"] < 20 < sharp["luminance"]
    assert sharp["blur_effect"] < 0.2 < 0.4 < soft["blur_effect"]
    assert sharp["face_share"] == pytest.approx(110 / 256)


def textured(size):
    """The same random picture of soft-edged patches, drawn at a size."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (24, 24)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def test_the_blur_effect_rises_with_blur_and_not_with_contrast():
    picture = noise_frames(1)[0, :120, :120, 0]
    blurred = [picture_scores.blur_effect(cv2.GaussianBlur(picture, (0, 0), s)) for s in (0.5, 1, 2, 4)]
    assert picture_scores.blur_effect(picture) < blurred[0] and (np.diff(blurred) > 0.05).all()
    assert picture_scores.blur_effect(picture // 2 + 60) == pytest.approx(picture_scores.blur_effect(picture), abs=0.02)
    assert picture_scores.blur_effect(np.full((40, 40), 9, np.uint8)) == 1


def test_the_blur_effect_of_a_face_does_not_hang_on_its_size():
    """The same face, large and small in the crop, scores alike; one that was enlarged from few pixels scores worse."""
    scores = []
    for size in (192, 96):
        marks = np.repeat(generic_head()[None] - 128, 2, axis=0) * size / 192 + 128
        marks[:, 8], marks[:, 17:27] = (128, 128 + size / 4), (128, 128 - size / 4)
        frame = np.zeros((256, 256, 3), np.uint8)
        edge = 128 - size // 2
        frame[edge : edge + size, edge : edge + size] = textured(size)[..., None]
        scores.append(picture_scores.picture_scores(np.stack([frame] * 2), marks, 30))
    assert scores[0]["blur_effect"] == pytest.approx(scores[1]["blur_effect"], abs=0.05)
    assert scores[0]["blur"] < scores[1]["blur"] / 3
