"""``archon tasks``: the modalities and their tokens, the 72 tasks, and one example as the model reads it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InputError

if TYPE_CHECKING:
    from tasks.modalities import Vocabulary

PRESETS = ("paper", "tiny")


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the tasks, the modalities and their ids, or show one task's steps as the model reads them."
    )
    parser.epilog = """examples:
  archon tasks
  archon tasks --preset paper --seconds 10
  archon tasks --tokenizers W/models --weights weights.json
  archon tasks --show speech-to-script --dataset W/dataset
  archon tasks --markdown"""
    parser.add_argument("--show", metavar="NAME", help="one task: its prompts, step by step")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset", choices=PRESETS, help="ids of tokenizers of this size (default: paper)")
    source.add_argument("--tokenizers", type=Path, help="ids of these trained tokenizers")
    parser.add_argument("--seconds", type=float, default=5.0, help="count the tokens of so long a clip (default: 5)")
    parser.add_argument(
        "--weights", metavar="FILE", help="sampling weights of `archon measure mixture`, not uniform ones"
    )
    parser.add_argument("--dataset", type=Path, help="with --show: the contents of this dataset's first clip")
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/tasks.md")


def run(args: argparse.Namespace) -> dict:
    from tasks.generate import read_token_space
    from tasks.mixture import UNIFORM, read_mixture
    from tasks.registry import TASKS, task_named

    if args.dataset is not None and args.show is None:
        raise InputError("tasks: --dataset goes with --show")
    if args.tokenizers is not None:
        vocabulary = read_token_space(args.tokenizers).vocabulary
    else:
        vocabulary = preset_vocabulary(args.preset or "paper")
    chosen = TASKS if args.show is None else (task_named(args.show),)
    weights = dict(read_mixture(args.weights or UNIFORM, TASKS))
    summary = {
        "tasks": [
            {
                "name": task.name,
                "family": task.family,
                "inputs": [_source(source) for source in task.inputs],
                "output": task.outputs[-1],
                "outputs": list(task.outputs),
                "weight": round(float(weights[task.name]), 6),
            }
            for task in chosen
        ],
        "modalities": _modalities(vocabulary, args.seconds),
        "vocabulary": vocabulary.to_json(),
    }
    if args.show is not None:
        summary["example"] = _example(chosen[0], args.dataset)
        print(f"{chosen[0].name} ({chosen[0].family})")
        for number, line in enumerate(summary["example"], 1):
            print(f"\nstep {number}\n  reads   {line['reads']}\n  writes  {line['writes']}")
        return summary
    print(markdown() if args.markdown else "\n".join(_tables(summary, vocabulary, args.seconds)))
    return summary


def preset_vocabulary(preset: str) -> "Vocabulary":
    """Computes the vocabulary of tokenizers of a preset ("paper", "tiny"): what they have once they are trained.

    A small corpus can give the text tokenizer fewer pieces than its preset asks for.
    """
    from infra.presets import expression, image, pose, semantic, shape, speech, text
    from tasks.modalities import Vocabulary

    size = preset.upper()
    codebooks = {"text": (getattr(text, size).vocabulary,)}
    for name, module in (("speech", speech), ("shape", shape), ("expression", expression), ("pose", pose)):
        rvq = getattr(module, size).model.rvq
        codebooks[name] = (rvq.codes,) * rvq.levels
    for name, module in (("image", image), ("semantics", semantic)):
        codebooks[name] = (2 ** getattr(module, size).model.net.bits,)
    return Vocabulary.of_codebooks(codebooks, eos=1)


def _source(source) -> str:
    return source.modality if source.state == "current" else f"{source.state} {source.modality}"


def _modalities(vocabulary: "Vocabulary", seconds: float) -> list[dict]:
    """Returns one entry a modality; ``ranges`` are [first, last] id of each level, ``tokens`` those of a clip."""
    from tasks.modalities import MODALITIES

    return [
        {
            "name": m.name,
            "of": m.paper_name,
            "time_dependent": m.time_dependent,
            "states": list(m.states),
            "rate": m.rate,
            "tokens": m.tokens_in(seconds),
            "ranges": [[r.start, r.start + r.size - 1] for r in vocabulary.stream_ranges(m.stream)],
            "back": m.back,
            "about": m.about,
        }
        for m in MODALITIES.values()
    ]


def _tables(summary: dict, vocabulary: "Vocabulary", seconds: float) -> list[str]:
    rows = [("task", "family", "weight", "given -> made")]
    for task in summary["tasks"]:
        arrow = f"{' + '.join(task['inputs'])} -> {' > '.join(task['outputs'])}"
        rows.append((task["name"], task["family"], f"{task['weight']:.4f}", arrow))
    lines = _columns(rows)
    rows = [_MODALITY_HEAD, *map(_modality_row, summary["modalities"])]
    lines += ["", *_columns(rows)]
    lines += ["", "ids of each level:"]
    for stream in dict.fromkeys(r.stream for r in vocabulary.ranges):
        ids = [f"{r.start:,}-{r.start + r.size - 1:,}" for r in vocabulary.stream_ranges(stream)]
        lines.append(f"  {stream:<10}  {'  '.join(ids)}")
    return [*lines, "", f"{vocabulary.total:,} ids, {len(summary['tasks'])} tasks, tokens of {seconds:g} s"]


_MODALITY_HEAD = ("modality", "of", "ids", "levels", "time", "states", "steps/s", "tokens", "read back as")


def _modality_row(m: dict) -> tuple[str, ...]:
    ranges, is_text = m["ranges"], m["tokens"] is None
    sizes = [last - first + 1 for first, last in ranges]
    same = len(set(sizes)) == 1
    return (
        m["name"],
        m["of"],
        f"{ranges[0][0]:,} - {ranges[-1][1]:,}" if ranges else "semantics + image",
        (f"{len(sizes)} x {sizes[0]:,}" if same else " + ".join(map(str, sizes))) if ranges else "",
        "dependent" if m["time_dependent"] else "invariant",
        ", ".join(m["states"]),
        "" if m["rate"] is None else f"{m['rate']:g}",
        "its own" if is_text else f"{m['tokens']:,}",
        m["back"],
    )


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown() -> str:
    """Returns the tables of docs/tasks.md: the modalities at the paper's scale, and the tasks of each family."""
    from tasks.registry import FAMILIES, TASKS

    seconds = 5.0
    vocabulary = preset_vocabulary("paper")
    lines = _markdown_table([_MODALITY_HEAD, *(_modality_row(m) for m in _modalities(vocabulary, seconds))])
    lines += ["", f"{vocabulary.total:,} ids; tokens of a clip of {seconds:g} s."]
    number = 0
    for family in FAMILIES:
        rows = [("", "task", "given", "made")]
        for task in TASKS:
            if task.family == family:
                number += 1
                given = " + ".join(_source(source) for source in task.inputs)
                rows.append((str(number), f"`{task.name}`", given, " > ".join(task.outputs)))
        lines += ["", f"### {family.capitalize()}: {len(rows) - 1}", "", *_markdown_table(rows)]
    return "\n".join(lines)


def _markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


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
    if task.outputs[-1] == "video":
        known = [*(source.modality for source in task.read), *task.outputs]
        reads = [name for name in ("semantics", "image", "description") if name in known]
        lines.append({"output": "video", "reads": f"{', '.join(reads)}: the decoder", "writes": "frames"})
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
