import json

import numpy as np

from infra import previews
from models.labels import COLORS
from pipelines.stages.frames import decode_video


def test_semantics_are_painted_and_enlarged_without_mixing_colours():
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    frames = previews.semantic_frames(labels)
    assert frames.shape == (1, 256, 256, 3)
    np.testing.assert_array_equal(frames[0, 32::64, 32::64], COLORS[labels[0]])
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) == 16


def test_large_frames_stay_as_they_are():
    frames = np.zeros((1, 300, 300, 3), np.uint8)
    assert previews.enlarge(frames) is frames


def test_a_mesh_moves_with_its_expression_and_pose():
    from models.face.model import load_face_model

    names = load_face_model().expression_names
    expression = np.zeros((2, len(names)), np.float32)
    expression[1, next(i for i, name in enumerate(names) if "jaw" in name.lower())] = 1
    frames = previews.mesh_frames(None, expression, None)
    assert frames.shape == (2, 256, 256, 3) and np.any(frames[0] != frames[1])


def test_descriptions_are_json_or_say_that_they_are_not(tmp_path):
    good, bad = str(tmp_path / "good.json"), str(tmp_path / "bad.json")
    previews.write_description(good, '{"hair":{"colour":"red"}}')
    assert json.loads(open(good).read()) == {"hair": {"colour": "red"}}
    previews.write_description(bad, '{"hair": red')
    written = json.loads(open(bad).read())
    assert written["text"] == '{"hair": red' and "not JSON" in written["note"]


def test_movies_have_every_frame_and_the_same_bytes_again(tmp_path):
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (7, 32, 32, 3)), 8, axis=1).repeat(8, axis=2).astype(np.uint8)
    audio = (8000 * np.sin(np.arange(3733) / 20)).astype(np.int16)
    one, two = str(tmp_path / "one.mp4"), str(tmp_path / "two.mp4")
    previews.write_movie(one, frames, audio)
    previews.write_movie(two, frames, audio)
    data = open(one, "rb").read()
    assert data == open(two, "rb").read()
    assert decode_video(data).shape == frames.shape


def test_an_overview_shows_every_video(tmp_path):
    from PIL import Image

    videos = {"a": np.full((3, 256, 256, 3), 10, np.uint8), "b": np.full((3, 512, 512, 3), 200, np.uint8)}
    path = previews.write_overview(str(tmp_path / "o.png"), np.full((256, 256, 3), 90, np.uint8), videos)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * 256 + 4, 7 * 256 + 6 * 4, 3)
    assert tuple(sheet[128, 128]) == (90, 90, 90) and tuple(sheet[128, -128]) == (10, 10, 10)
    assert tuple(sheet[-128, -128]) == (200, 200, 200)
