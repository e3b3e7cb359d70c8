"""The most memory that curating one large source takes: python -m tests.benchmarks.curation_memory [--gigabytes 0.3]

Makes a video of that size: 1080p, lossless, a talking head on its left half that speaks again and again, sound as PCM.
Curates it in a process of its own and prints the largest resident memory of that process and its children together,
sampled ten times a second, and how long the source and its clips are. `--gigabytes 10` is the size that the target
(2 GiB) is meant for; it takes the disk three times that.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.pipelines.media import ffmpeg, talking_head

CODE = """
import sys
from pipelines.stages.curation import Settings, curate_source
from pipelines.stages.limits import Limits
seconds = []
settings = Settings(limits=Limits(max_minutes=600))
result = curate_source(sys.argv[1], settings, lambda record: seconds.append(record["num_frames"] / 30))
reasons = [row["reason"] for row in result.rejects]
print(f"{result.seconds:.0f} s of video, {result.clips} clips of {sum(seconds):.0f} s", *reasons[:1])
"""


def make(path: Path, gigabytes: float) -> None:
    """One round of the talking head, lossless, then as many copies of its packets as fill the size."""
    once = path.with_name("once.mkv")
    picture = "scale=720:720,pad=1920:1080:200:180,noise=alls=4:allf=t"
    ffmpeg("-i", talking_head(), "-vf", picture, "-c:v", "ffv1", "-c:a", "pcm_s16le", "-ar", "48000", once)
    rounds = max(1, round(gigabytes * 1e9 / once.stat().st_size))
    ffmpeg("-stream_loop", str(rounds - 1), "-i", once, "-c", "copy", path)
    once.unlink()


def resident(process: psutil.Process) -> int:
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.mkv")
        make(path, arguments.gigabytes)
        size = path.stat().st_size
        worker = subprocess.Popen([sys.executable, "-c", CODE, str(path)])
        process, most = psutil.Process(worker.pid), 0
        while worker.poll() is None:
            most = max(most, resident(process))
            time.sleep(0.1)
        if worker.returncode:
            raise SystemExit(f"curation ended with status {worker.returncode}")
        print(f"{size / 1e9:.2f} GB: at most {most / 2**30:.2f} GiB of memory, all processes (target 2 GiB)")


if __name__ == "__main__":
    main()
