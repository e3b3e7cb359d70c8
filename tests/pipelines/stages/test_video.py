import numpy as np
import pytest

from models.signals import audio_samples
from pipelines.stages import video
from pipelines.stages.limits import (
    DecodeError,
    DecodeTimeout,
    Limits,
    MediaError,
    NoVideoStream,
    TruncatedVideo,
    UnreadableVideo,
)
from tests.pipelines.media import PICTURE, TONE, ffmpeg, make_video


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "sample.mp4")


def full_frames(info, count=None):
    """Every picture at full size by the plainest graph: what crops are compared with."""
    graph = video._clock(video._whole(video._input(info), info)).filter("format", "rgb24")
    size = info.width * info.height * 3
    frames = [np.frombuffer(data, np.uint8) for data in video._run_raw(graph, size, info, pix_fmt="rgb24")]
    return np.stack(frames[:count]).reshape(-1, info.height, info.width, 3)


def test_probe(sample):
    info = video.probe(str(sample))
    assert (info.width, info.height, info.rotation, info.codec) == (320, 240, 0, "h264")
    assert info.has_audio and info.square_pixels
    assert info.seconds == pytest.approx(2, abs=0.05) and info.fps == pytest.approx(30)


def test_rotation_gives_the_displayed_size_and_upright_pixels(sample, tmp_path):
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", sample, "-c", "copy", turned)
    info = video.probe(str(turned))
    assert (info.width, info.height) == (240, 320) and info.rotation in (90, 270)
    upright = full_frames(video.probe(str(sample)), 1)[0]
    shown = full_frames(info, 1)[0]
    assert shown.shape == (320, 240, 3)
    assert np.abs(np.rot90(upright, 1).astype(int) - shown).mean() < 3
    crop = video.decode_crop(info, 0, 5, (-8, 40, 256))
    assert np.abs(crop[0, :, 8 : 8 + 240].astype(int) - shown[40:296]).max() == 0


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    path = make_video(tmp_path / "wide.mp4", PICTURE, None, "-vf", "setsar=2")
    info = video.probe(str(path))
    assert (info.width, info.height, info.square_pixels) == (640, 240, False)
    crop = video.decode_crop(info, 0, 1, (300, 0, 240))
    assert crop.shape == (1, 256, 256, 3)
    reference = full_frames(video.VideoInfo(**{**info.__dict__, "width": 320}), 1)[0]
    assert abs(float(crop[0].mean()) - float(reference[:, 150:270].mean())) < 3


