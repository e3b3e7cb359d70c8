"""What Beam adds to curate, and what a second process gains.

python -m tests.benchmarks.beam_overhead VIDEOS [--repeat 1]

Five ways over the same videos, each in new processes and timed from start to end: a bare loop that calls the stage
function for each source and drops the clips; `archon curate --runner in-process`; `--runner multi-process` with one
worker, and with two; and one worker with its ffmpeg on one core. Beam's overhead is the second way's time over the
first's; what two processes gain is the third's over the fourth's. One process alone already keeps more than one core
busy, since ffmpeg decodes beside it: the last way tells what a worker does with a core of its own. The ways alternate,
and each one's shortest time counts. Bare loops that are not counted make the
compiled programs that all of them use. Processor seconds are the machine's, so nothing else should run on it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pipelines.local_runner import one_thread_a_worker

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

ON_ONE_CORE = "one process on one core"


def busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice


def timed(command: list[str], cores: int | None = None) -> tuple[float, float, str]:
    """Seconds, processor seconds of this machine meanwhile, and the last line that the command prints."""
    start, spent = time.monotonic(), busy()
    hold = None if cores is None else lambda: os.sched_setaffinity(0, range(cores))
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, preexec_fn=hold)
    seconds, spent = time.monotonic() - start, busy() - spent
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return seconds, spent, done.stdout.strip().splitlines()[-1]


def warm_up(videos: list[str]) -> None:
    """Compiles what all ways need: once as they are, once for worker processes, whose XLA has one thread."""
    command = [sys.executable, "-c", BARE, *videos]
    runs = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for env in (None, one_thread_a_worker())]
    if any([run.wait() for run in runs]):
        raise RuntimeError("the bare loop fails")


def curate_command(videos: list[str], root: str, *options: str) -> list[str]:
    return ["-m", "infra.cli", "curate", "--input", *videos, "--output", root, "--json", *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", help="as for --input of curate: folders, patterns, files")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    ways = {
        "in-process": ("--runner", "in-process"),
        "one process": ("--runner", "multi-process", "--workers", "1"),
        "two processes": ("--runner", "multi-process", "--workers", "2"),
        ON_ONE_CORE: ("--runner", "multi-process", "--workers", "1"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare loop", *ways)}
    with tempfile.TemporaryDirectory() as temporary:
        root = str(Path(temporary, "out"))
        warm_up(args.videos)
        for _ in range(args.repeat):
            seconds, spent, clips = timed(["-c", BARE, *args.videos])
            times["bare loop"].append((seconds, spent))
            for name, options in ways.items():
                seconds, spent, last = timed(
                    curate_command(args.videos, root, *options), 1 if name == ON_ONE_CORE else None
                )
                times[name].append((seconds, spent))
                summary = json.loads(last)
                if summary["clips"] != int(clips):
                    raise RuntimeError(f"{name}: {summary['clips']} clips, the bare loop made {clips}")
                shutil.rmtree(root)
                print(f"{name}: {seconds:.1f} s, {spent:.1f} processor seconds", flush=True)
    best = {name: min(pairs) for name, pairs in times.items()}
    for name, (seconds, spent) in best.items():
        print(f"{name}: {seconds:.1f} s, {spent:.1f} processor seconds, {spent / seconds:.2f} cores")
    bare, inside, one, two, on_one_core = (seconds for seconds, _ in best.values())
    video = summary["video_seconds"]
    print(f"{video:.1f} s of video. Beam's overhead: {100 * (inside / bare - 1):.1f} % (at most 10)")
    print(
        f"two processes: {one / two:.2f}x one (at least 1.7); {on_one_core / two:.2f}x one that has one core; "
        f"{inside / two:.2f}x in-process"
    )
    print(json.dumps({"overhead": round(inside / bare - 1, 3), "speedup": round(one / two, 3)}))


if __name__ == "__main__":
    main()
