"""The main job: raw monologue videos to a generated talking video, every stage, one command.

    archon demo                                 the embedded corpus
    archon demo --input 'videos/*.mp4'          your own videos, the same road

Each stage resumes by itself; a stage that is finished is noted in WORKDIR/summary.json and not run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.memory import PeakMemory
from models.errors import InputError
from pipelines import storage
from pipelines.beam import RunnerOptions, add_runner_arguments, fingerprint, runner_options
from pipelines.dataset import ANNOTATIONS, Dataset, write_json

TOKENIZER_JOBS = ("speech", "image", "semantic", "shape", "expression", "pose")
CHAIN = "shape>expression>semantics>description>video"

# Seconds each stage took on 2 cores for 14 embedded clips (the table in README.md); only the estimate of
# what remains uses them, scaled by how fast the stages done so far were.
EXPECTED_SECONDS = {
    "synthesize": 40,
    "curate": 29,
    "annotate": 107,
    "train text": 1,
    "train speech": 27,
    "train image": 29,
    "train semantic": 35,
    "train shape": 5,
    "train expression": 12,
    "train pose": 9,
    "tokenize": 14,
    "train language": 49,
    "train decoder": 70,
    "generate": 18,
    "report": 9,
}


@dataclass(frozen=True)
class DemoConfig:
    """What the main job runs on.

    ``inputs`` are globs or lists of videos (none: the embedded corpus of ``clips`` talking heads); ``scale`` multiplies
    the steps of every training job (1 is the preset's own).
    """

    workdir: str = "demo"
    inputs: tuple[str, ...] = ()
    clips: int = 14
    preset: str = "tiny"
    scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """One stage: its name and a function that returns its row: items, and whatever else the summary should hold."""

    name: str
    work: Callable[[], dict]


def demo(config: DemoConfig, runner: RunnerOptions, last: str | None = None) -> dict:
    """Runs every stage that is not done yet, up to the ``last``; returns what WORKDIR/summary.json holds."""
    workdir = Path(config.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    summary_path = workdir / "summary.json"
    identity = fingerprint(config)
    summary = {"identity": identity, "config": asdict(config), "stages": {}}
    if summary_path.exists():
        summary = json.loads(summary_path.read_text())
        if summary["identity"] != identity:
            raise InputError(
                f"{summary_path}: this folder belongs to another run: {summary['config']}; give another --workdir"
            )
    stages = plan(config, runner)
    if last is not None:
        stages = stages[: [stage.name for stage in stages].index(last) + 1]
    for number, stage in enumerate(stages, start=1):
        if stage.name in summary["stages"]:
            print(f"[{number}/{len(stages)}] {stage.name}: done before", flush=True)
            continue
        left = estimate(summary["stages"], [s.name for s in stages])
        print(f"\n[{number}/{len(stages)}] {stage.name}; about {left / 60:.0f} min remain in all", flush=True)
        start = time.monotonic()
        with PeakMemory() as memory:
            row = stage.work()
        summary["stages"][stage.name] = {
            **row,
            "seconds": round(time.monotonic() - start, 1),
            "peak_gib": round(memory.gib, 2),
        }
        write_json(str(summary_path), summary)
    if last is not None:
        return summary
    summary["paths"] = paths(config, summary["stages"])
    write_json(str(summary_path), summary)
    print(render_table(summary), flush=True)
    return summary


def plan(config: DemoConfig, runner: RunnerOptions) -> list[Stage]:
    """The stages in order. Modules are imported when their stage runs."""
    root, models = f"{config.workdir}/dataset", f"{config.workdir}/models"
    stages = []
    if not config.inputs:
        stages.append(Stage("synthesize", lambda: _synthesize(config, runner)))
    stages += [
        Stage("curate", lambda: _curate(config, root, runner)),
        Stage("annotate", lambda: _annotate(root, runner)),
        Stage("train text", lambda: _train_text(config, root, models)),
    ]
    stages += [Stage(f"train {name}", _trainer(name, config, root, models)) for name in TOKENIZER_JOBS]
    stages += [
        Stage("tokenize", lambda: _tokenize(root, models, runner)),
        Stage("train language", _trainer("language", config, root, models)),
        Stage("train decoder", _trainer("decoder", config, root, models)),
        Stage("generate", lambda: _generate(config, root, models)),
        Stage("report", lambda: _report(config, root)),
    ]
    return stages


def estimate(done: dict, names: list[str]) -> float:
    """Seconds that the stages not done may take: the expected ones, times how much slower the done ones were."""
    expected = sum(EXPECTED_SECONDS[name] for name in done if name in EXPECTED_SECONDS)
    took = sum(row["seconds"] for name, row in done.items() if name in EXPECTED_SECONDS)
    pace = took / expected if expected else 1.0
    return pace * sum(EXPECTED_SECONDS[name] for name in names if name not in done)


# --- The stages ---


def _synthesize(config: DemoConfig, runner: RunnerOptions) -> dict:
    from pipelines.synthesize import SynthesizeConfig, synthesize

    output = f"{config.workdir}/videos"
    made = synthesize(SynthesizeConfig(clips=config.clips, output=output, seed=config.seed, workers=runner.workers))
    return {"items": config.clips, "unit": "videos", "summary": made}


def _curate(config: DemoConfig, root: str, runner: RunnerOptions) -> dict:
    from pipelines.curate import CurateConfig, curate

    inputs = config.inputs or (f"{config.workdir}/videos/*.mp4",)
    made = curate(CurateConfig(inputs=inputs, output=root), runner)
    if not made["clips"]:
        raise InputError(
            f"{', '.join(inputs)}: none of {made['sources']} videos gave a clip; {root}/rejects says why for each"
        )
    return {"items": made["clips"], "unit": f"clips of {made['sources']} videos", "summary": made}


def _annotate(root: str, runner: RunnerOptions) -> dict:
    from pipelines.annotate import annotate
    from pipelines.annotators import AnnotateConfig

    made = annotate(AnnotateConfig(dataset=root), runner)
    return {"items": made["clips"], "unit": f"clips x {len(ANNOTATIONS)} columns", "summary": made}


def _train_text(config: DemoConfig, root: str, models: str) -> dict:
    from infra.training.tokenizer_jobs import text_config, train_text

    made = train_text(text_config(preset=config.preset, overrides={}), Path(root), Path(models, "text"))
    return {"items": made["vocabulary"], "unit": "pieces"}


def _trainer(name: str, config: DemoConfig, root: str, models: str) -> Callable[[], dict]:
    def work() -> dict:
        from infra.training.command import train_named

        results = train_named(
            name,
            preset=config.preset,
            dataset=Path(root),
            tokenizers=Path(models),
            workdir=Path(models, name),
            seed=config.seed,
            scale=config.scale,
        )
        return {
            "items": sum(result.steps for result in results),
            "unit": "steps",
            "loss_start": [result.loss_start for result in results],
            "loss_end": [result.loss_end for result in results],
        }

    return work


def _tokenize(root: str, models: str, runner: RunnerOptions) -> dict:
    from pipelines.tokenize import TokenizeConfig, tokenize

    made = tokenize(TokenizeConfig(dataset=root, tokenizers=models), runner)
    return {"items": made["clips"], "unit": "clips", "summary": made}


def _generate(config: DemoConfig, root: str, models: str) -> dict:
    from infra.generate_command import GenerateConfig, generate
    from models.sampling import Sampling

    given = f"{config.workdir}/generated/given"
    speech, image = write_given(Dataset(root), given)
    made = generate(
        GenerateConfig(
            given=(("speech", speech), ("image", image)),
            want="video",
            chain=CHAIN,
            models=models,
            output=f"{config.workdir}/generated",
            seed=config.seed,
            # A model trained for two minutes is surest of its likeliest tokens.
            sampling=Sampling(temperature=0.7, top_p=0.9),
        )
    )
    return {"items": made["tokens"], "unit": "tokens", "summary": made}


def write_given(dataset: Dataset, folder: str) -> tuple[str, str]:
    """Writes a held-out clip's speech and reference image as files, the way a user would bring them."""
    from pipelines.inspect import wav_bytes
    from pipelines.overlay import encode_image

    good = dataset.good_rows("clips", *ANNOTATIONS)
    held = set(dataset.split("heldout"))
    if not good:
        raise InputError(f"{dataset.root}: no clip has all of {', '.join(ANNOTATIONS)}")
    row = next((row for row in good if row in held), good[0])
    speech, image = f"{folder}/speech.wav", f"{folder}/image.png"
    storage.write_bytes(speech, wav_bytes(dataset.column("speech")[row]["audio"]))
    storage.write_bytes(image, encode_image(dataset.column("image")[row]["image"], "PNG"))
    return speech, image


def _report(config: DemoConfig, root: str) -> dict:
    from infra.road import draw_road
    from pipelines.report import ReportConfig, report

    made = report(ReportConfig(root))
    return {"items": made["clips"], "unit": "clips", "summary": {**made, "road": draw_road(config.workdir)}}


# --- What is shown at the end ---


def paths(config: DemoConfig, stages: dict) -> dict[str, str]:
    """What to open: name -> path."""
    report, generated = stages["report"]["summary"], stages["generate"]["summary"]
    return {
        "report": report["report"],
        "contact sheet": report.get("contact_sheet", ""),
        "the road": report["road"],
        "generated video": generated["outputs"]["video"],
        "generated, all": f"{config.workdir}/generated",
        "summary": f"{config.workdir}/summary.json",
    }


def render_table(summary: dict) -> str:
    """The closing table as text."""
    rows = [("stage", "items", "seconds", "held-out loss before", "after")]
    for name, row in summary["stages"].items():
        before, after = (", ".join(f"{x:.4g}" for x in row.get(key, [])) for key in ("loss_start", "loss_end"))
        rows.append((name, f"{row['items']} {row['unit']}", f"{row['seconds']:.1f}", before, after))
    total = sum(row["seconds"] for row in summary["stages"].values())
    rows.append(("all", "", f"{total:.1f}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    peak = max(row["peak_gib"] for row in summary["stages"].values())
    lines += ["", f"peak memory {peak:.1f} GiB (all processes together)", "", "open:"]
    lines += [f"  {name:<16} {path}" for name, path in summary["paths"].items() if path]
    return "\n" + "\n".join(lines)


# --- The command ---


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs every stage: curate, annotate, train tiny models, tokenize, generate, report. "
        "Without --input it first renders an embedded corpus. Killed and run again, it goes on where it was."
    )
    parser.epilog = "examples:\n  archon demo\n  archon demo --input 'videos/*.mp4' --workdir my-videos"
    parser.add_argument(
        "--input", action="append", default=[], help="a glob of videos or a list of paths; may be repeated"
    )
    parser.add_argument("--workdir", default="demo", help="where everything goes (default: %(default)s)")
    parser.add_argument(
        "--clips", type=int, default=14, help="talking heads of the embedded corpus (default: %(default)s)"
    )
    parser.add_argument("--preset", default="tiny", help="which hyperparameters to train with (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    for flag, value in (("--clips", args.clips), ("--scale", args.scale)):
        if value <= 0:
            raise InputError(f"{flag} {value}: expected more than 0")
    config = DemoConfig(args.workdir, tuple(args.input), args.clips, args.preset, args.scale, args.seed)
    try:
        return demo(config, runner_options(args))
    except KeyboardInterrupt:
        print("demo: stopped; the same command goes on from here", file=sys.stderr)
        raise
