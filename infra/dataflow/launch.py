"""The command `archon dataflow`: a data job on Google Cloud Dataflow, or with --dry-run what it would be.

The settings are checked by Google's rules, the job's graph is built here and looked at, and only then is it submitted.
The command waits for the job and then closes the books and writes the manifest, as it does on any runner; killed and
called again, it goes on with the shards that are not done.
"""

import argparse
import importlib
from collections.abc import Sequence

from infra.dataflow.config import JOBS, PRESETS, DataflowConfig, beam_arguments, check_bucket, make_config
from infra.dataflow.graph import build_graph, check_graph, look_at, report_lines
from models.errors import InputError
from pipelines.dry_run import DryRun

_PATHS = ("output", "dataset", "tokenizers")  # arguments that workers read and write
_FIELDS = (
    ("project", str, "Google Cloud project"),
    ("region", str, "region of the job, best the bucket's own"),
    ("temp", str, "gs:// folder for Dataflow's own files"),
    ("image", str, "container image of the workers (docs/dataflow.md says how to build it)"),
    ("job-name", str, "name of the job (default: archon-JOB)"),
    ("machine-type", str, "machine of a worker"),
    ("disk-gb", int, "disk of a worker"),
    ("num-workers", int, "workers to begin with"),
    ("max-num-workers", int, "workers at most"),
    ("threads", int, "shards at a time in one process"),
    ("gpu", str, "accelerator type, like nvidia-l4"),
    ("service-account", str, "e-mail of the workers' service account"),
    ("subnetwork", str, "regions/R/subnetworks/S"),
)


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs a data job on Google Cloud Dataflow. Everything after the job's name is as for the job itself, and where "
        "and on which machines it runs."
    )
    parser.epilog = """examples:
  archon dataflow curate --input 'gs://bucket/videos/*.mp4' --output gs://bucket/dataset --project my-project \\
    --region us-central1 --temp gs://bucket/tmp --image us-docker.pkg.dev/my-project/archon/worker:1 --dry-run
  archon dataflow annotate --dataset gs://bucket/dataset --preset gpu --max-num-workers 20 --project my-project \\
    --region us-central1 --temp gs://bucket/tmp --image us-docker.pkg.dev/my-project/archon/worker-gpu:1"""
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    for name in JOBS:
        job = jobs.add_parser(name, help=f"archon {name}, on Dataflow", formatter_class=parser.formatter_class)
        importlib.import_module(f"pipelines.{name}").register(job)
        job.set_defaults(runner="dataflow")
        group = job.add_argument_group("Dataflow")
        group.add_argument("--preset", choices=tuple(PRESETS), default="cpu", help="default: %(default)s")
        for flag, kind, text in _FIELDS:
            group.add_argument(f"--{flag}", type=kind, help=text)
        group.add_argument("--no-public-ips", action="store_true", help="workers without addresses of their own")
        group.add_argument("--dry-run", action="store_true", help="check, build the graph, print it, submit nothing")
        for flag in ("--json", "--debug"):
            job.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict:
    if args.runner != "dataflow":
        raise InputError(f"--runner {args.runner}: `archon dataflow` runs on Dataflow; use `archon {args.job}`")
    config = config_of(args)
    for name in _PATHS:
        if getattr(args, name, None) is not None:
            check_bucket(f"--{name}", getattr(args, name))
    for path in getattr(args, "input", ()):
        # A list of videos may lie here: it is read here.
        if not path.lower().endswith((".txt", ".lst", ".list")):
            check_bucket("--input", path)
    hinted = "accelerator" in args and config.gpu is not None
    if hinted and not args.accelerator:
        args.accelerator = config.accelerator()
    args.beam_arg = [*beam_arguments(config, hinted), *args.beam_arg]
    if not args.dry_run:
        return importlib.import_module(f"pipelines.{args.job}").run(args)
    try:
        importlib.import_module(f"pipelines.{args.job}").run(args)
    except DryRun as plan:
        return dry_run(plan, args.beam_arg)
    raise RuntimeError(f"{args.job} did not come to its shards")


def config_of(args: argparse.Namespace) -> DataflowConfig:
    given = {flag.replace("-", "_"): getattr(args, flag.replace("-", "_")) for flag, _, _ in _FIELDS}
    given["job_name"] = given["job_name"] or f"archon-{args.job}"
    return make_config(args.preset, **given, public_ips=False if args.no_public_ips else None)


def dry_run(plan: DryRun, arguments: Sequence[str]) -> dict:
    """Prints the options and the graph of what would run; returns the same for ``--json``."""
    print("options:", *arguments, sep="\n  ", flush=True)
    graph = look_at(build_graph(plan.job, plan.root, plan.steps, plan.tasks, arguments), plan.tasks)
    print(*report_lines(graph), sep="\n", flush=True)
    check_graph(graph, plan.steps)
    print("nothing was submitted", flush=True)
    return {
        "job": plan.job,
        "options": list(arguments),
        "graph_bytes": graph.bytes,
        "shards": graph.tasks,
        "largest_element_bytes": graph.largest_element,
        "shuffles": len(graph.shuffles),
        "hints": {step.name: step.hints for step in graph.steps if step.hints},
        "submitted": False,
    }
