"""``archon synthesize``: the embedded corpus: rendered talking heads with speech, and the truth about them beside each.

For a clip NAME it leaves, in this order, NAME.truth.npz (arrays), NAME.truth.json (everything else) and NAME.mp4; a
clip whose mp4 is there and whose truth was made with the same settings is skipped, so a killed run goes on where it
was. Clip k of a seed does not depend on how many clips are made or by how many workers; the same seed gives the same
bytes on one machine.

NAME.truth.npz, for T frames of H x W pixels:

- shape (Ns,), expression (T, Ne), pose (T, 6), camera (3,): the 3DMM's parameters as in a dataset's records; ``camera``
  is focal length and principal point in frame pixels;
- landmarks (T, 68, 2): pixels of the frame, pixel edges at whole numbers; hidden (T, 68) bool: something is before it;
- labels (T, H, W) uint8: the 21 classes. Only the first person is labelled: a hand, a microphone or a second person
  is background, also where it hides a face.

NAME.truth.json: text, words and phonemes with their times, voice, attributes of person, place and light, description
(the schema of describe.py), imperfections (kind, frames, strength and its unit).
"""

import argparse
import dataclasses
import json
import os
import re
import time
from pathlib import Path

from models.errors import InputError
from models.signals import VIDEO_FPS

# Goes into the truth: a change here renders existing corpora anew.
CORPUS_VERSION = 4


@dataclasses.dataclass(frozen=True)
class SynthesizeConfig:
    """Attributes: clips: how many; output: directory; seed; size: frame height in pixels (a multiple of 4); width: of
    the frame, 0 for a square one; imperfections: kinds of imperfections.KINDS; imperfection_share: of the clips that
    each kind is put into; workers: processes, 0 for one a core; quiet: no progress lines.
    """

    clips: int
    output: str
    seed: int = 0
    size: int = 512
    workers: int = 0
    quiet: bool = False
    width: int = 0
    imperfections: tuple[str, ...] = ()
    imperfection_share: float = 0.3


def clip_name(seed: int, index: int) -> str:
    """Returns the file name (without suffix) of a clip."""
    return f"head-{seed:04d}-{index:04d}"


def synthesize(config: SynthesizeConfig) -> dict:
    """Renders the corpus.

    Returns:
      clips, rendered, skipped, frames, video_seconds, seconds, output, videos (paths, in order).

    Raises:
      InputError: a setting is out of range.
    """
    if config.clips < 1:
        raise InputError(f"--clips {config.clips}: expected at least 1")
    for side in (config.size, config.width or config.size):
        if side < 64 or side % 4:
            raise InputError(f"--size {side}: expected multiples of 4, at least 64")
    if not 0 < config.imperfection_share <= 1:
        raise InputError(f"--imperfection-share {config.imperfection_share}: expected above 0 and at most 1")
    if config.workers < 0:
        raise InputError(f"--workers {config.workers}: expected 0 (one a core) or more")
    start = time.monotonic()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    workers = min(config.workers or os.cpu_count() or 1, config.clips)
    tasks = [(_clip_task(config, index), str(output)) for index in range(config.clips)]
    results = []

    def done(result):
        results.append(result)
        if not config.quiet:
            elapsed = time.monotonic() - start
            left = elapsed / len(results) * (config.clips - len(results))
            state = "is there" if result["skipped"] else f"{result['frames']} frames, {result['seconds']:.1f} s"
            print(
                f"synthesize {len(results)}/{config.clips} {result['name']}: {state}; about {left:.0f} s left",
                flush=True,
            )

    pending = [task for task in tasks if _finished(*task) is None]
    for task in tasks:
        truth = _finished(*task)
        if truth is not None:
            done({"name": truth["name"], "frames": truth["frames"], "seconds": 0.0, "skipped": True})
    if workers == 1 or len(pending) <= 1:
        for task in pending:
            done(render(*task))
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        # spawn: a forked child would inherit the threads and locks of whatever the caller has loaded.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in as_completed([pool.submit(render, *task) for task in pending]):
                done(future.result())
    frames = sum(r["frames"] for r in results)
    return {
        "clips": config.clips,
        "rendered": sum(not r["skipped"] for r in results),
        "skipped": sum(r["skipped"] for r in results),
        "frames": frames,
        "video_seconds": round(frames / VIDEO_FPS, 3),
        "seconds": round(time.monotonic() - start, 3),
        "output": str(output),
        "videos": [str(output / f"{clip_name(config.seed, k)}.mp4") for k in range(config.clips)],
    }


