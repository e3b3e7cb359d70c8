"""``archon train NAME``: one training job, resumable by the same command."""

import argparse
from pathlib import Path

from infra.training.jobs import JOBS, PRESETS, TEXT, build_job, parse_overrides
from models.errors import InputError


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train one model. Killed and run again, the same command goes on where it was."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon train speech --dataset D --workdir W/models/speech
  archon train language --dataset D --tokenizers W/models --workdir W/models/language --steps 500
  archon train speech --preset paper --dry-run"""
    parser.add_argument("name", choices=[TEXT, *JOBS], help="what to train")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="hyperparameters (default: tiny)")
    parser.add_argument("--dataset", type=Path, help="the dataset's directory")
    parser.add_argument("--workdir", type=Path, help="the job's directory: checkpoints, log and the trained model")
    parser.add_argument("--tokenizers", type=Path, help="the directory that holds the trained tokenizers' directories")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config field")
    parser.add_argument("--steps", type=int, help="override the number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints (default: 200)")
    parser.add_argument("--dry-run", action="store_true", help="print the config and stop")


def run(args: argparse.Namespace) -> dict:
    overrides = parse_overrides(args.set)
    if not args.dry_run:
        for flag in ("dataset", "workdir"):
            if getattr(args, flag) is None:
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
    job = build_job(
        args.name,
        preset=args.preset,
        dataset=args.dataset,
        tokenizers=args.tokenizers,
        overrides=overrides,
        steps=args.steps,
        seed=args.seed,
    )
    if args.dry_run:
        print(job.config)
        return {"name": args.name, "steps": job.steps, "config": repr(job.config)}
    from infra.training.loop import train

    result = train(job, args.workdir, seed=args.seed, save_every=args.save_every)
    print(
        f"{result.name}: {result.steps} steps, {result.seconds:.0f} s, "
        f"held-out loss {result.loss_start:.4g} -> {result.loss_end:.4g}, {result.directory}"
    )
    return {
        "name": result.name,
        "steps": result.steps,
        "seconds": result.seconds,
        "loss_start": result.loss_start,
        "loss_end": result.loss_end,
        "resumed_from": result.resumed_from,
        "directory": str(result.directory),
        "figures": result.figures,
    }
