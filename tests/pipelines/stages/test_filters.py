import cv2
import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages import filters
from pipelines.stages.filters import SCORES, FilterThresholds

GOOD = dict.fromkeys(SCORES, 0.0) | {
    "seconds": 5,
    "face_size": 120,
    "face_share": 0.4,
    "face_present": 1,
    "face_score": 1.5,
    "single_face": 1,
    "blur": 200,
    "luminance": 120,
    "speech": 0.8,
    "snr_db": 20,
    "lip_sync": 0.3,
}


def test_a_good_clip_is_kept():
    assert filters.decide(GOOD, FilterThresholds()) == []


@pytest.mark.parametrize(
    ("score", "value", "reason"),
    [
        ("seconds", 1.9, "too_short"),
        ("face_present", 0.3, "face_lost"),
        ("face_score", -0.2, "no_frontal_face"),
        ("single_face", 0.5, "several_faces"),
        ("face_size", 20, "face_too_small"),
        ("turn", 75, "no_frontal_face"),
        ("roll", -60, "head_tilted"),
        ("blur", 2, "blurred"),
        ("luminance", 5, "too_dark"),
        ("luminance", 250, "too_bright"),
        ("frozen", 1.0, "still_picture"),
        ("pad", 0.5, "out_of_frame"),
        ("speech", 0.1, "little_speech"),
        ("clipping", 0.3, "clipped_sound"),
    ],
)
def test_each_limit_has_its_reason(score, value, reason):
    missed = filters.decide(GOOD | {score: value}, FilterThresholds())
    assert [name for name, _ in missed] == [reason] and f"{value:.3g}".lstrip("-") in missed[0][1]


def test_every_threshold_is_used():
    """Changing any limit to an impossible value must reject a good clip (but those that act before the scores)."""
    for name in FilterThresholds.__dataclass_fields__:
        if name in ("max_seconds", "min_source_speech_seconds", "second_face_size"):
            continue
        impossible = FilterThresholds(**{name: 1e9 if name.startswith("min_") else -1e9})
        assert filters.decide(GOOD, impossible), name


def test_flags_tell_without_rejecting():
    assert filters.flags(GOOD) == []
    assert filters.flags(GOOD | {"snr_db": -3, "source_text": 0.02}) == ["noisy_or_music", "on_screen_text"]
    assert filters.decide(GOOD | {"snr_db": -3, "source_text": 0.02}, FilterThresholds()) == []


def test_thresholds_from_texts():
    assert filters.thresholds_with(["min_face_size=128", "max_turn=30"]) == FilterThresholds(
        min_face_size=128, max_turn=30
    )
    with pytest.raises(InputError, match="NAME=VALUE"):
        filters.thresholds_with(["nonsense=1"])
    with pytest.raises(InputError, match="a number"):
        filters.thresholds_with(["max_turn=left"])


def generic_head(yaw=0.0, pitch=0.0, roll=0.0):
    """The filter's own generic head seen from afar after a turn (degrees): every other point at the origin."""
    y, p, r = np.radians([yaw, pitch, roll])
    # Camera axes: x right, y down, z away. A positive yaw points the nose to the right, a positive pitch up.
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = np.zeros((68, 3))
    for index, place in filters._RIGID.items():
        points[index] = place
    return (points @ (about_z @ about_y @ about_x).T)[:, :2] * 0.8 + 128


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 20, 0), (0, -15, 0), (0, 0, 25), (20, 10, 0)]
)
def test_head_angles(angles):
    found = filters.head_angles(generic_head(*angles)[None])[0]
    assert np.abs(found - angles).max() < 4


def noise_frames(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (count, 256, 256, 3)).astype(np.uint8)


