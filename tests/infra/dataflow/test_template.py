"""The flex template: its metadata, and that what a launcher gives becomes a command the program takes."""

import json
import re
from pathlib import Path

import pytest

from infra.cli import build_parser
from infra.dataflow import template
from infra.dataflow.config import JOBS
from pipelines.stages.filters import FilterThresholds
from pipelines.stages.landmarks import BACKENDS

METADATA = json.loads((Path(template.__file__).parent / "metadata.json").read_text())
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}
EXAMPLES = {
    "input": "gs://b-1/videos/*.mp4",
    "output": "gs://b-1/dataset",
    "dataset": "gs://b-1/dataset",
    "tokenizers": "gs://b-1/models",
    "landmarks": "dlib",
    "landmark_weights": "/opt/archon/weights/face_landmarker.task",
    "thresholds": "min_face_size=128,max_turn=30",
    "sources_per_shard": "8",
    "columns": "script,speech",
    "backends": "speech=energy,semantics=geometry",
    "max_failures": "0.05",
    "sdk_container_image": "us-docker.pkg.dev/my-project/archon/worker:1",
}


def test_metadata_and_program_know_the_same_parameters():
    taken = {name for job in template.PARAMETERS.values() for name in job} | set(template._COMMON) | {"job"}
    taken |= {"sdk_container_image"}  # Beam's own, but without it workers would not have the package
    assert set(PARAMETERS) == taken
    for parameter in PARAMETERS.values():
        assert parameter["label"] and parameter["helpText"] and parameter["paramType"] == "TEXT"
        assert parameter["isOptional"] == (parameter["name"] not in ("job", "sdk_container_image"))
    [job] = PARAMETERS["job"]["regexes"]
    assert all(re.match(job, name) for name in JOBS) and not re.match(job, "report")


def test_regexes_take_what_is_meant_and_nothing_else():
    for name, value in EXAMPLES.items():
        [regex] = PARAMETERS[name]["regexes"]
        assert re.match(regex, value), name
        assert not re.match(regex, "rm -rf /; x y"), name
    assert all(re.match(PARAMETERS["landmarks"]["regexes"][0], backend) for backend in BACKENDS)
    assert {pair.split("=")[0] for pair in EXAMPLES["thresholds"].split(",")} <= set(
        FilterThresholds.__dataclass_fields__
    )


@pytest.mark.parametrize("job", JOBS)
def test_a_launchers_arguments_become_a_command(job):
    names = {**template.PARAMETERS[job], **template._COMMON}
    given = [f"--{name}={EXAMPLES[name]}" for name in names]
    beam = ["--project=p", "--template_location=gs://b/job", "--sdk_container_image=x:1"]
    words = template.command([f"--job={job}", *given, *beam])
    args = build_parser(job).parse_args(words)
    assert args.runner == "dataflow" and args.beam_arg == beam and args.max_failures == 0.05
    if job == "curate":
        assert args.input == [EXAMPLES["input"]] and args.threshold == ["min_face_size=128", "max_turn=30"]


def test_a_parameter_of_another_job_is_refused(capsys):
    with pytest.raises(SystemExit):
        template.command(["--job=tokenize", "--input=gs://b/*"])
    assert "--input is not a parameter of tokenize" in capsys.readouterr().err
