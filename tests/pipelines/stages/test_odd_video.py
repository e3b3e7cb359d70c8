"""The right pixels at the right time from unusual files: interlaced, turned, odd sizes, other codecs, late streams."""

import numpy as np
import pytest

from pipelines.stages import video
from pipelines.stages.limits import ChangingPicture
from tests.pipelines.media import PICTURE, TONE, ffmpeg, make_video

MOVING = "testsrc2=size=320x240:rate=50:duration=1.6,scroll=horizontal=0.02"
SIZES = ("320x240", "160x120")
FIELDS = {
    "mp4": ("tff", ("libx264", "-flags", "+ilme+ildct", "-crf", "8")),
    "ts": ("bff", ("mpeg2video", "-flags", "+ilme+ildct", "-q:v", "2")),
    "mov": ("bff", ("mjpeg", "-field_order", "bb", "-q:v", "2", "-pix_fmt", "yuvj420p")),
}


def all_frames(info):
    """Every picture at its displayed size, by the plainest graph."""
    graph = video._clock(video._whole(video._input(info), info))
    if not info.square_pixels:
        graph = (
            graph.filter("scale", info.width, info.height, flags="bicubic")
            .filter("setsar", 1)
            .filter("format", info.pixel_format)
        )
    size = info.width * info.height * 3
    frames = video._run_raw(graph.filter("format", "rgb24"), size, info, pix_fmt="rgb24")
    return np.stack([np.frombuffer(data, np.uint8) for data in frames]).reshape(-1, info.height, info.width, 3)


def combing(frames) -> float:
    """How much lines differ from the mean of their neighbours, against the lines two below: high where two moments
    are woven into one picture."""
    luma = np.asarray(frames).astype(float).mean(axis=-1)
    comb = np.abs(luma[:, 1:-1] - (luma[:, :-2] + luma[:, 2:]) / 2).mean()
    return comb / np.abs(luma[:, 2:] - luma[:, :-2]).mean()


def expect_box(info, box, start=0, count=2):
    """A crop of 256 pixels is the displayed picture's pixels, black outside.

    Where 4:2:0 meets an odd size, the scaler interpolates colour in the whole picture, but not in the part: there
    every other place must be much worse.
    """
    x0, y0, side = box
    assert side == 256
    frames = all_frames(info)[start : start + count]
    expected = np.zeros((count, side, side, 3), np.uint8)
    left, top, right, bottom = max(0, x0), max(0, y0), min(info.width, x0 + side), min(info.height, y0 + side)
    expected[:, top - y0 : bottom - y0, left - x0 : right - x0] = frames[:, top:bottom, left:right]
    got = video.decode_crop(info, start, count, box)
    assert got.shape == expected.shape
    if "420" in info.pixel_format and (info.width % 2 or info.height % 2):
        luma, shown = (picture @ np.array([0.3, 0.6, 0.1]) for picture in (got, expected))
        error = np.abs(luma - shown)[:, 2:-2, 2:-2].mean()
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert error < np.abs(luma - np.roll(shown, shift, (1, 2)))[:, 2:-2, 2:-2].mean() / 2
    else:
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("container", FIELDS)
def test_interlaced_pictures_are_made_whole(container, tmp_path):
    first, codec = FIELDS[container]
    weave = "interleave_top" if first == "tff" else "interleave_bottom"
    path = tmp_path / f"fields.{container}"
    source = ("-f", "lavfi", "-i", MOVING, "-vf", f"tinterlace={weave},setfield={first}")
    ffmpeg(*source, "-pix_fmt", "yuv420p", "-c:v", *codec, path)
    info = video.probe(str(path))
    assert info.scan != "progressive"
    whole = make_video(tmp_path / "whole.mp4", MOVING, None, "-vf", "fps=25", "-crf", "8")
    reference = combing(all_frames(video.probe(str(whole)))[5:20])
    woven = combing(_woven(info)[5:20])
    crop, scan = video.decode_crop(info, 5, 15, (32, 0, 240)), np.stack(list(video.decode_frames(info, 320, 240)))
    assert woven > 1.5 * reference
    assert combing(scan[5:20]) < 1.15 * reference
    clean = combing(video.decode_crop(video.probe(str(whole)), 5, 15, (32, 0, 240)))
    assert combing(crop) < 1.15 * clean
    expect_box(info, (32, -8, 256), start=40)


def _woven(info):
    import dataclasses

    return all_frames(dataclasses.replace(info, scan="progressive"))


def test_progressive_pictures_are_left_alone(tmp_path):
    """A stream that is called interlaced and has both kinds: those that are not flagged are the same bytes."""
    import dataclasses

    path = make_video(tmp_path / "plain.mp4", "testsrc2=size=320x240:rate=30:duration=0.5", None)
    info = video.probe(str(path))
    assert info.scan == "progressive"
    checked = all_frames(dataclasses.replace(info, scan="interlaced"))
    assert np.array_equal(checked, all_frames(info))