def test_frozen_pictures_count_beyond_what_the_frame_rate_explains():
    frames = noise_frames(60)
    assert filters.frozen_share(frames, 30) == 0
    pal = frames[[index * 25 // 30 for index in range(60)]]
    assert filters.frozen_share(pal, 25) < 0.05 < 0.1 < filters.frozen_share(pal, 30)
    assert filters.frozen_share(np.repeat(frames[:1], 60, axis=0), 25) == 1
    assert filters.frozen_share(frames[:1], 30) == 1


def test_lettering_is_seen_and_a_plain_picture_is_not():
    x = np.linspace(0, 200, 256)
    plain = np.repeat(np.tile(x, (256, 1))[None, :, :, None], 3, axis=-1).astype(np.uint8)
    plain = np.repeat(plain, 10, axis=0)
    assert filters.text_share(plain) == 0
    captioned = plain.copy()
    for frame in captioned:
        cv2.putText(frame, "subscribe now please", (10, 240), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
    assert filters.text_share(captioned) > 0.01
    moving = np.stack([np.roll(frame, 23 * i, axis=0) for i, frame in enumerate(captioned)])
    assert filters.text_share(moving) == 0
    assert filters.text_share([]) == 0


def test_snr():
    rng = np.random.default_rng(0)
    mask = np.zeros(48_000, bool)
    mask[16_000:32_000] = True
    noise = rng.normal(0, 0.01, 48_000)
    tone = np.where(mask, 0.1 * np.sqrt(2) * np.sin(np.arange(48_000) / 5), 0)
    assert filters.snr_db(noise + tone, mask) == pytest.approx(20, abs=1)
    assert filters.snr_db(noise, np.zeros(48_000, bool)) == 0
    # Speech throughout, with dips: measured against the quietest moments.
    dips = np.where(np.arange(48_000) % 8000 < 800, 0.001, 0.1) * rng.normal(0, 1, 48_000)
    assert filters.snr_db(dips, np.ones(48_000, bool)) > 30


def speaking(shift=0, frames=120):
    """Landmarks whose lips open with a syllable rhythm, and noise with the same rhythm ``shift`` frames later."""
    rng = np.random.default_rng(1)
    rhythm = np.abs(np.sin(np.cumsum(rng.uniform(0.2, 0.6, frames + 20))))
    points = np.zeros((frames, 68, 2))
    points[:, 17:27, 1] = -50
    points[:, 8, 1] = 50
    points[:, [65, 66, 67], 1] = 20 + 10 * rhythm[10 : 10 + frames, None]
    points[:, [61, 62, 63], 1] = 20
    late = np.interp(np.arange(frames * 16_000 // 30) * 30 / 16_000 - shift + 10, np.arange(frames + 20), rhythm)
    audio = 8000 * (0.05 + late**2) * rng.normal(0, 1, len(late))
    return points, np.clip(audio, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("shift", [0, 3, -2])
def test_lip_sync_finds_the_shift(shift):
    value, lag = filters.lip_sync(*speaking(shift))
    assert value > 0.5 and abs(lag - shift) <= 1


def test_lip_sync_of_a_still_mouth_is_nothing():
    points, audio = speaking()
    assert filters.lip_sync(np.repeat(points[:1], len(points), axis=0), audio) == (0.0, 0)
    assert filters.lip_sync(points[:5], audio[:100]) == (0.0, 0)


def test_picture_scores_see_blur_light_and_movement():
    marks = np.repeat(generic_head()[None], 30, axis=0)
    marks[:, 8] = (128, 200)
    marks[:, 17:27] = (128, 90)
    frames = noise_frames()
    sharp = filters.picture_scores(frames, marks, 512, 30)
    soft = filters.picture_scores(np.stack([cv2.GaussianBlur(f, (0, 0), 4) for f in frames]), marks, 512, 30)
    dark = filters.picture_scores(frames // 8, marks, 512, 30)
    assert soft["blur"] < sharp["blur"] / 20 and dark["luminance"] < 20 < sharp["luminance"]
    assert sharp["face_share"] == pytest.approx(110 / 256) and sharp["face_size"] == pytest.approx(220)
    moved = filters.picture_scores(frames, marks + np.arange(30)[:, None, None], 512, 30)
    assert sharp["motion"] == 0 and moved["motion"] == pytest.approx(30 * np.sqrt(2) / 110)


def test_sound_scores_cover_the_rest():
    points, audio = speaking()
    loud = np.clip(audio.astype(np.int32) * 20, -32768, 32767).astype(np.int16)
    speech = np.ones(len(audio), bool)
    scores = filters.sound_scores(loud, speech, points)
    assert scores["clipping"] > 0.1 and scores["speech"] == 1 and -20 < scores["loudness_db"] <= 0
