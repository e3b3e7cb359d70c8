"""The refiner is trained on curated clips with truth beside their sources."""

import numpy as np
import pytest

from infra.training.landmark_refiner import percent, read_samples
from models.errors import InputError
from pipelines.dataset import update_manifest, write_shard
from pipelines.inspect import write_video
from pipelines.storage import join


def dataset(tmp_path, with_truth: bool) -> str:
    """One clip of 10 frames, cut 2 to 12 from its source at half its size."""
    rng = np.random.default_rng(0)
    root, source = str(tmp_path / "data"), str(tmp_path / "head.mp4")
    truth = rng.uniform(100, 400, (14, 68, 2)).astype(np.float32)
    if with_truth:
        np.savez(
            tmp_path / "head.truth.npz",
            landmarks=truth,
            shape=np.zeros(3),
            expression=np.zeros((14, 5)),
            pose=np.zeros((14, 6)),
            camera=np.array([2400.0, 256, 256]),
        )
    write_video(join(root, "video.mp4"), np.zeros((10, 256, 256, 3), np.uint8))
    record = {
        "clip_id": "a",
        "error": "",
        "source": source,
        "start_frame": 2,
        "end_frame": 12,
        "num_frames": 10,
        "box": np.array([0, 0, 512], np.float32),
        "landmarks": (truth[2:12] / 2 - 0.5).astype(np.float32),
        "video": (tmp_path / "data" / "video.mp4").read_bytes(),
    }
    info = write_shard(root, "clips/clips-00000-of-00001.array_record", [record])
    update_manifest(root, {"clips": ([info], {"job": "test"})})
    return root


def test_samples_are_aligned_with_their_truth(tmp_path):
    root = dataset(tmp_path, with_truth=True)
    light, detected, truth, sources = read_samples([root], every=4)
    assert light.shape == (3, 256, 256) and len(sources) == 1
    np.testing.assert_allclose(detected, truth, atol=1e-3)
    assert percent(detected, truth) < 1e-3 and percent(detected + 1, truth) > 0.1


def test_a_clip_without_truth_is_named(tmp_path):
    with pytest.raises(InputError, match="head.truth.npz"):
        read_samples([dataset(tmp_path, with_truth=False)], every=4)
