"""What cutting the clip's square costs beside decoding alone, and how fast both are on one core.

python -m tests.benchmarks.decode [--seconds 20] [--repeats 6]

Makes 1080p video of about 5 Mb/s and 720p of about 2.5 Mb/s. Each is decoded by one ffmpeg thread to nothing, and to
the 256x256 pictures of a square that `video.write_crop` gives its encoder. The least processor time of each is printed,
children and this process together, pinned to one core.
"""

import argparse
import os
import resource
import tempfile
from pathlib import Path

from pipelines.stages import processes, video
from tests.pipelines.media import ffmpeg

SIZES = {"1080p": (1920, 1080, "5M", 5.0), "720p": (1280, 720, "2500k", 11.0)}


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(function, *arguments) -> float:
    start = cpu_seconds()
    function(*arguments)
    return cpu_seconds() - start


def make(path: Path, width: int, height: int, rate: str, seconds: float) -> None:
    picture = f"testsrc2=size={width}x{height}:rate=30:duration={seconds},noise=alls=8:allf=t"
    options = ("-preset", "medium", "-b:v", rate, "-maxrate", rate, "-bufsize", rate, "-pix_fmt", "yuv420p")
    colours = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", *options, *colours, path)


def run(command: list[str], info: video.VideoInfo) -> None:
    for _ in processes.read_pieces(command, 1 << 16, 600, info.limits):
        pass


def bare_decode(info: video.VideoInfo) -> None:
    command = [
        video.ffmpeg_executable(),
        "-v",
        "error",
        "-nostdin",
        "-threads",
        "1",
        "-i",
        info.path,
        "-f",
        "null",
        "-",
    ]
    run(command, info)


def decode_and_crop(info: video.VideoInfo, frames: int, box: tuple[int, int, int]) -> None:
    """What `video.write_crop` does up to its encoder."""
    pictures = video._cropped(info, 0, frames, box).filter("format", "yuv420p")
    run(video._command(pictures.output("pipe:", format="null"), info), info)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height, rate, target) in SIZES.items():
            path = Path(folder, f"{name}.mp4")
            make(path, width, height, rate, arguments.seconds)
            info = video.probe(str(path))
            side = height * 5 // 9 // 2 * 2
            box = ((width - side) // 4 * 2, (height - side) // 4 * 2, side)
            frames = round(arguments.seconds * 30)
            bare, cropped = [], []
            for _ in range(arguments.repeats):
                bare.append(timed(bare_decode, info))
                cropped.append(timed(decode_and_crop, info, frames, box))
            least, crop = min(bare), min(cropped)
            print(
                f"{name} {info.size * 8 / info.seconds / 1e6:.1f} Mb/s, square of {side}: "
                f"bare decode {info.seconds / least:.2f}x real time, "
                f"decode and crop {info.seconds / crop:.2f}x (target {target:g}x), "
                f"{100 * (crop / least - 1):.1f} % more than bare (target 10 %)",
                flush=True,
            )


if __name__ == "__main__":
    main()
