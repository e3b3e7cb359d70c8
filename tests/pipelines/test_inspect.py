import json
from pathlib import Path

import av
import numpy as np
import pytest

from models.errors import InputError
from pipelines.inspect import InspectConfig, inspect, write_video
from tests.pipelines.painted import FRAMES, make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("inspect"))


def streams(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(container.streams.audio[0]))
    return frames, samples


def test_lays_out_a_clip(dataset, tmp_path):
    made = inspect(InspectConfig(dataset.root, str(tmp_path), ("clip0",)))
    folder = Path(made["folders"][0])
    names = {path.name for path in folder.iterdir()}
    assert {
        "crop.mp4",
        "overlay.mp4",
        "sheet.png",
        "reference.png",
        "script.txt",
        "description.json",
        "speech.wav",
    } <= names
    frames, samples = streams(folder / "overlay.mp4")
    # Crop, landmarks, blended parsing, parsing colours.
    assert len(frames) == FRAMES and frames[0].shape == (256, 4 * 256, 3)
    assert samples >= 4_000
    assert json.loads((folder / "facts.json").read_text())["clips"]["landmark_backend"] == "painted"


def test_a_row_with_an_error_leaves_its_part_out(dataset, tmp_path):
    made = inspect(InspectConfig(dataset.root, str(tmp_path), ("clip1",)))
    frames, _ = streams(Path(made["folders"][0]) / "overlay.mp4")
    assert frames[0].shape == (256, 2 * 256, 3)


def test_unknown_clip_is_named(dataset, tmp_path):
    with pytest.raises(InputError, match="--clip nope"):
        inspect(InspectConfig(dataset.root, str(tmp_path), ("nope",)))


def test_video_bytes_repeat(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3)).astype(np.uint8)
    audio = np.zeros(2_667, np.int16)
    for name in ("a.mp4", "b.mp4"):
        write_video(str(tmp_path / name), frames, audio)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert len(streams(tmp_path / "a.mp4")[0]) == 5
