"""What Beam adds to curate, and what a second process gains.

python -m tests.benchmarks.beam_overhead VIDEOS [--repeat 1]

Three ways over the same videos, each in new processes and timed from start to end: a bare loop that calls the stage
function for each source and drops the clips; `archon curate --runner in-process`; `archon curate --runner
multi-process --workers 2`. The first ratio is the second way's time over the first's, the other the second's over the
third's. The three alternate, and each one's shortest time counts. All of them use the compiled programs that an earlier
run kept (the first of several repeats makes them).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys
from infra.cli import keep_compiled_programs
keep_compiled_programs()
from pipelines.sources import describe_sources, find_sources
from pipelines.stages.curation import Settings, curate_source
clips = []
for source in describe_sources(find_sources(sys.argv[1:])):
    curate_source(source.path, Settings(), lambda record: clips.append(record["clip_id"]), source.duplicate_of)
print(len(clips))
"""


def timed(command: list[str]) -> tuple[float, str]:
    start = time.monotonic()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return seconds, done.stdout.strip().splitlines()[-1]


def curate_command(videos: list[str], root: str, *options: str) -> list[str]:
    return ["-m", "infra.cli", "curate", "--input", *videos, "--output", root, "--json", *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", help="as for --input of curate: folders, patterns, files")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    times: dict[str, list[float]] = {"bare": [], "one": [], "two": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = str(Path(temporary, "out"))
        for _ in range(args.repeat):
            seconds, clips = timed(["-c", BARE, *args.videos])
            times["bare"].append(seconds)
            ways = {"one": ("--runner", "in-process"), "two": ("--runner", "multi-process", "--workers", "2")}
            for name, options in ways.items():
                seconds, last = timed(curate_command(args.videos, root, *options))
                times[name].append(seconds)
                summary = json.loads(last)
                if summary["clips"] != int(clips):
                    raise RuntimeError(f"{name}: {summary['clips']} clips, the bare loop made {clips}")
                shutil.rmtree(root)
    bare, one, two = (min(values) for values in times.values())
    video = summary["video_seconds"]
    print(f"bare loop {bare:.1f} s, in-process {one:.1f} s, two processes {two:.1f} s for {video:.1f} s of video")
    print(f"Beam's overhead: {100 * (one / bare - 1):.1f} % (at most 10)")
    print(f"two processes: {one / two:.2f}x one (at least 1.7)")
    figures = {"bare_s": bare, "one_s": one, "two_s": two, "overhead": one / bare - 1, "speedup": one / two}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
