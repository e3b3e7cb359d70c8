import json

import numpy as np
import pytest
from PIL import Image

from infra.road import PANELS, draw_road, source_frame
from models.face.model import load_face_model
from pipelines.dataset import shard_name, update_manifest, write_shard
from pipelines.inspect import write_video
from tests.pipelines.painted import FRAMES, make_dataset


@pytest.fixture
def workdir(tmp_path):
    """A finished demo's folder as far as the picture reads it: painted clips, a still head, one generated video."""
    dataset = make_dataset(tmp_path)
    model = load_face_model()
    fits = {
        "shape": {
            "shape": np.zeros(model.num_shape, np.float32),
            "camera": np.array([1200, 128, 128], np.float32),
            "face_model": model.name,
        },
        "expression": {"expression": np.zeros((FRAMES, model.num_expression), np.float32)},
        "pose": {"pose": np.tile(np.array([0, 0, 0, 0, 0, 1.2], np.float32), (FRAMES, 1))},
    }
    clips = [record["clip_id"] for record in dataset.column("clips")]
    columns = {
        name: (
            [write_shard(dataset.root, shard_name(name, 0, 1), [{"clip_id": c, "error": "", **fit} for c in clips])],
            {"backend": "painted"},
        )
        for name, fit in fits.items()
    }
    update_manifest(dataset.root, columns)
    made = str(tmp_path / "made.mp4")
    write_video(made, np.full((FRAMES, 64, 64, 3), (250, 10, 10), np.uint8))
    outputs = {"stages": {"generate": {"summary": {"outputs": {"video": made}}}}}
    (tmp_path / "summary.json").write_text(json.dumps(outputs))
    return tmp_path


def test_every_panel_shows_something(workdir):
    picture = np.asarray(Image.open(draw_road(str(workdir))).convert("RGB")).astype(int)
    for panel in np.array_split(picture[60:], len(PANELS), axis=1):
        assert panel.std() > 10
    # The last panel is the generated video's middle frame: red.
    red = (picture[..., 0] > 200) & (picture[..., 1:].max(-1) < 60)
    assert red[:, -picture.shape[1] // 7 :].mean() > 0.3 and red[:, : picture.shape[1] // 2].mean() < 0.01


def test_a_source_frame_is_found_again(tmp_path):
    frames = np.zeros((6, 64, 96, 3), np.uint8)
    frames += (40 * np.arange(6, dtype=np.uint8))[:, None, None, None]
    write_video(str(tmp_path / "a.mp4"), frames)
    clip = {"source": str(tmp_path / "a.mp4"), "source_size": np.array([96, 64]), "start_frame": 1, "clip_id": "c"}
    assert abs(source_frame(clip, 2).mean() - 120) < 6
