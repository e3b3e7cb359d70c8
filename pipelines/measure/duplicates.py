"""Near duplicates: how many planted copies of real moments are found, and how many others are taken for copies.

Each video is cut into pieces; each piece is encoded, scaled, cropped, cut and filtered as uploads are; all of them are
fingerprinted and go through `archon duplicates` as the clips of one dataset. Pieces of one video are of the same person
in the same room, which is what must not be mistaken.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.signals import VIDEO_FPS
from pipelines.beam import RunnerOptions
from pipelines.duplicates import DuplicatesConfig, find_duplicates
from pipelines.manifest import ShardInfo
from pipelines.stages import video
from pipelines.stages.fingerprints import fingerprints, from_hex, read_picture_hash
from pipelines.stages.matching import MIN_WORDS

SOUND = ("-c:a", "aac", "-b:a", "48k")
# Name -> ffmpeg's options: what happens to a picture of 256x256 and its sound.
COPIES: dict[str, tuple[str, ...]] = {
    "encoded again": ("-crf", "30", *SOUND),
    "scaled": ("-vf", "scale=144:144", "-c:a", "libmp3lame", "-b:a", "64k"),
    "cropped, brighter": ("-vf", "crop=iw*0.97:ih*0.97:iw*0.03:0,eq=brightness=0.06", *SOUND),
    "0.5 s later": ("-ss", "0.5", *SOUND),
    "25 fps, quiet": ("-r", "25", "-crf", "30", "-af", "volume=-9dB,aresample=22050", *SOUND),
    "other sound": ("-crf", "26", "-af", "areverse", *SOUND),
    "other picture": ("-vf", "reverse,hflip", *SOUND),
}
TARGETS = {
    **{f"recall: {name}": (">=", 0.95) for name in COPIES},
    "false pairs": ("<=", 0),
}


def pieces(paths: Sequence[Path], seconds: float, folder: Path) -> list[Path]:
    """Cuts the middle square of each video, 256x256 with sound, into pieces of so many seconds."""
    out = []
    for path in paths:
        info = video.probe(str(path))
        if not info.has_audio:
            continue
        for number in range(min(3, int(info.seconds / seconds))):
            target = folder / f"{path.stem}-{number}.mp4"
            square = "crop='min(iw,ih)':'min(iw,ih)',scale=256:256,fps=30"
            _ffmpeg("-ss", f"{number * seconds:g}", "-t", f"{seconds:g}", "-i", path, "-vf", square, target)
            out.append(target)
    if len(out) < 2:
        raise InputError(f"expected videos with sound of at least {seconds:g} s, found {len(out)} pieces")
    return out


def _ffmpeg(*arguments) -> None:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-protocol_whitelist", "file,pipe"]
    *options, target = arguments
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
    subprocess.run([*map(str, (*command, *options, *coded, target))], check=True, capture_output=True)


def read_piece(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns a small video's uint8 (T, 256, 256, 3) frames and int16 16 kHz sound."""
    info = video.probe(str(path))
    return np.stack(list(video.decode_frames(info, 256, 256))), video.decode_audio(info)


def _tells(words: np.ndarray) -> bool:
    return np.count_nonzero(words) >= MIN_WORDS


def write_quality(root: Path, rows: Sequence[dict]) -> None:
    """Writes a dataset that has nothing but one quality table of kept clips."""
    import pyarrow as pa
    import pyarrow.parquet

    from pipelines.dataset import update_manifest

    (root / "quality").mkdir(parents=True)
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), root / "quality" / "quality-00000-of-00001.parquet")
    info = ShardInfo("clips/clips-00000-of-00001.array_record", len(rows), 0, "0" * 64)
    update_manifest(root, {"clips": ([info], {"job": "measure"})})


def measure(args: argparse.Namespace) -> dict[str, float]:
    paths = sorted(path for path in Path(args.videos).glob("*.mp4"))
    if not paths:
        raise InputError(f"--videos {args.videos}: no .mp4 files there")
    folder = Path(tempfile.mkdtemp(prefix="archon-duplicates-"))
    try:
        return planted(paths, args.seconds, folder)
    finally:
        shutil.rmtree(folder)


def planted(paths: Sequence[Path], seconds: float, folder: Path) -> dict[str, float]:
    """Makes the copies, finds them, and returns the figures.

    A copy with another sound can only be told by its picture, and a picture that stands still has nothing to tell (nor
    has silence, the other way round): of those pieces none is expected.
    """
    import pyarrow.parquet

    rows, origin, spent = [], {}, 0.0
    told = {"other sound": 0, "other picture": 0}
    for number, piece in enumerate(pieces(paths, seconds, folder)):
        made = {"": piece}
        for name, options in COPIES.items():
            made[name] = folder / f"{number}-{len(made)}.mp4"
            _ffmpeg("-i", piece, *options, made[name])
        for name, path in made.items():
            frames, sound = read_piece(path)
            begin = time.process_time()
            marks, count = fingerprints(frames, sound), len(frames)
            spent += time.process_time() - begin
            if not name:
                told["other sound"] += _tells(read_picture_hash(marks["picture_hash"])[1])
                told["other picture"] += _tells(from_hex(marks["sound_hash"]))
            clip = f"{number:06d}-{len(rows):06d}"
            origin[clip] = (number, name)
            row = {"clip_id": clip, "source": os.fspath(path), "start_frame": 0, "end_frame": count}
            # The piece itself is the longest, so it is what each copy is held against.
            length = count / VIDEO_FPS if name else seconds + 1.0
            rows.append({**row, "seconds": length, "face_size": 100.0, **marks, "kept": True})
    root = folder / "dataset"
    write_quality(root, rows)
    summary = find_duplicates(DuplicatesConfig(os.fspath(root)), RunnerOptions("in-process", 1))
    found = {name: 0 for name in COPIES}
    false = 0
    for row in pyarrow.parquet.read_table(next((root / "duplicates").glob("*.parquet"))).to_pylist():
        if row["duplicate_of"] is None:
            continue
        (number, name), (other, _) = origin[row["clip_id"]], origin[row["duplicate_of"]]
        if number == other:
            found[name] += 1
        else:
            false += 1
    total = len(rows) // (len(COPIES) + 1)
    true = sum(found.values())
    return {
        **{f"recall: {name}": count / max(told.get(name, total), 1) for name, count in found.items()},
        "false pairs": float(false),
        "precision": true / max(true + false, 1),
        "pieces": float(total),
        "clips": float(len(rows)),
        "comparisons per clip": summary["comparisons"] / len(rows),
        "processor ms per second of clip": 1000 * spent / sum(row["end_frame"] / VIDEO_FPS for row in rows),
    }


def register(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "examples:\n  archon measure duplicates --videos clips"
    parser.add_argument("--videos", required=True, metavar="DIR", help="a folder of .mp4 files with sound")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="length of a piece (default: 4)")
