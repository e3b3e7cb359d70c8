"""How long a restart of `archon curate` takes before it works on the first source that is not done, by how many are.

python -m tests.benchmarks.resume [--sources 100010]

The sources are synthetic: files of a few bytes, and the state that a killed run of that many sources leaves (markers,
ledger, table of sources). Two restarts are measured, each in a new process: with 10 sources done, and with all but 10.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START = """
import sys, time
begin = time.monotonic()
from pipelines import curate as job
def first(source, *rest):
    print("FIRST", time.monotonic() - begin, source, flush=True)
    raise KeyboardInterrupt
job.curate_source = first
from pipelines.beam import RunnerOptions
config = job.CurateConfig((sys.argv[1],), sys.argv[2], sources_per_shard=int(sys.argv[3]))
job.curate(config, RunnerOptions("in-process", 1))
"""


def make_state(listing: str, root: str, per_shard: int, shards_done: int) -> None:
    """Leaves what a run that was killed after that many shards leaves."""
    from pipelines.beam import RunnerOptions, marker_path
    from pipelines.curate import JOB, STEP, CurateConfig, prepare, shard_tasks
    from pipelines.ledger import Ledger

    config = CurateConfig((listing,), root, sources_per_shard=per_shard)
    step, sources, _ = prepare(config, RunnerOptions("in-process", 1))
    tasks = shard_tasks(sources, per_shard)
    for task in tasks[:shards_done]:
        path = Path(marker_path(root, JOB, STEP, task))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fingerprint": step.fingerprint, "files": [], "summary": {}, "seconds": 1.0}))
    ledger = Ledger.read(root, JOB)
    # The ledger lags a little behind the markers, as after a kill.
    ledger.set(STEP, step.fingerprint, len(tasks), set(range(max(0, shards_done - 2))))
    ledger.write()


def seconds_to_first(listing: str, root: str, per_shard: int) -> tuple[float, float]:
    """Seconds until the first source that is not done would start: from the process's start, and without imports."""
    start = time.monotonic()
    command = [sys.executable, "-c", START, listing, root, str(per_shard)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if line.startswith("FIRST"):
                whole = time.monotonic() - start
                process.kill()
                return whole, float(line.split()[1])
    raise RuntimeError("the restart found nothing to do")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=100_010)
    parser.add_argument("--sources-per-shard", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "in")
        folder.mkdir()
        paths = [str(folder / f"{index:07d}.mp4") for index in range(args.sources)]
        for index, path in enumerate(paths):
            Path(path).write_bytes(b"x" * (1 + index % 5000))
        listing = os.path.join(temporary, "list.txt")
        Path(listing).write_text("\n".join(paths) + "\n")
        seconds = {}
        for done in (10, args.sources - 10):
            root = os.path.join(temporary, f"out{done}")
            make_state(listing, root, args.sources_per_shard, done // args.sources_per_shard)
            runs = [seconds_to_first(listing, root, args.sources_per_shard) for _ in range(3)]
            seconds[done] = min(whole for whole, _ in runs)
            print(f"{done} of {args.sources} sources done: {seconds[done]:.2f} s to the first other", flush=True)
        few, many = seconds.values()
        print(json.dumps({"few_done_s": round(few, 3), "many_done_s": round(many, 3), "ratio": round(many / few, 3)}))


if __name__ == "__main__":
    main()
