"""Frames a second of the segmenter, part by part: python -m tests.benchmarks.segmenter [DIRECTORY]

Without a trained segmenter's directory, the embedded one's shape with random weights: speed does not depend on them.
"""

import functools
import os
import sys
import tempfile
import time

import jax
import numpy as np

from models.layers.module import initialise
from models.segmenter import WINDOWS, CompactConfig, SegmenterModel, build, save_segmenter
from pipelines.stages.segment_network import NetworkConfig, segment_clip
from tests.corpus_clip import FACE

FRAMES = 96


def seconds(run, times: int = 3) -> float:
    run()
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begin) / times


def main(directory: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if directory is None:
            directory, config = folder, CompactConfig()
            save_segmenter(folder, config, initialise(functools.partial(build, config), jax.random.key(0)))
        model = SegmenterModel(directory)
    rng = np.random.default_rng(0)
    batch = NetworkConfig().batch
    pictures = rng.integers(0, 256, (batch, 256, 256, 3), np.uint8)
    windows = rng.integers(0, 256, (batch, len(WINDOWS), 64, 64, 3), np.uint8)
    frames = np.repeat(pictures[:1], FRAMES, 0)
    landmarks = np.repeat(FACE[None], FRAMES, 0).astype(np.float32)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} core(s), batches of {batch}")
    for name, count, run in (
        ("whole crop", batch, lambda: model.map(pictures)),
        ("windows", batch, lambda: model.windows(windows)),
        ("a clip, smoothed", FRAMES, lambda: segment_clip(frames, landmarks, model)),
    ):
        took = seconds(run) / count
        print(f"{name:<18} {1e3 * took:7.2f} ms a frame {1 / took:8.1f} frames/s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
