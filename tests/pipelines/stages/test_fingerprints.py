import numpy as np
import pytest

from pipelines.stages import video
from pipelines.stages.fingerprints import (
    STEP,
    fingerprints,
    from_hex,
    motion_code,
    read_picture_hash,
    small_pictures,
    sound_code,
    to_hex,
)
from pipelines.stages.matching import Limits, best_shift, compare, make_codes
from tests.pipelines.media import ffmpeg, talking_head

SOUND = ("-c:a", "aac", "-b:a", "48k")


def read(path):
    info = video.probe(str(path))
    return np.stack(list(video.decode_frames(info, 256, 256))), video.decode_audio(info)


@pytest.fixture(scope="module")
def head():
    return read(talking_head())


def judged(*marks):
    """The verdict on two clips' fingerprints at the shift that fits best."""
    pictures = [read_picture_hash(item["picture_hash"]) for item in marks]
    codes = make_codes(*zip(*pictures, strict=True), [from_hex(item["sound_hash"]) for item in marks])
    shift = best_shift(codes, 0, 1)
    return compare(codes, np.array([0]), np.array([1]), np.array([shift]), Limits()), shift


@pytest.mark.parametrize(
    "options, shift",
    [
        (("-crf", "30", *SOUND), 0),
        (("-vf", "scale=144:144", "-c:a", "libmp3lame", "-b:a", "64k"), 0),
        (("-vf", "crop=iw*0.97:ih*0.97:iw*0.03:0,eq=brightness=0.06", *SOUND), 0),
        (("-ss", "0.5", *SOUND), 10),
        (("-r", "25", "-af", "volume=-9dB,aresample=22050", *SOUND), 0),
    ],
    ids=["crf30", "scaled", "cropped", "later", "25fps"],
)
def test_an_upload_of_the_same_moment_is_known(head, options, shift, tmp_path):
    ffmpeg("-i", talking_head(), "-c:v", "libx264", "-preset", "veryfast", *options, tmp_path / "copy.mp4")
    verdict, found = judged(fingerprints(*head), fingerprints(*read(tmp_path / "copy.mp4")))
    assert verdict.picture[0] and verdict.sound[0]
    assert abs(found - shift) <= 1
    assert verdict.sound_similarity[0] > 0.85  # far from that of another moment, below 0.65


def test_another_moment_of_the_same_person_is_none(head):
    frames, sound = head
    middle = len(frames) // 2
    cut = round(middle * 16000 / 30)
    verdict, _ = judged(fingerprints(frames[:middle], sound[:cut]), fingerprints(frames[middle:], sound[cut:]))
    assert verdict.appearance_distance[0] <= 16  # the same picture on the whole
    assert not verdict.picture[0] and not verdict.sound[0]
    assert not verdict.sound_similarity[0] > 0.7 and not verdict.picture_distance[0] < 0.25


def test_other_sound_leaves_the_picture_and_the_other_way_round(head):
    frames, sound = head
    original = fingerprints(frames, sound)
    dubbed, _ = judged(original, fingerprints(frames, sound[::-1]))
    assert dubbed.picture[0] and not dubbed.sound[0]
    mirrored, _ = judged(original, fingerprints(frames[:, :, ::-1], sound))
    assert mirrored.sound[0] and not mirrored.picture[0]


def test_noise_and_gain_leave_the_sound(head):
    sound = head[1].astype(float)
    noise = np.random.default_rng(0).normal(size=len(sound)) * sound.std() * 10 ** (-20 / 20)
    words, noisy = sound_code(head[1]), sound_code((0.3 * (sound + noise)).astype(np.int16))
    told = (words != 0) & (noisy != 0)
    assert told.sum() > 40
    assert np.bitwise_count(words[told] ^ noisy[told]).mean() / 32 < 0.2


def test_what_stands_still_and_what_is_silent_tells_nothing():
    still = np.full((60, 64, 64, 3), 120, np.uint8)
    still[:, 20:40, 20:40] = 200
    assert not motion_code(small_pictures(still)).any()
    assert not sound_code(np.zeros(32000, np.int16)).any()
    assert len(sound_code(np.zeros(5000, np.int16))) == 0  # too short for one word


def test_codes_survive_their_text(head):
    marks = fingerprints(*head)
    appearance, motion = read_picture_hash(marks["picture_hash"])
    assert f"{appearance:016x}{to_hex(motion)}" == marks["picture_hash"]
    np.testing.assert_array_equal(from_hex(marks["sound_hash"]), sound_code(head[1]))
    assert abs(len(motion) - len(head[0]) / 30 / STEP) < 8 and np.count_nonzero(motion) > 40
    with pytest.raises(ValueError):
        read_picture_hash("no hash of anything")
