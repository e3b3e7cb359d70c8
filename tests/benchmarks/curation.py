"""Processor seconds of curation by stage, in one process: python -m tests.benchmarks.curation VIDEOS...

Runs `curate_source` with the embedded backends over the videos and prints what each stage cost (this process and its
ffmpeg processes), how much faster than real time that is on one core, and how many hours of head-cropped video a
processor-hour gives. The first source pays for loading and compiling, as it does in a worker.
"""

import argparse
import functools
import os
import resource
import time
from collections import defaultdict

from pipelines import storage
from pipelines.stages import (
    compression_scores,
    crop,
    curation,
    faces,
    fingerprints,
    landmarks,
    picture_scores,
    shots,
    sound_scores,
    video,
    voice_activity,
)

STAGES = [
    (video, "probe", "probe"),
    (storage, "sha256_file", "hash the source"),
    (video, "decode_audio", "decode sound"),
    (voice_activity, "speech_probability", "voice activity"),
    (curation, "scan_faces", "first pass: decoding"),
    (shots.ShotDetector, "add", "first pass: cuts"),
    (faces, "detect_faces", "first pass: faces"),
    (faces, "find_any_face", "faces from any side"),
    (landmarks, "find_landmarks", "landmarks"),
    (crop, "head_boxes", "box of the clip"),
    (video, "write_crop", "crop and encode"),
    (video, "decode_clip", "read the clip back"),
    (picture_scores, "picture_scores", "scores of the picture"),
    (picture_scores, "text_share", "scores of the picture"),
    (compression_scores, "compression_scores", "scores of the compression"),
    (sound_scores, "sound_scores", "scores of the sound"),
    (sound_scores, "sync_scores", "scores of the sound"),
    (fingerprints, "fingerprints", "fingerprints"),
]


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(spent: dict[str, float]) -> None:
    """Wraps the stages: each adds the processor seconds to its own name that no stage inside it used."""
    inside: list[float] = []

    def wrapped(function, label):
        @functools.wraps(function)
        def call(*arguments, **options):
            start = cpu_seconds()
            inside.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                whole = cpu_seconds() - start
                spent[label] += whole - inside.pop()
                if inside:
                    inside[-1] += whole

        return call

    for owner, name, label in STAGES:
        setattr(owner, name, wrapped(getattr(owner, name), label))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+")
    arguments = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    measure(spent)
    seconds, kept, frames, start, wall = 0.0, 0, [], cpu_seconds(), time.perf_counter()
    for path in arguments.videos:
        before = cpu_seconds()
        result = curation.curate_source(path, curation.Settings(), lambda record: frames.append(record["num_frames"]))
        seconds, kept = seconds + result.seconds, kept + bool(result.clips)
        reasons = [row["reason"] for row in result.rejects if row["clip_id"] is None]
        print(
            f"{os.path.basename(path)}: {result.seconds:.1f} s in {cpu_seconds() - before:.1f} s, "
            f"{result.clips} clips {' '.join(reasons)}",
            flush=True,
        )
    used = cpu_seconds() - start
    for label, value in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{value:8.1f} s  {100 * value / used:5.1f} %  {label}")
    rest = used - sum(spent.values())
    print(f"{rest:8.1f} s  {100 * rest / used:5.1f} %  all else: imports, other scores, records")
    cropped = sum(frames) / 30
    print(
        f"{used:.1f} processor seconds ({time.perf_counter() - wall:.1f} s) for {seconds:.1f} s of "
        f"{len(arguments.videos)} videos: {seconds / used:.2f}x real time per core (target 1x)\n"
        f"{len(frames)} clips of {kept} videos, {cropped:.1f} s: {cropped / used:.2f} hours of head-cropped video per "
        "processor-hour"
    )


if __name__ == "__main__":
    main()
