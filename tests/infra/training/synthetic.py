"""A small dataset of structured signals for tests: moving faces of ellipses, chirps with formants, smooth curves."""

import json
from pathlib import Path

import numpy as np

from models.labels import COLORS, LABEL_INDEX
from models.signals import audio_samples, speech_steps
from pipelines.dataset import update_manifest, write_shard
from pipelines.records import encode_record

SHAPES, EXPRESSIONS = 12, 16


def _ellipse(y, x, cy, cx, ry, rx):
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1


def labels_video(rng: np.random.Generator, frames: int, mouth: np.ndarray, size: int = 256) -> np.ndarray:
    """A face of ellipses that sways; the lips open by ``mouth`` (T,) in 0..1."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    cy, cx, w = 120 + 10 * rng.normal(), 128 + 8 * rng.normal(), 48 + 6 * rng.normal()
    phase, sway = rng.uniform(0, 6), 6 * rng.random()
    out = np.zeros((frames, size, size), np.uint8)
    for t in range(frames):
        dx, dy = sway * np.sin(t / 9 + phase), 0.5 * sway * np.cos(t / 7 + phase)
        a, b = cy + dy, cx + dx
        layers = [
            ("clothes", a + 130, b, 60, 110),
            ("neck", a + 70, b, 45, w * 0.5),
            ("hair", a - 18, b, w * 1.45, w * 1.2),
            ("face", a + 5, b, w * 1.3, w),
            ("brows", a - 22, b - w * 0.42, 4, w * 0.22),
            ("brows", a - 22, b + w * 0.42, 4, w * 0.22),
            ("sclera", a - 10, b - w * 0.42, 6, w * 0.2),
            ("sclera", a - 10, b + w * 0.42, 6, w * 0.2),
            ("iris", a - 10, b - w * 0.42, 5, 5),
            ("iris", a - 10, b + w * 0.42, 5, 5),
            ("nose", a + 12, b, 14, 7),
            ("lips", a + 38, b, 7 + 8 * mouth[t], w * 0.4),
            ("other-in-mouth", a + 38, b, 0.1 + 8 * mouth[t], w * 0.3),
        ]
        for name, *place in layers:
            out[t][_ellipse(y, x, *place)] = LABEL_INDEX[name]
    return out


def smooth(rng: np.random.Generator, frames: int, channels: int, scale: float) -> np.ndarray:
    """Sums of slow sines, float32 (T, D)."""
    t = np.arange(frames)[:, None, None] / 30
    rate = rng.uniform(0.2, 2.5, (1, channels, 3))
    waves = np.sin(2 * np.pi * (rate * t + rng.random((1, channels, 3)))) / 2
    return (scale * waves.mean(-1)).astype(np.float32)


def voice(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Harmonics of a gliding pitch under slow syllables: int16 (N,), and the loudness (T,) in 0..1."""
    n = audio_samples(frames)
    t = np.arange(n) / 16000
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    formant = 700 + 500 * np.sin(2 * np.pi * rng.uniform(0.8, 2) * t)
    sound = sum(
        np.sin(k * phase) * np.exp(-(((k * pitch - formant) / 600) ** 2)) + 0.2 * np.sin(k * phase) / k
        for k in range(1, 16)
    )
    loud = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6)) + 0.4, 0, 1)
    audio = 0.12 * sound * loud + 0.002 * rng.normal(size=n)
    mouth = loud[np.minimum((np.arange(frames) * 16000 / 30).astype(int), n - 1)]
    return (np.clip(audio, -1, 1) * 32767).astype(np.int16), mouth


def write_dataset(root: Path, clips: int = 6, frames: int = 61, shards: int = 2, broken: str = "") -> Path:
    """Writes all columns of ``clips`` clips; clip 1 has an error in the column ``broken``."""
    columns: dict[str, list[dict]] = {}
    for number in range(clips):
        rng = np.random.default_rng(number)
        audio, mouth = voice(rng, frames)
        labels = labels_video(rng, frames, mouth)
        tint = rng.uniform(0.5, 1.0, 3)
        picture = np.clip(COLORS[labels[0]] * tint * 0.8 + 6 * rng.normal(size=(256, 256, 3)) + 20, 0, 255)
        expression = np.abs(smooth(rng, frames, EXPRESSIONS, 0.6))
        expression[:, 0] = mouth
        pose = smooth(rng, frames, 6, 1.0) * np.array([0.2, 0.3, 0.1, 0.02, 0.02, 0.05], np.float32)
        fields = {
            "clips": {
                "source": f"video-{number}.mp4",
                "source_sha256": f"{(number * 7919 + 13) % 9973:064x}",
                "start_frame": 0,
                "end_frame": frames,
                "num_frames": frames,
                "audio": audio,
            },
            "shape": {"shape": rng.normal(size=SHAPES).astype(np.float32), "face_model": "test"},
            "expression": {"expression": expression.astype(np.float32)},
            "pose": {"pose": pose, "reprojection_error": 1.0},
            "semantics": {"labels": labels, "backend": "test"},
            "description": {"description": json.dumps({"hair": ["dark", "fair"][number % 2], "clip": number})},
            "script": {"text": f"The number of this clip is {number}, and it says so twice: {number}."},
            "speech": {"audio": audio, "activity": np.ones(speech_steps(frames), np.uint8), "backend": "test"},
            "image": {"image": picture.astype(np.uint8), "frame": 0},
        }
        for column, values in fields.items():
            record = {"clip_id": f"clip{number:02d}", "error": "", **values}
            if column == broken and number == 1:
                record = {"clip_id": record["clip_id"], "error": "stage: Type: message"}
            encode_record(record)
            columns.setdefault(column, []).append(record)
    written = {}
    for column, records in columns.items():
        parts = np.array_split(np.arange(clips), shards)
        written[column] = (
            [
                write_shard(root, f"{column}/{column}-{i:05d}-of-{shards:05d}.array_record", [records[j] for j in part])
                for i, part in enumerate(parts)
            ],
            {"backend": "test"},
        )
    update_manifest(root, written)
    return root
