"""``archon measure mixture``: the weights of the next run, from the perplexities of a baseline.

The paper samples task i in proportion to log(p_i) / N_m(i), with p_i of a baseline trained with uniform sampling. This
command measures p_i for every task on the held-out clips and writes the file that ``archon train language --tasks
FILE`` reads (``tasks.mixture`` says what is in it):

- ``tasks``, ``tasks_measured``: tasks in the registry, and those with held-out data that fits a row of the model;
- ``clips``, ``tokens``: held-out clips, and target tokens that were predicted;
- ``perplexity``: per token over all of them; ``perplexity_least``, ``perplexity_most``: of the easiest task and the
  hardest;
- ``weight_least``, ``weight_most``: share of the samples that the rarest and the most frequent task get.
"""

import argparse
import json
import math
from pathlib import Path

from infra.heldout import one_row_maker, row_progress
from models.errors import InputError

TARGETS: dict = {}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--model", type=Path, required=True, help="the baseline: a trained language model's directory")
    parser.add_argument("--dataset", type=Path, required=True, help="the dataset, for its held-out clips")
    parser.add_argument("--tokenizers", type=Path, required=True, help="the directory of the tokenizers' directories")
    parser.add_argument("--output", type=Path, required=True, help="the file of weights to write")
    parser.add_argument("--clips", type=int, default=32, help="most held-out clips (default: %(default)s)")


def measure(args: argparse.Namespace) -> dict:
    """Measures, prints a row a task, writes the file; returns the figures of the module's text.

    Raises:
        InputError: no language model, other tokenizers, no held-out clip, or a model whose likelihoods are not finite.
    """
    from infra.training.language_job import token_column
    from tasks.generate import load_language
    from tasks.loader import TokenRecords, heldout_batches
    from tasks.mixture import mixture_weights
    from tasks.perplexity import Hardness, hardness
    from tasks.registry import TASKS

    if args.clips < 1:
        raise InputError(f"--clips {args.clips}: expected at least 1")
    language = load_language(args.model, args.tokenizers)
    meta = json.loads((args.model / "model.json").read_text())
    column = token_column(args.dataset, meta["extra"]["tokenizers"], args.tokenizers)
    records = TokenRecords.of_split(column, "heldout", most=args.clips)
    if not len(records):
        raise InputError(f"{args.dataset}: no held-out clip with tokens; the dataset needs at least two sources")
    maker, layout = one_row_maker(language)
    batches = heldout_batches(records, maker, layout, limit=None)
    found = hardness(language.config, language.params, batches, TASKS, row_progress("mixture"))
    for name, task in found.items():
        if not math.isfinite(task.nll):
            raise InputError(
                f"{args.model}: {name}: a likelihood that is not finite; expected a model that has learned"
            )
    measured = {name: task.perplexity for name, task in found.items() if task.tokens}
    if not measured:
        raise InputError(f"{args.dataset}: no task of a held-out clip fits into rows of {language.length} tokens")
    weights = dict(zip(found, mixture_weights(TASKS, measured).tolist(), strict=True))
    uniform = _sampled_uniformly(meta["extra"].get("task_weights"), set(found))
    rows = {
        name: {"perplexity": task.perplexity, "tokens": task.tokens, "weight": weights[name]}
        for name, task in found.items()
    }
    _write(args, meta, uniform, len(records), rows)
    print("\n".join(_table(rows)))
    if not uniform:
        print(f"note: {args.model} was not trained with uniform sampling of these tasks, as the paper's baseline is")
    print(f"weights: {args.output}\n")
    total = Hardness(sum(task.nll for task in found.values()), sum(task.tokens for task in found.values()))
    return {
        "tasks": len(found),
        "tasks_measured": len(measured),
        "clips": len(records),
        "tokens": total.tokens,
        "perplexity": total.perplexity,
        "perplexity_least": min(measured.values()),
        "perplexity_most": max(measured.values()),
        "weight_least": min(weights.values()),
        "weight_most": max(weights.values()),
    }


def _sampled_uniformly(weights: dict[str, float] | None, names: set[str]) -> bool:
    return isinstance(weights, dict) and set(weights) == names and len(set(weights.values())) == 1


def _write(args: argparse.Namespace, meta: dict, uniform: bool, clips: int, rows: dict) -> None:
    """Writes the file under another name and renames it."""
    from models.io import write_file

    content = {
        "model": str(args.model),
        "weights_sha256": meta["weights_sha256"],
        "step": meta["extra"]["steps"],
        "uniform_baseline": uniform,
        "dataset": str(args.dataset),
        "clips": clips,
        "tasks": rows,
    }
    write_file(args.output, (json.dumps(content, indent=1) + "\n").encode())


def _table(rows: dict[str, dict]) -> list[str]:
    width = max(map(len, rows))
    lines = [f"{'task':<{width}}  {'perplexity':>10}  {'tokens':>8}  {'weight':>7}"]
    for name, row in rows.items():
        perplexity = "no data" if row["perplexity"] is None else f"{row['perplexity']:.4g}"
        lines.append(f"{name:<{width}}  {perplexity:>10}  {row['tokens']:>8,}  {row['weight']:>7.4f}")
    return lines
