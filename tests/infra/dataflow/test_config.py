import re

import pytest

from infra.dataflow.config import PRESETS, beam_arguments, make_config
from models.errors import InputError

GIVEN = {
    "project": "my-project",
    "region": "us-central1",
    "temp": "gs://my-bucket/tmp",
    "image": "us-docker.pkg.dev/my-project/archon/worker:1",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("project", "My-Project"),
        ("project", "short"),
        ("region", "us_central1"),
        ("region", "us-central1-a"),
        ("temp", "bucket/tmp"),
        ("temp", "gs://Bucket/tmp"),
        ("temp", "gs://goog-x/tmp"),
        ("temp", "gs://10.0.0.1/tmp"),
        ("temp", "gs://a..b/tmp"),
        ("image", "us-docker.pkg.dev/my-project/archon/worker"),
        ("job_name", "Curate 1"),
        ("machine_type", "n2"),
        ("gpu", "l4"),
        ("service_account", "nobody"),
        ("subnetwork", "default"),
        ("disk_gb", 10),
        ("num_workers", 100),
        ("max_num_workers", 0),
    ],
)
def test_names_that_google_would_refuse_are_refused_here(field, value):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')} {re.escape(str(value))}"):
        make_config("cpu", **{**GIVEN, field: value})


def test_names_that_google_takes():
    for field, value in (
        ("project", "example.com:my-project-1"),
        ("region", "northamerica-northeast1"),
        ("temp", "gs://my.bucket_1-x"),
        ("image", "gcr.io/p/a/b@sha256:" + "0" * 64),
        ("job_name", "a"),
        ("machine_type", "n2-custom-4-16384"),
        ("subnetwork", "regions/us-central1/subnetworks/s"),
    ):
        assert getattr(make_config("cpu", **{**GIVEN, field: value}), field) == value


@pytest.mark.parametrize("missing", GIVEN)
def test_what_is_missing_is_named(missing):
    with pytest.raises(InputError, match=f"--{missing}: missing"):
        make_config("cpu", **{name: value for name, value in GIVEN.items() if name != missing})


def test_every_preset_is_sound_and_beam_knows_its_options():
    from apache_beam.options.pipeline_options import PipelineOptions

    for preset in PRESETS:
        arguments = beam_arguments(make_config(preset, **GIVEN, public_ips=False, service_account="a@b.iam"))
        options = PipelineOptions(arguments)
        known = options.get_all_options(drop_default=True)
        assert known["disk_size_gb"] >= 100 and known["sdk_location"] == "container"
        assert known["use_public_ips"] is False
        names = {argument[2:].partition("=")[0] for argument in arguments}
        # A name that Beam does not know would be dropped without a word.
        assert names - set(known) == {"no_use_public_ips"}


def test_one_process_a_machine_with_a_gpu():
    config = make_config("gpu", **GIVEN)
    hinted, plain = beam_arguments(config, hinted_gpu=True), beam_arguments(config)
    experiment, option = "--experiments=no_use_multiple_sdk_containers", "worker_accelerator=type:nvidia-l4;count:1"
    assert experiment in hinted and experiment in plain
    # Right fitting and a GPU on all workers exclude each other.
    assert option not in " ".join(hinted) and option in " ".join(plain)
    assert experiment not in beam_arguments(make_config("cpu", **GIVEN))
    with pytest.raises(InputError, match="FlexRS"):
        make_config("flexible", **GIVEN, gpu="nvidia-l4")
