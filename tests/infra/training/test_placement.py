import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from infra.training.placement import Placement, join_processes, make_mesh, parse_mesh
from models.errors import InputError
from models.io import load_model

ROOT = Path(__file__).resolve().parents[3]


def with_devices(count: int, *command: str, **options) -> subprocess.CompletedProcess:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, **options
    )


@pytest.fixture(scope="module")
def on_meshes() -> dict:
    done = with_devices(8, "-m", "tests.infra.training.meshes")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_loss_and_gradient_are_the_same_on_every_mesh(on_meshes):
    assert {name for name in on_meshes} >= {f"even {n}x{8 // n}" for n in (1, 2, 4, 8)} | {"odd 2x4"}
    for name, found in on_meshes.items():
        alone = on_meshes[f"{name.split()[0]} 1x1"]
        assert found["loss"] == pytest.approx(alone["loss"], abs=1e-5), name
        assert found["off"] < 1e-5, name


@pytest.mark.slow
def test_parameters_lie_in_pieces(on_meshes):
    for name, found in on_meshes.items():
        sizes = [int(n) for n in name.split()[1].split("x")]
        assert found["pieces"] == np.prod(sizes), name


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(tmp_path):
    """Stopped on eight devices, finished on two, against a run on one: the same batches, and losses up to rounding."""
    done = with_devices(8, "-m", "tests.infra.training.resume_on_another_mesh", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "on 8 devices (fsdp=4,tensor=2)" in done.stderr and "on 2 devices (fsdp=1,tensor=2)" in done.stderr
    both = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
            if "steps_per_second" in line
        ]
        for name in ("moved", "alone")
    ]
    assert len(both[0]) == 4
    np.testing.assert_allclose(*both, rtol=1e-4)
    params = [load_model(tmp_path / name)[2] for name in ("moved", "alone")]
    for left, right in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-4)
    assert json.loads((tmp_path / "moved" / "done.json").read_text())["compilations"] == 1


@pytest.mark.slow
def test_two_processes_train_one_model_and_stop_together(tmp_path):
    """Each with a device and a half of the records; SIGTERM to the second saves, and the same commands go on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.infra.training.two_processes", str(tmp_path)]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([*command, f"127.0.0.1:{port},2,{index}"], **options) for index in (0, 1)]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "on 2 devices (fsdp=2,tensor=1)" in said[0] and "stopped by signal 15; saved step 3" in said[0]
    stopped, whole = (load_model(tmp_path / name)[2] for name in ("stopped", "whole"))
    for left, right in zip(*map(jax.tree.leaves, (stopped, whole)), strict=True):
        np.testing.assert_array_equal(left, right)
    losses = [
        [json.loads(line).get("loss") for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("stopped", "whole")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6  # four steps, and the held-out figures before and after


def test_which_process_this_is_is_read_and_a_wrong_one_refused():
    for text in ("10.0.0.1,2,0", ":8476,2,0", "10.0.0.1:8476,2", "10.0.0.1:8476,two,0", "10.0.0.1:8476,2,2"):
        with pytest.raises(InputError, match="--distributed"):
            join_processes(text)


def test_a_mesh_is_read_and_a_wrong_one_refused():
    assert parse_mesh("tensor=2") == {"fsdp": 1, "tensor": 2}
    for text in ("fsdp", "data=4", "fsdp=0", "fsdp=-1", "fsdp=2;tensor=2"):
        with pytest.raises(InputError, match="--mesh"):
            parse_mesh(text)
    with pytest.raises(InputError, match="6 places for 1 devices"):
        make_mesh(parse_mesh("fsdp=3,tensor=2"), jax.devices()[:1])


def test_rows_that_a_mesh_of_parameters_does_not_divide_are_refused():
    class Two:
        shape = {"fsdp": 2, "tensor": 1}

    place = Placement()
    place.mesh, place.count, place._axes = Two, 2, {}
    with pytest.raises(InputError, match="3 rows of a batch do not divide over fsdp=2"):
        place.batch({"tokens": np.zeros((3, 4))})
