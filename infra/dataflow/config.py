"""How a job runs on Google Cloud Dataflow: the settings, what we recommend for them, and the options Beam gets."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import InputError

JOBS = ("curate", "annotate", "tokenize")

# Google's rules for names: field -> (pattern, what it says in words).
RULES = {
    "project": (
        r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first",
    ),
    "region": (r"[a-z]+(-[a-z]+)+[0-9]+", "a region like us-central1"),
    "image": (
        r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})",
        "an image with its tag or digest, like us-docker.pkg.dev/PROJECT/archon/worker:1",
    ),
    "job_name": (r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and hyphens, a letter first"),
    "machine_type": (r"[a-z][a-z0-9]*(-[a-z0-9]+)+", "a machine type like n2-standard-4"),
    "gpu": (r"nvidia-[a-z0-9-]+", "an accelerator type like nvidia-l4"),
    "service_account": (r"[^@\s]+@[a-z0-9.-]+", "the e-mail address of a service account"),
    "subnetwork": (
        r"(https://\S+/)?(projects/\S+/)?regions/[a-z0-9-]+/subnetworks/[a-z0-9-]+",
        "regions/R/subnetworks/S",
    ),
}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True)
class DataflowConfig:
    """Where and on which machines a job runs. The defaults are those of the preset ``cpu``.

    A shard is read and written by one process, and its videos, clips and parts lie on the worker's disk meanwhile:
    Dataflow's own 25 GB with the shuffle service are too few. Workers run one shard a process and one process a
    virtual CPU; the stages use one thread each (the image says so to BLAS and XLA). With a GPU it is one process a
    machine, because every process would load its own copy of the models onto the one GPU; its threads share one.
    """

    project: str
    region: str
    temp: str  # gs:// folder for Dataflow's own files
    image: str  # made from infra/dataflow/Dockerfile
    job_name: str = "archon"
    machine_type: str = "n2-standard-4"  # 4 GB a virtual CPU: what the largest stage needs
    disk_gb: int = 100
    num_workers: int = 4
    max_num_workers: int = 50
    threads: int = 1  # shards at a time in one process
    gpu: str | None = None
    flexible: bool = False  # FlexRS: cheaper, starts within hours, no resource hints
    service_account: str | None = None
    subnetwork: str | None = None
    public_ips: bool = True

    def accelerator(self) -> str | None:
        """The GPU as a Beam resource hint and as a service option."""
        return f"type:{self.gpu};count:1;install-nvidia-driver" if self.gpu else None


# What differs from the defaults, by kind of job.
PRESETS: Mapping[str, Mapping[str, object]] = {
    "cpu": {},
    # Landmarks, segmenter, Whisper, SyncNet on a GPU: eight shards share one.
    "gpu": {"machine_type": "g2-standard-8", "gpu": "nvidia-l4", "threads": 8, "disk_gb": 200, "max_num_workers": 20},
    # Not in a hurry.
    "flexible": {"flexible": True, "machine_type": "n2-standard-8", "disk_gb": 200},
}


def make_config(preset: str, **given) -> DataflowConfig:
    """Returns a preset with what was given (None is not given), checked. InputError names the flag that is wrong."""
    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: expected one of {', '.join(PRESETS)}")
    names = {field.name for field in dataclasses.fields(DataflowConfig)}
    values = {**PRESETS[preset], **{name: value for name, value in given.items() if value is not None}}
    for name in ("project", "region", "temp", "image"):
        if name not in values:
            raise InputError(f"--{name}: missing; {RULES.get(name, ('', 'expected gs://BUCKET/FOLDER'))[1]}")
    config = DataflowConfig(**{name: value for name, value in values.items() if name in names})
    check_config(config)
    return config


def check_bucket(flag: str, path: str) -> None:
    """Raises InputError unless ``path`` is gs:// with a bucket that Google would allow to exist."""
    if not path.startswith("gs://"):
        raise InputError(f"{flag} {path}: expected a gs:// path; workers cannot see this machine's disk")
    bucket = path[len("gs://") :].partition("/")[0]
    longest = max(map(len, bucket.split(".")))
    if (
        not _BUCKET.fullmatch(bucket)
        or longest > 63
        or bucket.startswith("goog")
        or "google" in bucket
        or ".." in bucket
        or re.fullmatch(r"\d+(\.\d+){3}", bucket)
    ):
        raise InputError(
            f"{flag} {path}: {bucket!r} cannot be a bucket: 3 to 63 lower-case letters, digits, hyphens and "
            "underscores, a letter or digit first and last, not beginning with goog, without google"
        )


def check_config(config: DataflowConfig) -> None:
    for name, (pattern, words) in RULES.items():
        value = getattr(config, name)
        if value is not None and not re.fullmatch(pattern, value):
            raise InputError(f"--{name.replace('_', '-')} {value}: expected {words}")
    check_bucket("--temp", config.temp)
    for name, least, most in (
        ("disk_gb", 30, 64000),
        ("num_workers", 1, 4000),
        ("max_num_workers", 1, 4000),
        ("threads", 1, 500),
    ):
        if not least <= getattr(config, name) <= most:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected {least} to {most}")
    if config.num_workers > config.max_num_workers:
        raise InputError(f"--num-workers {config.num_workers}: more than --max-num-workers {config.max_num_workers}")
    if config.flexible and config.gpu:
        raise InputError(f"--gpu {config.gpu}: not with --preset flexible; FlexRS takes no resource hints")


def beam_arguments(config: DataflowConfig, hinted_gpu: bool = False) -> list[str]:
    """Returns the options that Beam's DataflowRunner gets, in order.

    ``hinted_gpu``: steps ask for the GPU by resource hint themselves; then not every worker gets one.
    """
    temp = config.temp.rstrip("/")
    arguments = [
        f"--project={config.project}",
        f"--region={config.region}",
        f"--job_name={config.job_name}",
        f"--temp_location={temp}/temp",
        f"--staging_location={temp}/staging",
        # The image holds the package and all that it needs: nothing is staged or installed when a worker starts.
        f"--sdk_container_image={config.image}",
        "--sdk_location=container",
        f"--machine_type={config.machine_type}",
        f"--disk_size_gb={config.disk_gb}",
        f"--num_workers={config.num_workers}",
        f"--max_num_workers={config.max_num_workers}",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
        f"--number_of_worker_harness_threads={config.threads}",
        "--experiments=use_runner_v2",
        "--experiments=shuffle_mode=service",
    ]
    if config.gpu:
        arguments.append("--experiments=no_use_multiple_sdk_containers")
        if not hinted_gpu:
            arguments.append(f"--dataflow_service_options=worker_accelerator={config.accelerator()}")
    if config.flexible:
        arguments.append("--flexrs_goal=COST_OPTIMIZED")
    if config.service_account:
        arguments.append(f"--service_account_email={config.service_account}")
    if config.subnetwork:
        arguments.append(f"--subnetwork={config.subnetwork}")
    if not config.public_ips:
        arguments.append("--no_use_public_ips")
    return arguments
