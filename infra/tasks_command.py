"""``archon tasks``: what the language model learns, the vocabulary, and one example as the model reads it."""

import argparse
from pathlib import Path

from models.errors import InputError


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the tasks and the vocabulary, or show one task's steps as the model reads them."
    parser.epilog = """examples:
  archon tasks
  archon tasks --tokenizers W/models
  archon tasks --show speech-to-script --dataset W/dataset"""
    parser.add_argument("--show", metavar="NAME", help="one task: its prompts, step by step")
    parser.add_argument("--tokenizers", type=Path, help="compute the vocabulary from these; default: the paper's sizes")
    parser.add_argument("--dataset", type=Path, help="with --show: the contents of this dataset's first clip")


def run(args: argparse.Namespace) -> dict:
    from tasks.generate import read_token_space
    from tasks.mixture import uniform_weights
    from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
    from tasks.registry import TASKS, task_named

    if args.dataset is not None and args.show is None:
        raise InputError("tasks: --dataset goes with --show")
    vocabulary = Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1)
    if args.tokenizers is not None:
        vocabulary = read_token_space(args.tokenizers).vocabulary
    chosen = TASKS if args.show is None else (task_named(args.show),)
    weights = dict(zip((t.name for t in TASKS), uniform_weights(TASKS), strict=True))
    summary = {
        "tasks": [
            {
                "name": task.name,
                "family": task.family,
                "inputs": [s.modality if s.state == "current" else f"{s.state} {s.modality}" for s in task.inputs],
                "output": task.outputs[-1],
                "outputs": list(task.outputs),
                "weight": round(float(weights[task.name]), 6),
            }
            for task in chosen
        ],
        "vocabulary": vocabulary.to_json(),
    }
    if args.show is not None:
        summary["example"] = _example(chosen[0], args.dataset)
        print(f"{chosen[0].name} ({chosen[0].family})")
        for number, line in enumerate(summary["example"], 1):
            print(f"\nstep {number}\n  reads   {line['reads']}\n  writes  {line['writes']}")
        return summary
    _print_tables(summary, vocabulary)
    return summary


def _print_tables(summary: dict, vocabulary) -> None:
    from models.signals import grid_frames
    from tasks.modalities import MODALITIES

    width = max(len(task["name"]) for task in summary["tasks"])
    print(f"{'task':<{width}}  {'family':<12}  {'weight':>6}  given -> made")
    for task in summary["tasks"]:
        arrow = f"{' + '.join(task['inputs'])} -> {' > '.join(task['outputs'])}"
        print(f"{task['name']:<{width}}  {task['family']:<12}  {task['weight']:>6.3f}  {arrow}")
    frames = grid_frames(150)
    print(f"\n{'modality':<12}  {'ids':<22}  {'levels':>6}  {'clock':<6}  {'states':<13}  tokens in {frames} frames")
    for m in MODALITIES.values():
        if not m.stream:
            print(f"{m.name:<12}  {m.about}")
            continue
        ranges = vocabulary.stream_ranges(m.stream)
        ids = f"{ranges[0].start:,} - {ranges[-1].start + ranges[-1].size - 1:,}"
        levels = f"{len(ranges)}x{ranges[0].size}" if not m.is_text else ""
        tokens = "its own" if m.is_text else f"{m.num_tokens(frames):,}"
        print(f"{m.name:<12}  {ids:<22}  {levels:>6}  {m.clock:<6}  {', '.join(m.states):<13}  {tokens}")
    print(f"\n{vocabulary.total:,} ids, {len(summary['tasks'])} tasks")


def _example(task, dataset: Path | None) -> list[dict]:
    """Returns what the model reads and writes at each step, blocks as their number of tokens."""
    from models.signals import latent_steps
    from tasks.prompts import serialise, show
    from tasks.windows import WindowConfig, step_prompt, window_at

    config = WindowConfig()
    record = _blank_record() if dataset is None else _first_record(dataset)
    steps = latent_steps(record["num_frames"])
    lines = []
    for step in task.steps:
        start = 1 + config.past if step.needs_past else 0
        window = window_at(start, steps, config)
        prompt = step_prompt(step.inputs, step.output, record, window, config, target=True)
        prefix, target, _ = serialise(prompt)
        lines.append({"output": step.output, "reads": show(prefix), "writes": show(target)})
    return lines


def _first_record(dataset: Path) -> dict:
    from pipelines.dataset import Dataset

    column = Dataset(dataset).column("tokens")
    for row in range(len(column)):
        if not column[row]["error"]:
            return column[row]
    raise InputError(f"{dataset}: no clip with tokens")


def _blank_record() -> dict:
    """A clip of two seconds with empty codes, to show the shape of a prompt."""
    import numpy as np

    from tasks.modalities import MODALITIES, TOKEN_MODALITIES

    frames = 61
    record: dict = {"num_frames": frames}
    for name in TOKEN_MODALITIES:
        m = MODALITIES[name]
        if m.is_text:
            record[name] = f"({name})"
        elif m.time_axis == 0:
            record[name] = np.zeros((m.steps(frames), *m.cell), np.int32)
        elif m.time_axis == 1:
            record[name] = np.zeros((m.levels, m.steps(frames)), np.int32)
        else:
            record[name] = np.zeros(m.cell or (m.levels,), np.int32)
    return record
