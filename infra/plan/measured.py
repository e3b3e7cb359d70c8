"""The rates of `archon plan`: read from the markers and the manifest that the jobs of a dataset left.

A marker says how long one worker process took for a shard, on the clock and of the processor, and how much video that
was. So a plan follows the data, the backends and the machine that made the dataset. measured.json holds the rates of
one such dataset. Processor time is what other work on the machine does not change; a backend that waits for a service
needs the clock.
"""

import json
import platform
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from models.errors import InputError
from models.signals import VIDEO_FPS
from pipelines import storage
from pipelines.dataset import Dataset
from pipelines.state import state_path

DEFAULT = Path(__file__).with_name("measured.json")
SOURCE_HOURS, KEPT_HOURS = "hour of source video", "hour of clips"
JOBS = {"curate": SOURCE_HOURS, "annotate": KEPT_HOURS, "tokenize": KEPT_HOURS}


@dataclass(frozen=True)
class Rate:
    """``seconds``: of one worker process with one thread, for one ``per``. ``hours``: how much was measured.

    ``by``: "cpu" for processor time, "clock" for time on the clock.
    """

    stage: str
    seconds: float
    per: str
    hours: float
    by: str
    command: str


@dataclass(frozen=True)
class Measured:
    """``column_bytes``: column -> bytes an hour of clips. ``source_bytes``: an hour of source video, or None."""

    machine: str
    date: str
    dataset: str
    keep_share: float
    rates: tuple[Rate, ...]
    column_bytes: dict[str, float]
    source_bytes: float | None


def read_measured(path: str | Path = DEFAULT) -> Measured:
    try:
        values = json.loads(storage.read_bytes(path))
        return Measured(**{**values, "rates": tuple(Rate(**rate) for rate in values["rates"])})
    except FileNotFoundError:
        raise InputError(f"--rates {path}: no such file") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"--rates {path}: not what `archon plan --write-rates` writes ({error})") from None


def write_measured(path: str | Path, measured: Measured) -> None:
    storage.write_bytes(path, (json.dumps(asdict(measured), indent=1) + "\n").encode())


def measure(root: str, date: str, by: str = "cpu") -> Measured:
    """Reads a dataset's own rates. InputError if it was not curated, or kept nothing."""
    field = {"cpu": "cpu_seconds", "clock": "seconds"}[by]
    dataset = Dataset(root)
    manifest = dataset.manifest()
    markers = {job: _markers(root, job) for job in JOBS}
    curated = [marker for found in markers["curate"].values() for marker in found]
    hours = {
        SOURCE_HOURS: sum(marker["summary"]["video_seconds"] for marker in curated) / 3600,
        KEPT_HOURS: sum(marker["summary"]["clip_seconds"] for marker in curated) / 3600,
    }
    if not all(hours.values()):
        raise InputError(f"--from {root}: no hours to measure by; expected a dataset from which curate kept clips")
    rates = []
    for job, per in JOBS.items():
        for label, found in sorted(markers[job].items()):
            seconds = sum(marker[field] for marker in found)
            # Of annotate and tokenize what this run went through counts: rows that were used again took no time.
            frames = sum(marker["summary"].get("frames", 0) for marker in found)
            worked = hours[per] if job == "curate" else frames / VIDEO_FPS / 3600
            if not worked:
                continue
            stage = job if job != "annotate" else f"annotate {label}"
            option = "--output" if job == "curate" else "--dataset"
            backend = manifest["columns"].get(label, {}).get("producer", {}).get("backend")
            command = f"archon {job} {option} DATASET" + (f" (backend {backend})" if backend else "")
            rates.append(Rate(stage, round(seconds / worked, 1), per, round(worked, 5), by, command))
    columns = {
        name: round(sum(shard["size"] for shard in column["shards"]) / hours[KEPT_HOURS])
        for name, column in manifest["columns"].items()
    }
    return Measured(
        _machine(),
        date,
        Path(root).name,
        round(hours[KEPT_HOURS] / hours[SOURCE_HOURS], 4),
        tuple(rates),
        columns,
        _source_bytes(dataset),
    )


def _markers(root: str, job: str) -> dict[str, list[dict]]:
    """Step label -> the markers of its shards."""
    found = defaultdict(list)
    for path in storage.list_files(state_path(root, job, "*", "*-of-*.json")):
        marker = json.loads(storage.read_bytes(path))
        if {"seconds", "cpu_seconds", "summary"} <= marker.keys():
            found[path.split("/")[-2]].append(marker)
    return found


def _source_bytes(dataset: Dataset) -> float | None:
    """Bytes an hour of source video, from the table of sources; None if there is none."""
    import pyarrow.parquet

    size = seconds = 0.0
    for path in storage.list_files(dataset.path("sources/*.parquet")):
        with storage.local_copy(path) as local:
            for row in pyarrow.parquet.read_table(local, columns=["bytes", "seconds"]).to_pylist():
                if row["bytes"] and row["seconds"]:
                    size, seconds = size + row["bytes"], seconds + row["seconds"]
    return round(size / seconds * 3600) if seconds else None


def _machine() -> str:
    """The processor of this machine; rates are those of the machine that made the dataset, so measure there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"one core of {name}"
