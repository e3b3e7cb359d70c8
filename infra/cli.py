"""The `archon` command: a table of names to modules, each imported only when its command is called.

A command module offers ``register(parser)``, which declares arguments, and ``run(args)``, which does the work and
returns the summary that ``--json`` prints on the last line. Exit status: 0 done, 1 failed (also when the summary says
``"ok": False``), 2 bad usage or bad input.
"""

import argparse
import glob
import hashlib
import importlib
import json
import os
import platform
import sys
import traceback
from collections.abc import Sequence

from models.errors import InputError

# name -> (module, what it does in one line)
COMMANDS = {
    "demo": ("infra.demo", "the main job: raw videos to a generated talking video, every stage"),
    "synthesize": ("pipelines.synthesize", "render the embedded corpus: talking heads with speech and ground truth"),
    "curate": ("pipelines.curate", "videos to head-centric clips"),
    "annotate": ("pipelines.annotate", "clips to one aligned column per modality"),
    "tokenize": ("pipelines.tokenize", "columns to token records"),
    "dataflow": ("infra.dataflow.launch", "curate, annotate or tokenize on Google Cloud Dataflow"),
    "duplicates": ("pipelines.duplicates", "clips that show or sound the same moment, and which of them to keep"),
    "report": ("pipelines.report", "the data-quality report"),
    "verify": ("pipelines.verify", "every shard of a dataset against its manifest: sizes, counts, hashes, records"),
    "inspect": ("pipelines.inspect", "contact sheets and overlays of clips, every modality as files"),
    "plan": ("infra.plan.command", "machines, hours, storage and cost of the data jobs, from measured rates"),
    "train": ("infra.training.command", "one training job, resumable"),
    "compile": (
        "infra.compile_command",
        "a training step compiled for a slice of TPUs: memory, operations, collectives",
    ),
    "measure": ("infra.measure_command", "accuracy of one part against truth: the tables that the README quotes"),
    "tasks": ("infra.tasks_command", "the language model's tasks, one example serialised"),
    "generate": ("infra.generate_command", "any modality from any other"),
}


def build_parser(name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archon",
        description="From raw monologue videos to generated talking videos.",
        epilog="\n".join(f"  {command:<12}{text}" for command, (_, text) in COMMANDS.items())
        + "\n\n`archon COMMAND --help` shows a command's arguments and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (module, text) in COMMANDS.items():
        sub = commands.add_parser(command, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if command == name:
            importlib.import_module(module).register(sub)
            sub.add_argument("--json", action="store_true", help="print one JSON summary on the last line")
            sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles for longer than a second, so that worker processes and later runs load it.

    In ``$XDG_CACHE_HOME/archon`` (``~/.cache/archon``), a folder for each kind of processor: a program that was
    compiled for one may not run on another. A folder that is set already (``JAX_COMPILATION_CACHE_DIR``) stays.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    try:
        with open("/proc/cpuinfo") as file:
            kind = "".join(sorted({line for line in file if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        kind = platform.processor() + platform.machine()
    folder = os.path.join(home, "archon", "compiled", hashlib.sha256(kind.encode()).hexdigest()[:12])
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)


def quiet_where_there_is_no_tpu() -> None:
    """Keeps libtpu, where it is installed for `archon compile` alone, from asking around for TPUs and complaining."""
    if not glob.glob("/dev/accel*") and not glob.glob("/dev/vfio/[0-9]*"):
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v6e-1")


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in argv if word in COMMANDS), None)
    # Quiet before anything imports them: libraries that greet on standard error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    keep_compiled_programs()
    quiet_where_there_is_no_tpu()
    args = build_parser(name).parse_args(argv)
    try:
        summary = importlib.import_module(COMMANDS[args.command][0]).run(args)
    except InputError as error:
        return _failed(args, error, 2)
    except KeyboardInterrupt:
        print("archon: stopped; the same command continues from here", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Who read our output has seen enough (``| head``). Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _failed(args, error, 1)
    if args.json:
        print(json.dumps(summary, sort_keys=True, default=str), flush=True)
    return 1 if isinstance(summary, dict) and summary.get("ok") is False else 0


def _failed(args: argparse.Namespace, error: Exception, status: int) -> int:
    if args.debug or (status == 1 and not isinstance(error, InputError)):
        traceback.print_exception(error)
    print(f"archon {args.command}: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
