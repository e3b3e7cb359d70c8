"""What a flex template's launcher starts: a data job, its parameters as the launcher gives them (metadata.json).

Parameters are ``--name=value``; one that is a list has commas. What is not a parameter of the job is an option of
Beam's and goes to Beam (project, region, template_location, ...). The launcher does not wait for the job: when it is
done, the job's plain command finds every shard done, closes the books and writes the manifest.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from infra.cli import build_parser
from infra.dataflow.config import JOBS
from models.errors import InputError
from pipelines.dry_run import DryRun

# Parameter -> the job's argument, and whether it is a list that becomes one argument each.
PARAMETERS = {
    "curate": {"input": ("--input", False), "output": ("--output", False), "landmarks": ("--landmarks", False)}
    | {"landmark_weights": ("--landmark-weights", False), "thresholds": ("--threshold", True)}
    | {"sources_per_shard": ("--sources-per-shard", False)},
    "annotate": {"dataset": ("--dataset", False), "columns": ("--columns", False), "backends": ("--backend", True)},
    "tokenize": {"dataset": ("--dataset", False), "tokenizers": ("--tokenizers", False)},
}
_COMMON = {"max_failures": ("--max-failures", False)}


def command(argv: Sequence[str]) -> list[str]:
    """Returns the `archon` command for what the launcher gave."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--job", choices=JOBS, required=True)
    names = {name for job in PARAMETERS.values() for name in job} | set(_COMMON)
    for name in sorted(names):
        parser.add_argument(f"--{name}")
    given, beam = parser.parse_known_args(argv)
    taken = {**PARAMETERS[given.job], **_COMMON}
    words = [given.job, "--runner", "dataflow"]
    for name in sorted(names):
        value = getattr(given, name)
        if not value:
            continue
        if name not in taken:
            parser.error(f"--{name} is not a parameter of {given.job}")
        flag, several = taken[name]
        for part in value.split(",") if several else [value]:
            words.append(f"{flag}={part}")
    return [*words, *(f"--beam-arg={word}" for word in beam)]


def main(argv: Sequence[str]) -> int:
    args = build_parser(argv[0]).parse_args(argv)
    try:
        importlib.import_module(f"pipelines.{args.command}").run(args)
    except DryRun as plan:
        print(f"handed over: {plan}", flush=True)
    except InputError as error:
        print(f"archon {args.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(command(sys.argv[1:])))