@pytest.mark.parametrize(
    ("size", "codec"),
    [
        ("321x241", ("libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv444p")),
        ("322x242", ("libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le")),
        ("321x241", ("mpeg4", "-pix_fmt", "yuv420p", "-q:v", "3")),
        ("320x240", ("libx264", "-pix_fmt", "yuv422p")),
        ("320x240", ("libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:: len(value) - 1]),
)
@pytest.mark.parametrize("box", [(40, -8, 256), (31, -7, 256), (66, 6, 256)])
def test_the_box_is_the_pixels_in_every_format(size, codec, box, tmp_path):
    path = tmp_path / "video.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size=640x480:rate=30:duration=0.2,scale={size},setsar=1", "-c:v", *codec, path
    )
    info = video.probe(str(path))
    assert f"{info.width}x{info.height}" == size
    expect_box(info, box, start=2)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_odd_sizes(turn, tmp_path):
    upright = tmp_path / "upright.mp4"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=640x480:rate=30:duration=0.2,scale=321:263,setsar=1",
        "-pix_fmt",
        "yuv444p",
        upright,
    )
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", turn, "-i", upright, "-c", "copy", path)
    info = video.probe(str(path))
    assert (info.width, info.height) == ((321, 263) if turn == 180 else (263, 321))
    shown, plain = all_frames(info)[0], all_frames(video.probe(str(upright)))[0]
    assert np.abs(np.rot90(plain, turn // 90).astype(int) - shown).mean() < 1
    expect_box(info, (5, 4, 256))
    expect_box(info, (-31, 40, 256))


def test_turned_pictures_with_oblong_pixels(tmp_path):
    """The pixels are wide before the turn, so the shown picture is tall."""
    wide = make_video(tmp_path / "wide.mp4", "testsrc2=size=160x240:rate=30:duration=0.2", None, "-vf", "setsar=2")
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", wide, "-c", "copy", path)
    info = video.probe(str(path))
    assert (info.width, info.height, info.square_pixels) == (240, 320, False)
    expect_box(info, (-8, 30, 256))


def test_a_picture_that_starts_late_is_held_from_the_start(tmp_path):
    sound = make_video(tmp_path / "both.mp4", PICTURE, TONE)
    path = tmp_path / "late.mkv"
    ffmpeg("-i", sound, "-itsoffset", "0.5", "-i", sound, "-map", "0:a", "-map", "1:v", "-c", "copy", path)
    info = video.probe(str(path))
    frames = all_frames(info)
    plain = all_frames(video.probe(str(sound)))
    assert abs(len(frames) - 75) <= 1
    assert all(np.array_equal(frame, plain[0]) for frame in frames[:15])
    assert np.array_equal(frames[35], plain[20])
    expect_box(info, (20, 0, 256), start=40)
    assert len(video.decode_audio(info)) >= 31_000


def test_times_that_begin_below_zero(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", PICTURE, TONE, "-bf", "0")
    path = tmp_path / "negative.mkv"
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "-1", "-avoid_negative_ts", "disabled", path)
    info = video.probe(str(path))
    assert np.array_equal(all_frames(info)[40], all_frames(video.probe(str(plain)))[40])
    a, b = video.decode_audio(info), video.decode_audio(video.probe(str(plain)))
    assert abs(len(a) - len(b)) < 1600


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_sound_of_any_layout_keeps_its_pitch_and_place(layout, tmp_path):
    late = "sine=frequency=440:sample_rate=48000:duration=1,adelay=500:all=1"
    path = make_video(tmp_path / "sound.mp4", PICTURE, late, "-af", f"aformat=channel_layouts={layout}", "-c:a", "aac")
    sound = video.decode_audio(video.probe(str(path)))
    assert np.abs(sound[:7000]).max() < 60
    piece = sound[9000:17_000].astype(float)
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
    assert abs(spectrum.argmax() * 16_000 / len(piece) - 440) < 4
    assert np.abs(piece).max() > 300


def test_a_picture_size_that_changes_is_an_error_of_its_own(tmp_path):
    """ffmpeg would start its filters again, and with them the clock."""
    first, second = (make_video(tmp_path / f"{i}.ts", f"testsrc2=size={i}:rate=30:duration=1", None) for i in SIZES)
    later = tmp_path / "later.ts"
    ffmpeg("-i", second, "-c", "copy", "-output_ts_offset", "1", later)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + later.read_bytes())
    with pytest.raises(ChangingPicture):
        list(video.decode_frames(video.probe(str(path)), 160, 120))


def test_the_clip_says_what_the_box_says(tmp_path):
    """Even boxes are cut without a detour: the stored clip is the same as the exact one but for the encoder."""
    info = video.probe(str(make_video(tmp_path / "sample.mp4")))
    for box in ((40, 20, 200), (41, 21, 200), (-20, 0, 260)):
        clip = video.decode_clip(video.write_crop(info, 12, 9, box, np.zeros(4800, np.int16), crf=1))
        assert np.abs(clip.astype(int) - video.decode_crop(info, 12, 9, box)).mean() < 4
