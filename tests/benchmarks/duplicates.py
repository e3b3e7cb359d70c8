"""Near duplicates at scale, on made-up fingerprints with planted copies: python -m tests.benchmarks.duplicates

Prints recall and false pairs, comparisons a clip, seconds of each run and the most memory that all its processes held.
Ten-second clips; one in a hundred is a copy of another, a tenth of its bits wrong and half a second later.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from infra.memory import PeakMemory
from pipelines.beam import RunnerOptions
from pipelines.dataset import update_manifest
from pipelines.duplicates import DuplicatesConfig, find_duplicates
from pipelines.manifest import ShardInfo
from pipelines.stages.fingerprints import to_hex

WORDS = 190
CLIPS_A_SHARD = 2_000


def smooth_words(random: np.random.Generator, count: int) -> np.ndarray:
    """Words that change as slowly as real ones: three quarters of the bits stay from one step to the next."""
    bits = random.random((count, WORDS, 32)) < 0.5
    keep = random.random((count, WORDS, 32)) < 0.5
    for step in range(1, WORDS):
        bits[:, step] = np.where(keep[:, step], bits[:, step - 1], bits[:, step])
    return (bits @ (1 << np.arange(32, dtype=np.uint64))).astype(np.uint32)


def copied(random: np.random.Generator, words: np.ndarray) -> np.ndarray:
    wrong = random.random((len(words) - 10, 32)) < 0.1
    return words[10:] ^ (wrong @ (1 << np.arange(32, dtype=np.uint64))).astype(np.uint32)


def make_dataset(root: Path, clips: int) -> None:
    (root / "quality").mkdir(parents=True)
    shards = -(-clips // CLIPS_A_SHARD)
    infos = []
    for shard in range(shards):
        random = np.random.default_rng(shard)
        motion, sound = smooth_words(random, CLIPS_A_SHARD), smooth_words(random, CLIPS_A_SHARD)
        rows = []
        for k in range(min(CLIPS_A_SHARD, clips - shard * CLIPS_A_SHARD)):
            picture, heard, name = motion[k], sound[k], f"{shard:06d}-{k:06d}"
            if k % 100 == 99:  # a copy of the clip before
                picture, heard = copied(random, motion[k - 1]), copied(random, sound[k - 1])
            rows.append(
                {
                    "clip_id": name,
                    "source": f"{name}.mp4",
                    "start_frame": 0,
                    "end_frame": 300,
                    "seconds": 10.0 - (k % 100 == 99),
                    "face_size": 100.0,
                    "picture_hash": "0" * 16 + to_hex(picture),
                    "sound_hash": to_hex(heard),
                    "kept": True,
                }
            )
        name = f"quality/quality-{shard:05d}-of-{shards:05d}.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows), root / name)
        infos.append(ShardInfo(f"clips/clips-{shard:05d}-of-{shards:05d}.array_record", len(rows), 0, f"{shard:064x}"))
    update_manifest(root, {"clips": (infos, {"job": "benchmark"})})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), args.clips)
        with PeakMemory() as memory:
            runner = RunnerOptions("multi-process" if args.workers > 1 else "in-process", args.workers)
            summary = find_duplicates(DuplicatesConfig(folder), runner)
        tables = [pa.parquet.read_table(path) for path in sorted(Path(folder).glob("duplicates/*.parquet"))]
        found = {row["clip_id"]: row["duplicate_of"] for t in tables for row in t.to_pylist() if row["duplicate_of"]}
    right = sum(int(name[7:]) % 100 == 99 and int(name[7:]) - 1 == int(of[7:]) for name, of in found.items())
    print(f"clips {args.clips}, planted {args.clips // 100}, found {right}, false {len(found) - right}")
    print(
        f"keys a clip {summary['keys'] / args.clips:.0f}, comparisons a clip {summary['comparisons'] / args.clips:.1f}"
    )
    print(
        f"seconds {summary['seconds']}, clips a second {args.clips / summary['seconds']:.0f}, peak {memory.gib:.2f} GiB"
    )


if __name__ == "__main__":
    main()
