import os

import numpy as np
import pytest

from pipelines.measure.corpus import read_frames
from pipelines.stages.video_writer import VideoWriter, compress


def pictures(width, height, count=12):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for k in range(count):
        light = 120 + 100 * np.sin((x + 4 * k) / 9) * np.cos(y / 7)
        yield np.stack([light, 0.6 * light, 255 - light], -1).astype(np.uint8)


def written(path, width=96, height=64, quality=18):
    audio = (3000 * np.sin(np.arange(8820) / 20)).astype(np.int16)
    with VideoWriter(path, width, height, audio, 22050, quality) as video:
        for image in pictures(width, height):
            video.write(image)
    return path


def test_frames_come_back_in_their_colours(tmp_path):
    path = written(tmp_path / "a.mp4.partial")
    frames = [image for _, image in read_frames(path, 1)]
    assert len(frames) == 12 and frames[0].shape == (64, 96, 3)
    for image, truth in zip(frames, pictures(96, 64), strict=True):
        assert np.abs(image.astype(float) - truth).mean() < 6
    assert os.listdir(tmp_path) == ["a.mp4.partial"]  # the sound's own file is gone


def test_the_same_frames_are_the_same_bytes(tmp_path):
    assert written(tmp_path / "a").read_bytes() == written(tmp_path / "b").read_bytes()


def test_compression_is_smaller_worse_and_as_large_a_picture(tmp_path):
    path = written(tmp_path / "a", quality=10)
    size = path.stat().st_size
    compress(path, 96, 64, 40, 0.5)
    frames = [image for _, image in read_frames(path, 1)]
    assert path.stat().st_size < size - 1000 and len(frames) == 12 and frames[0].shape == (64, 96, 3)
    truth = next(iter(pictures(96, 64)))
    assert np.abs(frames[0].astype(float) - truth).mean() > 4


def test_a_failing_encoder_says_why(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RuntimeError, match="folder: ffmpeg failed"):
        written(tmp_path / "folder")
    with pytest.raises(RuntimeError, match="nothing.mp4: ffmpeg failed"):
        compress(tmp_path / "nothing.mp4", 96, 64, 40, 0.5)