def test_variable_frame_rate_lands_on_the_clock(tmp_path):
    # Ten pictures, then a second without any, then ten more.
    path = make_video(
        tmp_path / "vfr.mp4", PICTURE, None, "-vf", "select='lt(n,10)+gte(n,40)',trim=end_frame=20", "-fps_mode", "vfr"
    )
    info = video.probe(str(path))
    frames = full_frames(info)
    assert len(frames) == 50
    still = np.abs(np.diff(frames[:, ::4, ::4].astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert (still[9:39] == 0).all() and (still[:9] > 0).all() and (still[40:] > 0).all()
    # A clip that begins inside the pause still shows the picture that is held there.
    held = video.decode_crop(info, 38, 3, (0, 0, 240))
    assert np.array_equal(held[0], video.decode_crop(info, 9, 1, (0, 0, 240))[0])
    assert not np.array_equal(held[1], held[2])


def test_25_fps_becomes_30(tmp_path):
    path = make_video(tmp_path / "pal.mp4", "testsrc2=size=160x120:rate=25:duration=2", None)
    assert len(full_frames(video.probe(str(path)))) == 60


@pytest.mark.parametrize("box", [(101, 51, 256 - 55), (33, 17, 200), (-33, -21, 256), (150, 100, 256), (-20, -60, 400)])
@pytest.mark.parametrize("start", [0, 37])
def test_the_box_is_the_pixels(sample, box, start):
    """Also where ffmpeg's own crop would move or round the box; pixels outside the picture are black."""
    info = video.probe(str(sample))
    got = video.decode_crop(info, start, 3, box)
    x0, y0, side = box
    frames = full_frames(info)[start : start + 3]
    expected = np.zeros((3, side, side, 3), np.uint8)
    left, top, right, bottom = max(0, x0), max(0, y0), min(320, x0 + side), min(240, y0 + side)
    expected[:, top - y0 : bottom - y0, left - x0 : right - x0] = frames[:, top:bottom, left:right]
    if side == 256:
        assert np.array_equal(got, expected)
    else:
        import cv2

        scaled = np.stack([cv2.resize(frame, (256, 256), interpolation=cv2.INTER_CUBIC) for frame in expected])
        assert np.abs(got.astype(int) - scaled).mean() < 4


def test_a_crop_is_the_same_bytes_twice_and_has_sound(sample):
    info = video.probe(str(sample))
    sound = (8000 * np.sin(np.arange(audio_samples(21)) / 9)).astype(np.int16)
    one, two = (video.write_crop(info, 30, 21, (40, -8, 256), sound) for _ in range(2))
    assert one == two
    frames = video.decode_clip(one)
    assert frames.shape == (21, 256, 256, 3)
    exact = video.decode_crop(info, 30, 21, (40, -8, 256))
    assert np.abs(frames.astype(int) - exact).mean() < 5
    import io

    import av

    with av.open(io.BytesIO(one)) as container:
        assert float(container.streams.video[0].average_rate) == 30
        samples = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert abs(len(samples) - len(sound)) <= 2048 and 0.1 < np.abs(samples).max() < 0.4


def test_a_box_beside_the_picture_is_refused(sample):
    with pytest.raises(ValueError, match="does not meet"):
        video.decode_crop(video.probe(str(sample)), 0, 1, (400, 0, 100))


def test_scaled_frames_stream_in_order(sample):
    info = video.probe(str(sample))
    width, height = video.scaled_size(info, 120)
    assert (width, height) == (160, 120)
    frames = list(video.decode_frames(info, width, height))
    assert len(frames) == 60 and frames[0].shape == (120, 160, 3)


@pytest.mark.parametrize("frame", [0, 7, 44])
def test_one_picture_is_that_of_the_whole_decode(sample, frame):
    info = video.probe(str(sample))
    frames = list(video.decode_frames(info, 160, 120))
    assert (video.decode_picture(info, frame, 160, 120) == frames[frame]).all()
    assert (video.decode_picture(info, 10**6, 160, 120) == frames[0]).all()


def test_sound_is_on_the_clock_of_the_picture(sample, tmp_path):
    info = video.probe(str(sample))
    audio = video.decode_audio(info)
    assert audio.dtype == np.int16 and abs(len(audio) - 32_000) < 600
    late = tmp_path / "late.mp4"
    ffmpeg("-i", sample, "-itsoffset", "0.5", "-i", sample, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    delayed = video.decode_audio(video.probe(str(late)))
    assert np.abs(delayed[:7500]).max() < 100 < np.abs(delayed[8500:9500]).max()


def test_cut_audio_has_the_grid_length_and_silence_past_the_end():
    audio = np.arange(1, 16_001, dtype=np.int16)
    piece = video.cut_audio(audio, 15, 9)
    assert len(piece) == audio_samples(9) and piece[0] == 8001
    end = video.cut_audio(audio, 28, 13)
    assert len(end) == audio_samples(13) and (end[-1000:] == 0).all()
    assert len(video.cut_audio(audio, 90, 5)) == audio_samples(5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp4", b"this is not a video\n" * 50),
        ("empty.mp4", b""),
        ("list.mp4", b"ffconcat version 1.0\nfile other.mp4\n"),
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_what_is_not_a_video_is_unreadable(sample, tmp_path, name, content):
    (tmp_path / "other.mp4").write_bytes(sample.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVideo):
        video.probe(str(tmp_path / name))


def test_sound_alone_is_not_a_video(tmp_path):
    path = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", TONE, path)
    with pytest.raises(NoVideoStream):
        video.probe(str(path))


def test_a_file_cut_short(sample, tmp_path):
    no_index = tmp_path / "no_index.mp4"  # the index is at the end of this file
    no_index.write_bytes(sample.read_bytes()[: sample.stat().st_size // 2])
    with pytest.raises(UnreadableVideo):
        video.probe(str(no_index))
    front = tmp_path / "front.mp4"
    ffmpeg("-stream_loop", "3", "-i", sample, "-c", "copy", "-movflags", "+faststart", front)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(front.read_bytes()[: front.stat().st_size // 2])
    info = video.probe(str(cut))
    with pytest.raises(MediaError) as error:
        list(video.decode_frames(info, 160, 120))
    assert type(error.value) in (TruncatedVideo, DecodeError)


def test_a_deadline_ends_a_decoder_that_hangs(sample):
    info = video.probe(str(sample), Limits(max_minutes=0.02))
    endless = video._input(info).filter("loop", loop=-1, size=60)
    with pytest.raises(DecodeTimeout):
        for _ in video._run_raw(endless, 320 * 240 * 3, info, pix_fmt="rgb24"):
            pass


def test_a_reader_that_stops_early_leaves_no_process(sample):
    import subprocess

    started = []
    original = subprocess.Popen

    class Spy(original):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    subprocess.Popen = Spy
    try:
        frames = video.decode_frames(video.probe(str(sample)), 160, 120)
        next(frames)
        frames.close()
    finally:
        subprocess.Popen = original
    assert started and all(process.poll() is not None for process in started)


def test_names_that_look_like_addresses(sample, tmp_path):
    odd = tmp_path / "concat:a %03d 'x'.mp4"
    odd.write_bytes(sample.read_bytes())
    info = video.probe(str(odd))
    assert video.decode_crop(info, 0, 1, (0, 0, 240)).shape == (1, 256, 256, 3)


def test_key_frames_are_those_around_the_clip_as_coded(tmp_path):
    """A key frame a second, of growing luma, in a file that says it is rotated: the pictures are not."""
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    fade = "color=white:size=128x96:rate=30:duration=4,fade=in:0:120"
    make_video(plain, fade, None, "-g", "30", "-keyint_min", "30", "-sc_threshold", "0")
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", turned)
    info = video.probe(str(turned))
    assert (info.width, info.height) == (96, 128)
    every = [luma.mean() for luma in video.key_frames(info, 0, 120, 8)]
    assert len(every) == 4 and every == sorted(every)
    # From frame 75: the first at or before it, at 2 s or sooner, then what follows.
    found = video.key_frames(info, 75, 120, 8)
    assert {luma.shape for luma in found} == {(96, 128)}
    means = [luma.mean() for luma in found]
    assert means[0] <= every[2] and means == every[every.index(means[0]) :][: len(means)]
    assert len(video.key_frames(info, 0, 120, 2)) == 2
