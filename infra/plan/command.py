"""The command `archon plan`: what it takes to run the data jobs over a corpus, from measured rates and a price file.

Every figure says where it comes from: a rate that a dataset's own markers hold, an option, or the price file. The plan
is of the data jobs (curate, annotate, tokenize); training is not in it.
"""

import argparse
import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from infra.plan.measured import KEPT_HOURS, SOURCE_HOURS, Measured, measure, read_measured, write_measured
from infra.plan.prices import Prices, read_prices
from models.errors import InputError

GB = 1e9


@dataclass(frozen=True)
class PlanConfig:
    """``hours``: of source video. ``keep_share``: hours of clips from an hour of source; None: as measured.

    ``speed``: of one virtual CPU against one core of the measured machine. ``overhead``: share of time that goes to
    starting, waiting and doing again. ``gpu_factors``: stage -> how much faster it is with a GPU, as you say.
    """

    hours: float = 6000.0
    keep_share: float | None = None
    machine_type: str = "n2-standard-4"
    vcpus: int | None = None  # None: the number in the machine type's name
    memory_gb: float | None = None  # None: 4 GB a virtual CPU
    disk_gb: float = 100.0
    workers: int = 50
    speed: float = 1.0
    overhead: float = 0.15
    months: float = 1.0
    gpu: str | None = None
    gpu_factors: tuple[tuple[str, float], ...] = ()


PRESETS = {
    "pilot": PlanConfig(hours=100.0, workers=10),
    # The paper's corpus is 6,000 hours.
    "paper": PlanConfig(hours=6000.0, workers=100, machine_type="n2-standard-8", disk_gb=200.0),
}


@dataclass(frozen=True)
class StagePlan:
    stage: str
    cpu_hours: float
    worker_hours: float
    wall_hours: float
    cost: float
    source: str
    gpu: bool = False


@dataclass(frozen=True)
class StoragePlan:
    what: str
    gb: float
    cost: float  # for all months
    source: str


def check(config: PlanConfig) -> None:
    for name, least in (("hours", 0), ("speed", 0), ("months", 0), ("overhead", -1), ("workers", 0), ("disk_gb", 0)):
        if not (math.isfinite(getattr(config, name)) and getattr(config, name) > least):
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected a number above {least}")
    if config.overhead < 0:
        raise InputError(f"--overhead {config.overhead}: expected a share, 0 or more")
    if config.keep_share is not None and not 0 < config.keep_share <= 1:
        raise InputError(f"--keep-share {config.keep_share}: expected a share above 0, at most 1")
    if config.gpu_factors and not config.gpu:
        raise InputError("--gpu-stage: needs --gpu TYPE")
    machine_of(config)


def machine_of(config: PlanConfig) -> tuple[int, float]:
    """Returns virtual CPUs and GB of memory of a worker."""
    vcpus = config.vcpus
    if vcpus is None:
        match = re.fullmatch(r"[a-z0-9]+-[a-z]+-(\d+)", config.machine_type)
        if not match:
            raise InputError(f"--machine-type {config.machine_type}: its name has no number of CPUs; give --vcpus")
        vcpus = int(match[1])
    if vcpus < 1:
        raise InputError(f"--vcpus {vcpus}: expected at least 1")
    return vcpus, config.memory_gb if config.memory_gb is not None else 4.0 * vcpus


def plan_stages(config: PlanConfig, measured: Measured, prices: Prices) -> list[StagePlan]:
    """CPU hours = hours of video x seconds per hour / 3600 / speed x (1 + overhead).

    A worker hour is ``vcpus`` of them, an hour on the clock ``workers`` worker hours.
    """
    vcpus, memory = machine_of(config)
    keep = config.keep_share if config.keep_share is not None else measured.keep_share
    hours = {SOURCE_HOURS: config.hours, KEPT_HOURS: config.hours * keep}
    factors = dict(config.gpu_factors)
    unknown = factors.keys() - {rate.stage for rate in measured.rates}
    if unknown:
        stages = ", ".join(rate.stage for rate in measured.rates)
        raise InputError(f"--gpu-stage {sorted(unknown)[0]}: no such stage; the rates have {stages}")
    if config.gpu and config.gpu not in prices.gpu_hour:
        raise InputError(f"--gpu {config.gpu}: no price; gpu_hour has {', '.join(prices.gpu_hour) or 'none'}")
    worker_hour = vcpus * prices.vcpu_hour + memory * prices.memory_gb_hour + config.disk_gb * prices.disk_gb_hour
    out = []
    for rate in measured.rates:
        gpu = rate.stage in factors
        cpu = hours[rate.per] * rate.seconds / 3600 / config.speed * (1 + config.overhead)
        source = f"measured: {rate.seconds:g} {rate.by} s per {rate.per}, on {rate.hours * 60:.2f} min; {rate.command}"
        if gpu:
            cpu /= factors[rate.stage]
            source += f"; {factors[rate.stage]:g} times faster with a GPU, as given by --gpu-stage"
        worker = cpu / vcpus
        price = worker_hour + (prices.gpu_hour[config.gpu] if gpu else 0.0)
        out.append(StagePlan(rate.stage, cpu, worker, worker / config.workers, worker * price, source, gpu))
    return out


