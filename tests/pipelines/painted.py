"""A small dataset with painted content, for tests of what reads datasets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.signals import CROP_SIZE, audio_samples, speech_steps
from pipelines.dataset import Dataset, update_manifest
from pipelines.inspect import write_video
from tests.pipelines.rows import row, write_column

FRAMES = 9


def clip(index: int, folder) -> dict:
    """One clip record: a moving square over a plain background, a tone."""
    frames = np.full((FRAMES, CROP_SIZE, CROP_SIZE, 3), 40 * index + 20, np.uint8)
    for t in range(FRAMES):
        frames[t, 80 : 80 + 60, 60 + 4 * t : 120 + 4 * t] = (200, 150, 120)
    samples = audio_samples(FRAMES)
    audio = (8_000 * np.sin(np.arange(samples) * 2 * np.pi * 220 / 16_000)).astype(np.int16)
    write_video(str(folder / "scratch.mp4"), frames, audio)
    rng = np.random.default_rng(index)
    landmarks = rng.uniform(60, 200, (FRAMES, 68, 2)).astype(np.float32)
    return {
        **row(f"clip{index}", source=index, frames=FRAMES),
        "source": f"videos/<b>{index}</b>.mp4",
        "num_frames": FRAMES,
        "source_size": np.array([640, 480], np.int32),
        "video": (folder / "scratch.mp4").read_bytes(),
        "audio": audio,
        "landmarks": landmarks,
        "landmark_backend": "painted",
        "scores": json.dumps({"blur": 1.0}),
    }


def make_dataset(folder, clips: int = 2) -> Dataset:
    """Writes clips, semantics (the last row failed), script, description, speech, image, rejects and quality."""
    records = [clip(index, folder) for index in range(clips)]
    (folder / "scratch.mp4").unlink()
    labels = np.zeros((FRAMES, CROP_SIZE, CROP_SIZE), np.uint8)
    labels[:, 80:140, 60:120] = 1
    activity = np.ones(speech_steps(FRAMES), np.uint8)
    columns = {"clips": records}
    fields = {
        "semantics": {"labels": labels, "backend": "painted"},
        "script": {
            "text": "hello <script>alert(1)</script>",
            "words": "[]",
            "language": "en",
            "confidence": 0.5,
            "backend": "p",
        },
        "description": {"description": '{"hair": "brown"}', "backend": "painted"},
        "speech": {"audio": records[0]["audio"], "gain_db": 0.0, "activity": activity, "backend": "painted"},
        "image": {"image": np.full((CROP_SIZE, CROP_SIZE, 3), 90, np.uint8), "frame": 0},
    }
    for column, values in fields.items():
        columns[column] = [row(f"clip{i}", column, source=i, frames=FRAMES, **values) for i in range(clips)]
    fault = "segment: ValueError: painted fault"
    columns["semantics"][-1] = row(f"clip{clips - 1}", "semantics", fault, source=clips - 1, frames=FRAMES)
    root = folder / "dataset"
    for name, rows in columns.items():
        write_column(root, name, rows)
    update_manifest(root, {}, sources=clips + 1)
    quality = [
        {
            "source": r["source"],
            "clip_id": r["clip_id"],
            "start_frame": 0,
            "end_frame": FRAMES,
            "blur": float(i),
            "kept": True,
        }
        for i, r in enumerate(records)
    ]
    reject = {"source": "videos/bad.mp4", "clip_id": None, "start_frame": None, "end_frame": None}
    rejects = [
        {**reject, "stage": "probe", "kind": "failed", "reason": "DecodeError", "detail": "moov <atom> not found"}
    ]
    for name, rows in (("quality", quality), ("rejects", rejects)):
        (root / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), root / name / f"{name}-00000-of-00001.parquet")
    return Dataset(root)
