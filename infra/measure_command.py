"""``archon measure NAME``: the accuracy of one part against truth, as the table that the README quotes.

A measure is a module with ``register(parser)``, which adds its arguments, ``measure(args)``, which returns figures
(name -> number, in the order of the table), and ``TARGETS``: figure -> (">=" or "<=", number) for those that have one.
"""

import argparse
import importlib

# name -> (module, what it measures in one line)
MEASURES = {
    "corpus": (
        "pipelines.measure.corpus",
        "the embedded corpus: faces a detector finds, identities, labels that occur",
    ),
    "duplicates": (
        "pipelines.measure.duplicates",
        "near duplicates: planted copies of real moments that are found, and clips taken for copies that are none",
    ),
    "fits": (
        "pipelines.measure.fits",
        "3DMM fits: against the truth of synthetic clips, and against the landmarks of real ones",
    ),
    "learning": (
        "infra.measure_learning",
        "the language model: what the right condition is worth to each family of tasks, and lips that follow speech",
    ),
    "mixture": (
        "infra.measure_mixture",
        "the language model's tasks: held-out perplexity of each, and the weights file for the next run",
    ),
    "segmentation": (
        "pipelines.measure.segmentation",
        "the 21 classes: IoU on rendered people and with a face mesh on real clips, flicker, rate; the model card",
    ),
    "tracking": (
        "pipelines.measure.tracking",
        "faces followed between detections, against detection in every frame: boxes, landmarks, frames lost",
    ),
}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand a measure."""
    parser.description = "Measure one part against truth and print the table that the README quotes."
    parser.epilog = """examples:
  archon measure corpus --clips 24
  archon measure corpus --corpus W/videos --json
  archon measure mixture --model W/models/language --dataset W/dataset --tokenizers W/models --output weights.json"""
    names = parser.add_subparsers(dest="measure", metavar="NAME", required=True)
    for name, (module, about) in MEASURES.items():
        sub = names.add_parser(name, help=about, description=about, formatter_class=parser.formatter_class)
        importlib.import_module(module).register(sub)
        # The command's own two options may also stand after the measure's name.
        for option in ("--json", "--debug"):
            sub.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict:
    """Runs a measure and prints its table; returns measure, figures, targets."""
    module = importlib.import_module(MEASURES[args.measure][0])
    figures = module.measure(args)
    print("\n".join(table(figures, module.TARGETS)))
    targets = {name: " ".join(map(str, target)) for name, target in module.TARGETS.items()}
    return {"measure": args.measure, "figures": figures, "targets": targets}


def meets(value: float, target: tuple[str, float]) -> bool:
    """Returns whether a figure meets (">=" or "<=", number); a NaN meets nothing."""
    sign, bound = target
    return value >= bound if sign == ">=" else value <= bound


def table(figures: dict, targets: dict) -> list[str]:
    """Returns the lines of a Markdown table of figures and, where there is one, target and whether it is met."""
    lines = ["| figure | value | target | met |", "|---|---|---|---|"]
    for name, value in figures.items():
        target = targets.get(name)
        goal, met = (" ".join(map(str, target)), "yes" if meets(value, target) else "NO") if target else ("", "")
        lines.append(f"| {name} | {value:.5g} | {goal} | {met} |")
    return lines
