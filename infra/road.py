"""The road as one picture: what a video becomes on its way through the stages, from a demo's own work folder.

python -m infra.road WORKDIR [PICTURE.png]
"""

import json
import sys
import textwrap
from pathlib import Path

import numpy as np

from models.labels import labels_to_colors
from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines import overlay, storage
from pipelines.dataset import ANNOTATIONS, Dataset
from pipelines.face_model import FaceModelFiles
from pipelines.inspect import fitted_mesh
from pipelines.stages.frames import decode_video

PANELS = ("raw video", "clip", "3DMM fit", "21-class parsing", "speech, script", "generated")


def draw_road(workdir: str, output: str | None = None) -> str:
    """Draws the picture from a finished demo; returns its path (WORKDIR/road.png unless ``output`` says otherwise)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    dataset = Dataset(f"{workdir}/dataset")
    held = set(dataset.split("heldout"))
    good = dataset.good_rows("clips", *ANNOTATIONS)
    row = next((row for row in good if row in held), good[0])
    records = {name: dataset.column(name)[row] for name in ("clips", *ANNOTATIONS)}
    clip, middle = records["clips"], records["clips"]["num_frames"] // 2
    frames = decode_video(clip["video"], clip["clip_id"])
    outputs = json.loads(Path(workdir, "summary.json").read_text())["stages"]["generate"]["summary"]["outputs"]
    generated = decode_video(storage.read_bytes(outputs["video"]), outputs["video"])

    figure = Figure(figsize=(15.6, 3.5), dpi=100)
    axes = figure.subplots(1, len(PANELS))
    raw = source_frame(clip, middle)
    x, y, side = clip["box"]
    axes[0].imshow(raw)
    axes[0].add_patch(Rectangle((x, y), side, side, fill=False, color="#00d27a", linewidth=1.5))
    axes[1].imshow(overlay.draw_landmarks(frames[middle], clip["landmarks"][middle]))
    axes[2].imshow(fitted_mesh(frames, records, FaceModelFiles().load_for(records["shape"]))[middle])
    axes[3].imshow(labels_to_colors(records["semantics"]["labels"][middle]))
    draw_speech(axes[4], records)
    axes[5].imshow(generated[len(generated) // 2])
    for index, (panel, name) in enumerate(zip(axes, PANELS, strict=True)):
        panel.set_title(f"{index + 1}  {name}", fontsize=11, loc="left")
        if index != 4:
            panel.set_axis_off()
    figure.tight_layout(w_pad=1.2)
    path = output or f"{workdir}/road.png"
    with storage.atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def source_frame(clip: dict, frame: int) -> np.ndarray:
    """The frame of the source video that a clip's frame was cut from, or the crop if the source is gone."""
    import ffmpeg
    import imageio_ffmpeg

    if not storage.exists(clip["source"]):
        return decode_video(clip["video"], clip["clip_id"])[frame]
    width, height = (int(value) for value in clip["source_size"])
    seconds = (clip["start_frame"] + frame) / VIDEO_FPS
    with storage.local_copy(clip["source"]) as local:
        raw, _ = (
            ffmpeg.input(local, ss=seconds, protocol_whitelist="file")
            .filter("scale", width, height)
            .output("pipe:", vframes=1, format="rawvideo", pix_fmt="rgb24", loglevel="error")
            .run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, quiet=True)
        )
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def draw_speech(axes, records: dict) -> None:
    """The waveform, with what was heard and what was seen written below it."""
    audio = records["speech"]["audio"].astype(np.float32) / 32_768
    axes.plot(np.arange(len(audio)) / AUDIO_RATE, audio, linewidth=0.3, color="#4c78c8")
    axes.set_ylim(-2.6, 1.0)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    heard = textwrap.fill(records["script"]["text"] or "(nothing recognised)", 34)[:120]
    described = json.loads(records["description"]["description"])
    known = (
        f"{field} {name}: {value}"
        for field, attributes in described.items()
        for name, value in (attributes.items() if isinstance(attributes, dict) else (("", attributes),))
        if value != "unknown"
    )
    seen = textwrap.fill(", ".join(known), 42)
    axes.text(0.0, -0.75, heard, fontsize=8, va="top", style="italic")
    axes.text(0.0, -1.5, "\n".join(seen.split("\n")[:6]), fontsize=7, va="top", color="#5c6675")


if __name__ == "__main__":
    print(draw_road(*sys.argv[1:3]))
