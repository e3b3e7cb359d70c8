"""``archon compile``: a training step compiled for a slice of TPUs, on a machine that has none.

The compiler of the ``libtpu`` package needs no TPU. It says how much memory a chip needs, and which collectives run; it
does not say how fast. The time of a step is an estimate: the operations of the model, counted from its sizes, over the
chips' peak at a utilisation that is given.
"""

import argparse
import os
import re
import time
from collections import Counter
from dataclasses import dataclass

from infra.training.jobs import LANGUAGE, PRESETS, parse_overrides
from models.errors import InputError

GIB = 2**30
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Chip:
    """A generation: memory that programs can use, GiB, and peak bfloat16 operations a second (public data sheets)."""

    memory: float
    peak: float


CHIPS = {
    "v6e": Chip(31.25, 918e12),
    "v5e": Chip(15.75, 197e12),
    "v5p": Chip(95.0, 459e12),
}
# Rows are split over 64 groups of 4 chips on the slice that the paper trained on; within a group, the vocabulary, the
# heads and the hidden units.
TENSOR = 4


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compile the training step for a slice of TPUs that need not be there: memory a chip, operations by part, "
        "collectives, and an estimate of the time of a step. Needs the tpu extra (libtpu)."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon compile language --preset paper --topology v6e:16x16
  archon compile language --preset paper --topology v6e:16x16 --mesh fsdp=256
  archon compile language --preset paper --topology v6e:2x2 --set rows=4 --set layers=2 --lower-only"""
    parser.add_argument("name", choices=[LANGUAGE], help="what to compile")
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--topology", default="v6e:16x16", metavar="NAME:AxB", help="the slice (default: v6e:16x16)")
    parser.add_argument(
        "--mesh",
        metavar="fsdp=N,tensor=N",
        help=f"how the chips are used (default: tensor={TENSOR}, fsdp the rest): see docs/training.md",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config field")
    parser.add_argument(
        "--utilisation", type=float, default=0.4, help="share of the peak, for the estimate (default: 0.4)"
    )
    parser.add_argument("--lower-only", action="store_true", help="trace and lower, and do not compile")


def topology_mesh(name: str, mesh: str | None):
    """Returns (chip generation, mesh of the slice's devices).

    Raises:
        InputError: no libtpu, an unknown slice, or a mesh that does not fit it.
    """
    generation, colon, shape = name.partition(":")
    if generation not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise InputError(
            f"--topology {name}: expected one of {', '.join(CHIPS)}, a colon and the slice's shape, as v6e:16x16"
        )
    # No TPU is asked for: the compiler works on a description of the slice. Set before jax is loaded.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise InputError(
            "archon compile: libtpu is not installed; expected the extra tpu: pip install -e '.[tpu]'"
        ) from None
    from jax.experimental import topologies

    from infra.training.placement import make_mesh, parse_mesh

    try:
        devices = topologies.get_topology_desc(topology_name=name, platform="tpu").devices
    except Exception as error:  # whatever libtpu says of a slice that there is none of
        raise InputError(f"--topology {name}: libtpu knows no such slice: {str(error).splitlines()[0]}") from error
    if mesh is None:
        tensor = TENSOR if len(devices) % TENSOR == 0 else 1
        mesh = f"fsdp={len(devices) // tensor},tensor={tensor}"
    return generation, make_mesh(parse_mesh(mesh), devices)


def collectives(text: str) -> dict[str, int]:
    """Counts the collectives of a compiled program; one in a loop counts once."""
    found = Counter(re.findall(rf"= [^=]*? ({'|'.join(COLLECTIVES)})(?:-start)?\(", text))
    return {name: found[name] for name in COLLECTIVES if found[name]}


def run(args: argparse.Namespace) -> dict:
    if not 0 < args.utilisation <= 1:
        raise InputError(f"--utilisation {args.utilisation:g}: expected above 0, at most 1")
    overrides = parse_overrides(args.set)
    generation, mesh = topology_mesh(args.topology, args.mesh)
    chip = CHIPS[generation]

    from infra.training.abstract import lower_language_step
    from infra.training.jobs import preset_config
    from infra.training.language_job import model_config, paper_vocabulary
    from models.language_flops import step_flops

    preset = preset_config("infra.presets.language", args.preset, overrides)
    vocabulary = paper_vocabulary()
    model = model_config(preset, vocabulary)
    flops = step_flops(model, preset.length, preset.wide)
    per_chip = preset.rows / mesh.size
    summary = {
        "name": args.name,
        "preset": args.preset,
        "topology": args.topology,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "vocabulary": vocabulary.total,
        "tokens_per_step": preset.rows * preset.length,
        "flops_per_step": flops.model * preset.rows,
        "flops_by_part": {
            "body": flops.body * preset.rows,
            "attention": flops.attention * preset.rows,
            "head": flops.head * preset.rows,
            "computed again": flops.again * preset.rows,
        },
        "head_flops_share": flops.head_share,
        "full_softmax_flops_share": flops.full_softmax_share,
        "utilisation": args.utilisation,
        "estimated_step_seconds": flops.model * per_chip / (chip.peak * args.utilisation),
    }
    print(f"{args.name}, preset {args.preset}: {mesh.size} chips {args.topology} as {dict(mesh.shape)}", flush=True)
    begin = time.monotonic()
    lowered = lower_language_step(preset, vocabulary, mesh)
    summary["lower_seconds"] = time.monotonic() - begin
    print(f"lowered in {summary['lower_seconds']:.1f} s", flush=True)
    if not args.lower_only:
        begin = time.monotonic()
        try:
            compiled = lowered.compile()
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(
                f"archon compile: the step does not fit {chip.memory} GiB a chip: {str(error).splitlines()[0]}; "
                "expected a mesh with more tensor parts, more parts of a batch (--set accumulate=N) or fewer rows"
            ) from error
        memory = compiled.memory_analysis()
        summary |= {
            "compile_seconds": time.monotonic() - begin,
            "peak_gib_per_chip": memory.peak_memory_in_bytes / GIB,
            "state_gib_per_chip": memory.argument_size_in_bytes / GIB,
            "hbm_gib_per_chip": chip.memory,
            "collectives": collectives(compiled.as_text()),
        }
    print(table(summary))
    return summary


def table(summary: dict) -> str:
    """Returns the summary as lines to read."""
    tera = 1e12 * summary["chips"]
    lines = [
        ("tokens a step", f"{summary['tokens_per_step']:,}"),
        ("vocabulary", f"{summary['vocabulary']:,}"),
        ("operations a chip and step", f"{summary['flops_per_step'] / tera:.1f} TFLOP, counted from the sizes"),
        *(
            (f"  {name}", f"{value / tera:.2f} TFLOP ({100 * value / summary['flops_per_step']:.1f} %)")
            for name, value in summary["flops_by_part"].items()
        ),
        ("  a full softmax's share", f"{100 * summary['full_softmax_flops_share']:.0f} %"),
    ]
    if "peak_gib_per_chip" in summary:
        lines += [
            ("peak memory a chip", f"{summary['peak_gib_per_chip']:.2f} of {summary['hbm_gib_per_chip']} GiB"),
            ("  parameters, moments, batch", f"{summary['state_gib_per_chip']:.2f} GiB"),
            ("collectives", ", ".join(f"{name} {count}" for name, count in summary["collectives"].items())),
            ("compiled in", f"{summary['compile_seconds']:.0f} s"),
        ]
    at = f"at {100 * summary['utilisation']:.0f} % of the peak: an estimate, not measured"
    lines.append(("time of a step", f"{summary['estimated_step_seconds']:.2f} s {at}"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)
