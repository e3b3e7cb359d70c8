"""Clips as things to look at: overlays, parsing, the reference image, texts and sound, one folder a clip.

archon inspect --dataset DATASET --output FOLDER [--clip ID ...]
"""

import argparse
import io
import json
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError
from models.labels import labels_to_colors
from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines import overlay, storage
from pipelines.dataset import Dataset, Record
from pipelines.face_model import FaceModelFiles, add_face_model_arguments, face_model_files

if TYPE_CHECKING:
    from models.face.model import FaceModel

TEXT_FIELDS = {"description": ("description", "json"), "script": ("text", "txt")}


@dataclass(frozen=True)
class InspectConfig:
    """Which clips to lay out: ``clips`` names them by id; none names the first ``limit``. ``face_model``: the one that
    they were fitted with.
    """

    dataset: str
    output: str
    clips: tuple[str, ...] = ()
    limit: int = 4
    face_model: FaceModelFiles = FaceModelFiles()


def inspect(config: InspectConfig) -> dict:
    """Writes one folder a clip: overlay.mp4, semantics.mp4, crop.mp4, sheet.png, reference.png, texts, sound."""
    dataset = Dataset(config.dataset)
    columns = {name: dataset.column(name) for name in dataset.columns()}
    ids = {record["clip_id"]: row for row, record in enumerate(columns["clips"])}
    for clip in config.clips:
        if clip not in ids:
            raise InputError(
                f"--clip {clip}: not in {config.dataset}; it has {len(ids)} clips, for example {next(iter(ids), '-')}"
            )
    chosen = list(config.clips) or list(ids)[: config.limit]
    folders = []
    for clip in chosen:
        row = ids[clip]
        records = {name: column[row] for name, column in columns.items()}
        folder = storage.join(config.output, clip)
        good = {name: record for name, record in records.items() if not record["error"]}
        inspect_clip(good, folder, config.face_model)
        print(f"inspect: {folder}", flush=True)
        folders.append(folder)
    return {"clips": len(folders), "folders": folders}


def inspect_clip(records: dict[str, Record], folder: str, face_model: FaceModelFiles) -> None:
    """Writes everything that is known of one clip. ``records`` maps column to this clip's record.

    Raises:
        InputError: the clip was fitted with another face model.
    """
    from pipelines.stages.frames import decode_video

    clip = records["clips"]
    frames = decode_video(clip["video"], clip["clip_id"])
    drawn = np.stack([overlay.draw_landmarks(f, p) for f, p in zip(frames, clip["landmarks"], strict=True)])
    strips, audio = [frames, drawn], clip["audio"]
    if {"shape", "expression", "pose"} <= set(records):
        model = face_model.load_for(records["shape"])
        strips[1:] = [with_head_box(drawn, records, model), fitted_mesh(frames, records, model)]
    if "semantics" in records:
        labels = records["semantics"]["labels"]
        strips += [overlay.blend_labels(frames, labels), labels_to_colors(labels)]
    storage.write_bytes(storage.join(folder, "crop.mp4"), clip["video"])
    write_video(storage.join(folder, "overlay.mp4"), np.concatenate(strips, axis=2), audio)
    moments = np.linspace(0, len(frames) - 1, 6).round().astype(int)
    sheet = overlay.grid([strip[t] for strip in strips for t in moments], columns=len(moments))
    storage.write_bytes(storage.join(folder, "sheet.png"), overlay.encode_image(sheet, "PNG"))
    if "image" in records:
        storage.write_bytes(
            storage.join(folder, "reference.png"), overlay.encode_image(records["image"]["image"], "PNG")
        )
    for column, (field, suffix) in TEXT_FIELDS.items():
        if column in records:
            storage.write_bytes(storage.join(folder, f"{column}.{suffix}"), records[column][field].encode())
    if "speech" in records:
        storage.write_bytes(storage.join(folder, "speech.wav"), wav_bytes(records["speech"]["audio"]))
    facts = {
        name: {field: value for field, value in record.items() if isinstance(value, str | int | float)}
        for name, record in records.items()
    }
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    storage.write_bytes(storage.join(folder, "facts.json"), text.encode())


def fitted_mesh(frames: np.ndarray, records: dict[str, Record], model: "FaceModel") -> np.ndarray:
    """Draws the fitted head over the clip, half transparent: uint8 (T, 256, 256, 3)."""
    from models.face.render import render_preview

    drawn = render_preview(
        model,
        records["shape"]["shape"],
        records["expression"]["expression"],
        records["pose"]["pose"],
        records["shape"]["camera"],
        over=frames,
    )
    return (0.35 * frames + 0.65 * drawn).astype(np.uint8)


def with_head_box(frames: np.ndarray, records: dict[str, Record], model: "FaceModel") -> np.ndarray:
    """Draws each frame's box of the fitted head itself; the picture's edge is the clip's box."""
    from pipelines.stages.crop import TIGHT, fitted_boxes

    camera, pose = records["shape"]["camera"], records["pose"]["pose"]
    boxes = fitted_boxes(model, records["shape"]["shape"], pose, camera, TIGHT)
    return np.stack([overlay.draw_box(frame, box) for frame, box in zip(frames, boxes, strict=True)])


def wav_bytes(audio: np.ndarray) -> bytes:
    """int16 (N,) at 16 kHz -> the bytes of a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_RATE)
        file.writeframes(np.ascontiguousarray(audio, dtype="<i2").tobytes())
    return buffer.getvalue()


def write_video(path: str, frames: np.ndarray, audio: np.ndarray | None = None) -> None:
    """Writes a playable mp4: uint8 (T, H, W, 3) at 30 fps, int16 16 kHz sound. The same input gives the same bytes."""
    import tempfile
    from pathlib import Path

    import ffmpeg
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    picture = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=VIDEO_FPS)
    options = {
        "format": "mp4",
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",
        "crf": 18,
        "threads": 1,
        "fflags": "+bitexact",
        "flags": "+bitexact",
        "map_metadata": -1,
        "movflags": "+faststart",
        "loglevel": "error",
    }
    with tempfile.TemporaryDirectory() as scratch, storage.atomic_file(path) as temporary:
        streams = [picture]
        if audio is not None:
            sound = Path(scratch, "sound.wav")
            sound.write_bytes(wav_bytes(audio))
            streams.append(ffmpeg.input(str(sound)))
            options |= {"acodec": "aac", "audio_bitrate": "96k"}
        command = ffmpeg.output(*streams, temporary, **options).overwrite_output()
        command.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=np.ascontiguousarray(frames).tobytes(), quiet=True)


# --- The command ---


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Lays out clips with everything that is known of them, to look at and listen to."
    parser.epilog = "example:\n  archon inspect --dataset demo/dataset --output demo/look --limit 2"
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", help="folder to write to (default: DATASET/inspect)")
    parser.add_argument("--clip", action="append", default=[], metavar="ID", help="a clip's id; may be repeated")
    parser.add_argument("--limit", type=int, default=4, help="how many clips if none is named (default: %(default)s)")
    add_face_model_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    output = args.output or storage.join(args.dataset, "inspect")
    return inspect(InspectConfig(args.dataset, output, tuple(args.clip), args.limit, face_model_files(args)))