def plan_storage(config: PlanConfig, measured: Measured, prices: Prices) -> list[StoragePlan]:
    keep = config.keep_share if config.keep_share is not None else measured.keep_share
    price = prices.storage_gb_month * config.months
    out = []
    if measured.source_bytes is not None:
        gb = measured.source_bytes * config.hours / GB
        source = f"measured: {measured.source_bytes / GB:.3g} GB per {SOURCE_HOURS}"
        out.append(StoragePlan("source videos", gb, gb * price, source))
    for column, size in measured.column_bytes.items():
        gb = size * config.hours * keep / GB
        out.append(StoragePlan(column, gb, gb * price, f"measured: {size / 1e6:.4g} MB per {KEPT_HOURS}"))
    return out


def make_plan(config: PlanConfig, measured: Measured, prices: Prices) -> dict:
    """Returns the whole plan as plain values: stages, storage, totals, assumptions."""
    check(config)
    stages, stores = plan_stages(config, measured, prices), plan_storage(config, measured, prices)
    vcpus, memory = machine_of(config)
    keep = config.keep_share if config.keep_share is not None else measured.keep_share
    network_gb = sum(item.gb for item in stores if item.what == "source videos")
    costs = {
        "compute": sum(item.cost for item in stages),
        "storage": sum(item.cost for item in stores),
        "network": network_gb * prices.network_gb,
    }
    origin = "as measured" if config.keep_share is None else "as given by --keep-share"
    assumptions = [
        f"rates are of {measured.machine}, {measured.date}, dataset {measured.dataset}; one worker process, one thread",
        f"one virtual CPU of a worker does what that core does, times {config.speed:g} (--speed)",
        f"{config.overhead:.0%} of time on top for starting, waiting and doing again (--overhead): assumed",
        f"{keep:.4g} hours of clips from an hour of source video ({origin})",
        f"a worker has {vcpus} virtual CPUs, {memory:g} GB of memory, {config.disk_gb:g} GB of disk, all of them busy",
        f"{config.workers} workers at a time from the first minute to the last (--workers)",
        f"storage for {config.months:g} months (--months)",
        "small datasets overstate rates (models load, programs compile) and bytes (a shard has at least 128 KiB)",
        "prices: " + ("checked, " if prices.checked else "PLACEHOLDERS that nobody checked, ") + prices.source,
        "not in the plan: training, requests to storage, egress out of the region, people",
    ]
    return {
        "hours": config.hours,
        "clip_hours": config.hours * keep,
        "machine_type": config.machine_type,
        "workers": config.workers,
        "stages": [asdict(item) for item in stages],
        "storage": [asdict(item) for item in stores],
        "worker_hours": sum(item.worker_hours for item in stages),
        "wall_hours": sum(item.wall_hours for item in stages),
        "storage_gb": sum(item.gb for item in stores),
        "costs": costs,
        "cost": sum(costs.values()),
        "currency": prices.currency,
        "prices_checked": prices.checked,
        "assumptions": assumptions,
    }


