"""Decoding of a clip's video from memory."""

import numpy as np
import pytest

from models.errors import InputError
from pipelines.inspect import write_video
from pipelines.stages.frames import clip_frames, decode_video


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> tuple[bytes, np.ndarray]:
    frames = np.zeros((9, 256, 256, 3), np.uint8)
    for t in range(9):
        frames[t, :, : 20 * (t + 1)] = (220, 40, 40)
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(str(path), frames, np.zeros(4800, np.int16))
    return path.read_bytes(), frames


def test_every_frame_comes_back_in_order(video):
    data, frames = video
    decoded = decode_video(data)
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - frames).mean() < 8
    widths = (decoded[:, 128, :, 0] > 128).sum(1)
    assert np.abs(widths - 20 * np.arange(1, 10)).max() <= 2


def test_another_number_of_frames_is_refused(video):
    record = {"clip_id": "abc", "video": video[0], "num_frames": 13}
    with pytest.raises(InputError, match=r"abc: field video: expected frames of shape \(13"):
        clip_frames(record)
    assert len(clip_frames({**record, "num_frames": 9})) == 9


@pytest.mark.parametrize("data", [b"", b"no video at all", b"\0" * 5000])
def test_what_is_no_video_is_refused(data):
    with pytest.raises(InputError, match="clip: field video"):
        decode_video(data)
