"""Small videos for tests of what reads videos."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg

PICTURE = "testsrc2=size=320x240:rate=30:duration=2"
TONE = "sine=frequency=330:sample_rate=44100:duration=2"


def ffmpeg(*arguments: str) -> None:
    """Runs ffmpeg; raises if it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def make_video(path: Path, picture: str = PICTURE, sound: str | None = TONE, *options: str) -> Path:
    """Renders a lavfi picture source and a lavfi sound source to a file."""
    inputs = ["-f", "lavfi", "-i", picture]
    if sound:
        inputs += ["-f", "lavfi", "-i", sound]
    ffmpeg(*inputs, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *options, path)
    return path


@functools.lru_cache(maxsize=1)
def talking_head() -> Path:
    """A rendered head that speaks for about four seconds, 256x256 (made once a process)."""
    from pipelines.synthesize import SynthesizeConfig, synthesize

    folder = tempfile.mkdtemp(prefix="archon-head-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = synthesize(SynthesizeConfig(clips=1, output=folder, size=256, workers=1, quiet=True))
    return Path(made["videos"][0])