def lines_of(plan: dict) -> list[str]:
    """The plan as a table for a person."""
    money = plan["currency"]
    out = [
        f"{plan['hours']:,.0f} hours of source video, {plan['clip_hours']:,.0f} hours of clips, "
        f"{plan['workers']} workers {plan['machine_type']}",
        "",
        f"{'stage':<22}{'CPU hours':>12}{'worker hours':>14}{'wall hours':>12}{money:>12}  from",
    ]
    for item in plan["stages"]:
        name = item["stage"] + (" (GPU)" if item["gpu"] else "")
        figures = f"{item['cpu_hours']:>12,.1f}{item['worker_hours']:>14,.1f}{item['wall_hours']:>12,.2f}"
        out.append(f"{name:<22}{figures}{item['cost']:>12,.2f}  {item['source']}")
    cpu = sum(item["cpu_hours"] for item in plan["stages"])
    figures = f"{cpu:>12,.1f}{plan['worker_hours']:>14,.1f}{plan['wall_hours']:>12,.2f}"
    out += [f"{'all stages':<22}{figures}{plan['costs']['compute']:>12,.2f}", ""]
    out.append(f"{'storage':<22}{'GB':>12}{'':>26}{money:>12}  from")
    for item in plan["storage"]:
        out.append(f"{item['what']:<22}{item['gb']:>12,.2f}{'':>26}{item['cost']:>12,.2f}  {item['source']}")
    out.append(f"{'all columns':<22}{plan['storage_gb']:>12,.2f}{'':>26}{plan['costs']['storage']:>12,.2f}")
    if plan["costs"]["network"]:
        out.append(f"{'network':<60}{plan['costs']['network']:>12,.2f}  source videos, once")
    unchecked = "" if plan["prices_checked"] else "  (prices are placeholders: set your own with --prices)"
    out += ["", f"{'total':<60}{plan['cost']:>12,.2f} {money}{unchecked}", "", "assumptions"]
    return [*out, *(f"  - {text}" for text in plan["assumptions"])]


# --- The command ---


def _stage_factor(text: str) -> tuple[str, float]:
    stage, separator, factor = text.rpartition("=")
    try:
        value = float(factor)
    except ValueError:
        value = 0.0
    if not separator or not stage or not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected STAGE=FACTOR, like curate=4")
    return stage, value


_OPTIONS: Sequence[tuple[str, type, str]] = (
    ("hours", float, "hours of source video"),
    ("keep-share", float, "hours of clips from an hour of source (default: as measured)"),
    ("machine-type", str, "machine of a worker"),
    ("vcpus", int, "its virtual CPUs (default: the number in its name)"),
    ("memory-gb", float, "its memory (default: 4 GB a virtual CPU)"),
    ("disk-gb", float, "its disk"),
    ("workers", int, "workers at a time"),
    ("speed", float, "a virtual CPU's speed against the measured core"),
    ("overhead", float, "share of time on top"),
    ("months", float, "months of storage"),
    ("gpu", str, "accelerator of the stages that --gpu-stage names"),
)


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Machines, hours, storage and cost of the data jobs over a corpus, from measured rates."
    parser.epilog = """examples:
  archon plan --hours 6000 --preset paper
  archon plan --hours 6000 --preset paper --from dataset --prices my-prices.toml --workers 200
  archon plan --hours 500 --gpu nvidia-l4 --gpu-stage curate=4
  archon plan --from dataset --write-rates rates.json"""
    parser.add_argument("--preset", choices=tuple(PRESETS), default="paper", help="default: %(default)s")
    for flag, kind, text in _OPTIONS:
        parser.add_argument(f"--{flag}", type=kind, help=text)
    parser.add_argument(
        "--gpu-stage",
        action="append",
        default=[],
        type=_stage_factor,
        metavar="STAGE=FACTOR",
        help="a stage that uses the GPU and how much faster that makes it; may be repeated",
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--from", dest="dataset", metavar="DATASET", help="take rates and sizes from this dataset")
    rates.add_argument("--rates", metavar="FILE", help="take them from a file that --write-rates wrote")
    parser.add_argument(
        "--by",
        choices=("cpu", "clock"),
        default="cpu",
        help="with --from: processor time, or time on the clock where backends wait for a service (default: cpu)",
    )
    parser.add_argument("--write-rates", metavar="FILE", help="write the rates that the plan used")
    parser.add_argument("--prices", metavar="FILE", help="your price file (default: infra/plan/prices.toml)")


def run(args: argparse.Namespace) -> dict:
    given = {flag.replace("-", "_"): getattr(args, flag.replace("-", "_")) for flag, _, _ in _OPTIONS}
    values = {**vars(PRESETS[args.preset]), **{name: value for name, value in given.items() if value is not None}}
    config = PlanConfig(**{**values, "gpu_factors": tuple(args.gpu_stage)})
    if args.dataset:
        measured = measure(args.dataset, datetime.date.today().isoformat(), args.by)
    else:
        measured = read_measured(args.rates) if args.rates else read_measured()
    if args.write_rates:
        write_measured(args.write_rates, measured)
    plan = make_plan(config, measured, read_prices(args.prices) if args.prices else read_prices())
    print(*lines_of(plan), sep="\n", flush=True)
    return plan
