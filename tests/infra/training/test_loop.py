"""The training loop on a small regression: it learns, and a run that was killed equals one that was not."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infra.training import loop
from models.errors import InputError
from models.io import load_model, save_model

STEPS = 30
HERE = Path(__file__).resolve()


def linear_job(steps: int = STEPS, poison: int = -1, pause: float = 0.0, width: int = 4) -> loop.Job:
    """Fits y = Ax by Adam on Grain batches; the batch with number ``poison`` holds a NaN; ``pause`` slows the data."""
    truth = np.random.default_rng(0).normal(size=(width, 3)).astype(np.float32)
    optimizer = optax.adam(0.05)

    def example(index, rng):
        time.sleep(pause)
        x = rng.normal(size=width).astype(np.float32)
        if index == poison:
            x[0] = np.nan
        return {"x": x, "y": (x @ truth).astype(np.float32)}

    def init(key):
        params = {"kernel": jax.random.normal(key, (width, 3))}
        return {"params": params, "optimizer": optimizer.init(params)}

    def loss(params, batch, key):
        noise = 0.01 * jax.random.normal(key, batch["x"].shape)
        return jnp.mean((jnp.einsum("bi,io->bo", batch["x"] + noise, params["kernel"]) - batch["y"]) ** 2)

    def step(state, batch, key):
        value, gradient = jax.value_and_grad(loss)(state["params"], batch, key)
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer_state}, {"loss": value}

    def batches():
        data = grain.MapDataset.range(64).shuffle(seed=1).repeat().random_map(example, seed=2).batch(8)
        return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))

    def heldout():
        rng = np.random.default_rng(5)
        for _ in range(2):
            x = rng.normal(size=(8, width)).astype(np.float32)
            yield {"x": x, "y": x @ truth}

    return loop.Job(
        name="linear",
        config=("linear", width),
        init=init,
        step=step,
        evaluate=lambda state, batch, key: {"loss": loss(state["params"], batch, key)},
        train_batches=batches,
        heldout_batches=heldout,
        export=lambda state, directory: save_model(directory, "linear", {"width": width}, state["params"]),
        steps=steps,
        items=8,
    )


def sha(directory: Path) -> str:
    return hashlib.sha256((directory / "model.npz").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    directory = tmp_path_factory.mktemp("whole")
    return loop.train(linear_job(), directory, save_every=10, log_every=5)


def test_heldout_loss_falls_and_everything_is_written(whole):
    assert whole.loss_end < whole.loss_start / 2
    assert whole.resumed_from is None and whole.steps == STEPS
    kind, config, params, meta = load_model(whole.directory)
    assert (kind, config) == ("linear", {"width": 4}) and params["kernel"].shape == (4, 3)
    assert (whole.directory / "curve.png").read_bytes()[:4] == b"\x89PNG"
    lines = [json.loads(line) for line in (whole.directory / "log.jsonl").read_text().splitlines()]
    assert lines[0]["heldout"]["loss"] == whole.loss_start and lines[-1]["heldout"]["loss"] == whole.loss_end
    assert [line["step"] for line in lines[1:-1]] == [1, 6, 11, 16, 21, 26, 30]


def test_finished_job_returns_at_once_and_another_config_is_refused(whole):
    job = linear_job()
    again = loop.train(job, whole.directory)
    assert (again.loss_start, again.loss_end, again.seconds) == (whole.loss_start, whole.loss_end, whole.seconds)
    with pytest.raises(InputError, match="seed"):
        loop.train(job, whole.directory, seed=1)
    with pytest.raises(InputError, match="config"):
        loop.train(linear_job(width=5), whole.directory)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_resumed_is_bitwise_the_same(whole, tmp_path, number):
    code = (
        f"import sys; sys.path[:0] = [{str(HERE.parent)!r}]; import test_loop as t; "
        f"t.loop.train(t.linear_job(pause=0.01), {str(tmp_path)!r}, save_every=10, log_every=5)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    try:
        wanted = tmp_path / "checkpoints" / "10" / "commit_success.txt"
        deadline = time.monotonic() + 120
        while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(number)
        status = process.wait(60)
    finally:
        process.kill()
    assert status == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "done.json").exists()
    result = loop.train(linear_job(), tmp_path, save_every=10, log_every=5)
    assert result.resumed_from >= 10
    assert sha(tmp_path) == sha(whole.directory)
    assert (result.loss_start, result.loss_end) == (whole.loss_start, whole.loss_end)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and len(set(steps[:-1])) == len(steps) - 1


def test_the_step_is_compiled_once(whole):
    assert json.loads((whole.directory / "done.json").read_text())["compilations"] == 1


def test_two_devices_share_a_batch_and_resume(whole, tmp_path):
    code = (
        f"import sys; sys.path[:0] = [{str(HERE.parent)!r}]; import jax; jax.config.update('jax_num_cpu_devices', 2); "
        "import test_loop as t; batch = t.loop.Placement().batch({'x': t.np.zeros((8, 4))}); "
        "assert {s.data.shape for s in batch['x'].addressable_shards} == {(4, 4)}; "
        f"t.loop.train(t.linear_job(pause=0.01), {str(tmp_path)!r}, save_every=10, log_every=5)"
    )
    run = [sys.executable, "-c", code]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(run, env=env)
    wanted = tmp_path / "checkpoints" / "10" / "commit_success.txt"
    deadline = time.monotonic() + 120
    while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.terminate()
    assert process.wait(60) == 143
    assert "on 2 devices" in subprocess.run(run, env=env, capture_output=True, text=True, check=True).stderr
    _, _, params, _ = load_model(tmp_path)
    _, _, alone, _ = load_model(whole.directory)
    np.testing.assert_allclose(params["kernel"], alone["kernel"], atol=1e-5)


def test_resume_without_a_checkpoint_starts_over(whole, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 1}\n{"step"')
    result = loop.train(linear_job(), tmp_path, save_every=0, log_every=5)
    assert sha(tmp_path) == sha(whole.directory) and result.resumed_from is None
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 9


def test_non_finite_loss_stops_and_saves_the_batch(tmp_path):
    with pytest.raises(loop.NonFiniteLoss, match="step"):
        loop.train(linear_job(poison=20), tmp_path, log_every=5)
    (path,) = tmp_path.glob("bad_batch_*.npz")
    with np.load(path) as batch:
        assert np.isnan(batch["x"]).any() and batch["x"].shape == (8, 4)
    assert not (tmp_path / "done.json").exists()


def test_no_heldout_data_is_an_input_error(tmp_path):
    job = linear_job()
    job = loop.Job(**{**job.__dict__, "heldout_batches": lambda: []})
    with pytest.raises(InputError, match="held-out"):
        loop.train(job, tmp_path)
