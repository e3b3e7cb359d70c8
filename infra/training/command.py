"""``archon train NAME``: one training job, resumable by the same command."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from infra.training.jobs import JOBS, LANGUAGE, PRESETS, SEGMENTER, TEXT, build_job, parse_overrides
from models.errors import InputError

if TYPE_CHECKING:
    from infra.training.loop import TrainResult


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train one model. Killed and run again, the same command goes on where it was."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon train speech --dataset D --workdir W/models/speech
  archon train language --dataset D --tokenizers W/models --workdir W/models/language --steps 500
  archon train language --dataset D --tokenizers W/models --workdir W/models/mixed --tasks weights.json
  archon train language --dataset D --tokenizers W/models --workdir W/models/tts --tasks description-to-speech
  archon train segmenter --preset embedded --source truth=corpus --source landmarks=D --workdir W/models/segmenter
  archon train language --dataset D --tokenizers W/models --workdir W/models/l --set rows=4 --devices 2 --mesh fsdp=2
  archon train speech --preset paper --dry-run"""
    parser.add_argument("name", choices=[TEXT, *JOBS], help="what to train")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="hyperparameters (default: tiny)")
    parser.add_argument("--dataset", type=Path, help="the dataset's directory")
    parser.add_argument("--workdir", type=Path, help="the job's directory: checkpoints, log and the trained model")
    parser.add_argument("--tokenizers", type=Path, help="the directory that holds the trained tokenizers' directories")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="KIND=PATH",
        help="segmenter only: labelled pictures: truth=CORPUS, celebamask=FOLDER, landmarks=DATASET, "
        "mesh=DATASET:FILE.task; may be repeated",
    )
    parser.add_argument(
        "--tasks",
        metavar="uniform|FILE|NAME[,NAME..]",
        help="language only: how often each task is sampled: all alike (the default), by a file that `archon measure "
        "mixture` wrote, or these alike and no other",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config field")
    parser.add_argument("--steps", type=int, help="override the number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints (default: 200)")
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        help="CPU devices that split a batch, best one a core; the weights differ by rounding (default: 1)",
    )
    parser.add_argument(
        "--mesh",
        metavar="fsdp=N,tensor=N",
        help="language only: how the devices split the model and the batch (default: all of them along fsdp, as far as "
        "the batch's rows go round)",
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,COUNT,INDEX",
        help="this is one process of several. On a TPU slice: the same command on every host, no value. Elsewhere: the "
        "address of the first process, how many there are, and which one this is",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the config and stop")


def run(args: argparse.Namespace) -> dict:
    overrides = parse_overrides(args.set)
    if args.devices < 1:
        raise InputError(f"train: --devices: {args.devices}: expected 1 or more")
    if args.source:
        if args.name != SEGMENTER:
            raise InputError(f"train: --source is for the {SEGMENTER}; {args.name} takes --dataset")
        if any("," in source for source in args.source):
            raise InputError("train: --source: a path with a comma cannot be given")
        overrides["sources"] = ",".join(args.source)
    if args.tasks is not None:
        if args.name != LANGUAGE:
            raise InputError(f"train: --tasks is for the {LANGUAGE} model; {args.name} has none")
        overrides["tasks"] = args.tasks
    if not args.dry_run:
        for flag in ("dataset", "workdir"):
            if getattr(args, flag) is None and not (flag == "dataset" and args.source):
                raise InputError(f"train: --{flag} is needed")
    if args.name == TEXT:
        from infra.training.tokenizer_jobs import text_config, train_text

        config = text_config(preset=args.preset, overrides=overrides)
        if args.dry_run:
            print(config)
            return {"name": TEXT, "config": repr(config)}
        result = train_text(config, args.dataset, args.workdir)
        print(f"text: {result['vocabulary']} pieces -> {args.workdir}")
        return result
    if args.dry_run:
        job = build_job(args.name, preset=args.preset, overrides=overrides, steps=args.steps, seed=args.seed)
        parts = job if isinstance(job, tuple) else (job,)
        for part in parts:
            print(part.config)
        return {"name": args.name, "config": [repr(part.config) for part in parts]}
    if args.mesh is not None and args.name != LANGUAGE:
        raise InputError(f"train: --mesh is for the {LANGUAGE} model; {args.name} splits its batches over all devices")
    if args.distributed is not None:
        from infra.training.placement import join_processes

        join_processes(args.distributed)
    if args.devices > 1:
        import jax

        jax.config.update("jax_num_cpu_devices", args.devices)
        if jax.default_backend() != "cpu":
            raise InputError(f"train: --devices splits CPUs; this is a {jax.default_backend()}, all of which are used")
    results = train_named(
        args.name,
        preset=args.preset,
        dataset=args.dataset,
        tokenizers=args.tokenizers,
        workdir=args.workdir,
        overrides=overrides,
        steps=args.steps,
        seed=args.seed,
        save_every=args.save_every,
        mesh=args.mesh,
    )
    for result in results:
        print(
            f"{result.name}: {result.steps} steps, {result.seconds:.0f} s, "
            f"held-out loss {result.loss_start:.4g} -> {result.loss_end:.4g}, {result.directory}"
        )
    parts = [{**dataclasses.asdict(result), "directory": str(result.directory)} for result in results]
    return parts[0] if len(parts) == 1 else {"name": args.name, "parts": parts}


def train_named(
    name: str,
    *,
    preset: str = "tiny",
    dataset: Path | None,
    workdir: Path,
    tokenizers: Path | None = None,
    overrides: dict[str, str] | None = None,
    steps: int | None = None,
    scale: float = 1.0,
    seed: int = 0,
    save_every: int = 200,
    mesh: str | None = None,
) -> "list[TrainResult]":
    """Trains a named job, or each of its parts in its own folder of the work directory; arguments as ``build_job``.

    ``scale`` multiplies the preset's steps (and leaves at least one). ``mesh`` is as ``placement.parse_mesh`` takes it.
    """
    from infra.training.loop import train
    from infra.training.placement import make_mesh, parse_mesh

    if name == SEGMENTER:
        # Its pictures are decoded and labelled once; they live with the run.
        overrides = {"cache": str(Path(workdir) / "examples"), **(overrides or {})}
    built = build_job(
        name, preset=preset, dataset=dataset, tokenizers=tokenizers, overrides=overrides, steps=steps, seed=seed
    )
    if not isinstance(built, tuple):
        if scale != 1.0:
            built = build_job(
                name,
                preset=preset,
                dataset=dataset,
                tokenizers=tokenizers,
                overrides=overrides,
                steps=max(1, round(built.steps * scale)),
                seed=seed,
            )
        devices = None if mesh is None else make_mesh(parse_mesh(mesh))
        return [train(built, workdir, seed=seed, save_every=save_every, mesh=devices)]
    results = []
    for part in built:
        job = part.make(Path(workdir), max(1, round(part.config.steps * scale)))
        results.append(train(job, Path(workdir) / part.name, seed=seed, save_every=save_every))
    return results