def _clip_task(config, index):
    from pipelines.stages.imperfections import KINDS
    from pipelines.stages.monologue import ClipTask

    kinds = tuple(kind for kind in KINDS if kind in config.imperfections)
    # Without imperfections their share says nothing.
    share = config.imperfection_share if kinds else 1.0
    return ClipTask(config.seed, index, config.width or config.size, config.size, kinds, share)


def _finished(task, output):
    """Returns the truth of a clip that is there and was made with these settings, else None."""
    path = Path(output) / clip_name(task.seed, task.index)
    if not all(Path(f"{path}{suffix}").is_file() for suffix in (".mp4", ".truth.json", ".truth.npz")):
        return None
    try:
        truth = json.loads(Path(f"{path}.truth.json").read_text(encoding="utf-8"))
    except ValueError:
        return None
    return truth if truth.get("made_by") == _made_by(task) else None


def _made_by(task):
    from models.face.model import load_face_model

    settings = dataclasses.asdict(task) | {"kinds": list(task.kinds)}
    return {"corpus": CORPUS_VERSION, "face_model": load_face_model().name, **settings}


def render(task, output: str) -> dict:
    """Renders one clip into ``output``; returns name, frames, seconds, skipped."""
    from pipelines.stages.monologue import render_clip

    return render_clip(task, Path(output) / clip_name(task.seed, task.index), _made_by(task))


def register(parser: argparse.ArgumentParser) -> None:
    """Adds description, arguments and examples."""
    parser.description = "Render talking heads with speech by espeak-ng, and the ground truth of each clip beside it."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n  archon synthesize --clips 12 --output corpus\n"
        "  archon synthesize --clips 200 --output corpus --seed 7 --workers 4\n"
        "  archon synthesize --clips 50 --output wide --size 640x360\n"
        "  archon synthesize --clips 50 --output hard --imperfections blur,hand,cut --imperfection-share 0.5"
    )
    parser.add_argument("--clips", type=int, required=True, help="how many clips, one person each")
    parser.add_argument("--output", required=True, help="directory for NAME.mp4, NAME.truth.json and NAME.truth.npz")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default 0)")
    parser.add_argument("--size", default="512", help="frames in pixels: a side, or WIDTHxHEIGHT (default 512)")
    parser.add_argument(
        "--imperfections",
        default="none",
        help="comma-separated: compression, blur, noise, hand, microphone, second-person, cut, silence; or all "
        "(default none)",
    )
    parser.add_argument(
        "--imperfection-share", type=float, default=0.3, help="share of the clips that each kind is put into (0.3)"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def run(args: argparse.Namespace) -> dict:
    """Runs the command; returns the --json summary."""
    from pipelines.stages.imperfections import parse_kinds

    found = re.fullmatch(r"(?:(\d+)x)?(\d+)", args.size)
    if found is None:
        raise InputError(f"--size {args.size}: expected a number of pixels, or WIDTHxHEIGHT")
    return synthesize(
        SynthesizeConfig(
            clips=args.clips,
            output=args.output,
            seed=args.seed,
            size=int(found[2]),
            workers=args.workers,
            quiet=args.quiet,
            width=int(found[1] or 0),
            imperfections=parse_kinds(args.imperfections),
            imperfection_share=args.imperfection_share,
        )
    )
