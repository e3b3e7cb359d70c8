"""How fast the embedded corpus is made on one core, by part: `python -m tests.benchmarks.synthesis`.

Seconds are processor time of this process and of the encoder together, so that other work on the machine counts little.
"""

import argparse
import functools
import resource
import tempfile
import time
from pathlib import Path

from models.signals import VIDEO_FPS


def processor_seconds() -> float:
    """Returns user and system time of this process and of the children it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def timed(module, name: str, parts: dict) -> None:
    """Makes ``module.name`` add its processor time to ``parts``."""
    inner = getattr(module, name)

    @functools.wraps(inner)
    def outer(*args, **kwargs):
        start = time.thread_time()
        try:
            return inner(*args, **kwargs)
        finally:
            parts[name] = parts.get(name, 0.0) + time.thread_time() - start

    setattr(module, name, outer)


def main() -> None:
    """Renders clips and prints the rate and the table of parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from models.face import render as face_render
    from pipelines.stages import monologue, scene, shading
    from pipelines.stages.monologue import ClipTask, render_clip

    parts: dict[str, float] = {}
    kernels = ("normals_of", "seen_from", "cast", "lit_share", "light_vertices", "to_samples", "draw_ids", "resolve")
    with tempfile.TemporaryDirectory() as folder:
        # Once before the clock starts: compilation, and the face model.
        render_clip(ClipTask(args.seed, 0, args.size, args.size), Path(folder) / "warm", {})
        for name in kernels:
            timed(shading, name, parts)
        timed(face_render, "skin_to_camera", parts)
        for name in ("build_character", "draw_scene", "choose_speech", "_save_arrays", "_pitch", "describe_truth"):
            timed(monologue, name, parts)
        timed(monologue.VideoWriter, "write", parts)
        timed(scene.Stage, "draw", parts)
        timed(monologue, "plan", parts)
        start, wall = processor_seconds(), time.perf_counter()
        frames = sum(
            render_clip(ClipTask(args.seed, k, args.size, args.size), Path(folder) / f"clip-{k}", {})["frames"]
            for k in range(args.clips)
        )
        total, wall = processor_seconds() - start, time.perf_counter() - wall
    print(f"{args.clips} clips, {frames} frames of {args.size}x{args.size}")
    print(
        f"{frames / total:.1f} frames per core-second, everything included; {frames / wall:.1f} frames per wall second"
    )
    print(f"{frames / total / VIDEO_FPS:.2f} times real time on one core")
    print("\n| part | ms a frame |\n|---|---|")
    for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"| {name} | {1000 * seconds / frames:.2f} |")
    outside = total - parts["draw"] - parts["write"] - parts["plan"]
    print(f"| ffmpeg, espeak-ng and the rest | {1000 * outside / frames:.2f} |")
    print(f"| all | {1000 * total / frames:.2f} |")


if __name__ == "__main__":
    main()
