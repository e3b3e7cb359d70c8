"""The one training loop: every model of this project is trained by ``train(job, workdir)``.

A job says what is trained; the loop says how: one jitted step with a donated state, held-out loss before and after,
checkpoints that hold the state, the data position and the progress, resume by the same call, SIGTERM, NaN, a log,
a curve.

The work directory::

    model.json model.npz   the exported model (written by the job)
    log.jsonl              one line per logged step, and the held-out figures
    curve.png              the losses
    done.json              the job is finished: config hash, figures
    checkpoints/           Orbax

Invariants. The key of step ``i`` is ``fold_in(key(seed), i)`` and the data position is part of the checkpoint, so a run
that was killed and started again gives the same bytes as one that was not. The loss is checked before a state is
saved: a checkpoint never holds a state that came after a non-finite loss.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infra.training.checkpoints import Checkpoints
from infra.training.curves import draw_curve
from infra.training.placement import Placement
from models.errors import InputError
from models.io import flatten, npz_bytes, write_file

State = Any
Batch = dict[str, np.ndarray]
Metrics = dict[str, jax.Array]

_HELDOUT_STREAM = 2**31 - 1  # the held-out keys' branch of the seed key; no step gets this number


@dataclass(frozen=True)
class Job:
    """What is trained, on what.

    Attributes:
        name: "speech", "language", ...
        config: frozen dataclass; a work directory belongs to one config (by its repr).
        init: key -> state, a pytree of arrays (parameters, optimizer state, averages ...).
        step: (state, batch, key) -> (state, metrics); pure; metrics are scalars and contain "loss".
        evaluate: (state, batch, key) -> metrics, as ``step``.
        train_batches: -> infinite iterator over batches of fixed shapes with ``get_state`` and ``set_state`` (Grain).
        heldout_batches: -> finite iterable, the same at every call.
        export: (state, directory) -> None; writes model.json and model.npz.
        steps: how many steps.
        items: examples in a batch, for display.
        data: identity of the training data (a hash); a work directory belongs to one.
        begin_from: new state -> state, not compiled: puts weights in that were trained elsewhere.
        axes: the logical axes of every array of the state (layers/sharding.py): with them the state is split over the
            mesh; without, every device holds all of it.
        rows: with ``axes``: of a batch, or of each part of it: what the mesh's fsdp axis has to divide.
    """

    name: str
    config: Any
    init: Callable[[jax.Array], State]
    step: Callable[[State, Batch, jax.Array], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch, jax.Array], Metrics]
    train_batches: Callable[[], Any]
    heldout_batches: Callable[[], Iterable[Batch]]
    export: Callable[[State, Path], None]
    steps: int
    items: int = 0
    data: str = ""
    begin_from: Callable[[State], State] | None = None
    axes: Any = None
    rows: int = 1


@dataclass(frozen=True)
class TrainResult:
    """What one job came to. ``seconds`` is training and evaluation over all runs; losses are on held-out data."""

    name: str
    steps: int
    seconds: float
    loss_start: float
    loss_end: float
    resumed_from: int | None
    directory: Path
    figures: dict[str, float]


class NonFiniteLoss(RuntimeError):
    """The loss of a step was not finite; the batch lies in the work directory."""


def train(
    job: Job,
    workdir: Path | str,
    *,
    seed: int = 0,
    save_every: int = 200,
    log_every: int = 10,
    report_seconds: float = 10.0,
    mesh: jax.sharding.Mesh | None = None,
) -> TrainResult:
    """Trains a job to its end, or goes on where an earlier call stopped.

    Args:
        job: what is trained.
        workdir: the job's own directory.
        seed: of initialisation, steps and evaluation.
        save_every: steps between checkpoints; 0 saves only on SIGTERM.
        log_every: steps between log lines.
        report_seconds: least seconds between progress lines.
        mesh: the devices; a run may go on on another one. By default all of them split the batch.

    Returns:
        The result; at once if the work directory says that the same job is finished.

    Raises:
        InputError: the work directory belongs to another config, seed or data set.
        NonFiniteLoss: with the batch saved beside the log.
        SystemExit: 143 after SIGTERM, 130 after an interrupt; the state was saved.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    identity = {"name": job.name, "config": repr(job.config), "steps": job.steps, "seed": seed, "data": job.data}
    done = _finished(workdir, identity)
    if done is not None:
        _say(job, f"already trained: held-out loss {done.loss_start:.4g} -> {done.loss_end:.4g}")
        return done
    _claim(workdir, identity)

    # --- State, data, position --------------------------------------------------------------------------------------
    root = jax.random.key(seed)
    batches = iter(job.train_batches())
    checkpoints = Checkpoints(workdir / "checkpoints")
    start = checkpoints.latest()
    place = Placement(mesh, job.axes, job.rows)
    like = jax.eval_shape(job.init, root)
    lie = place.shardings(like)
    # Where the state lies is said for what comes out too: the next step takes it as it is.
    step_fn = jax.jit(job.step, donate_argnums=0, out_shardings=(lie, None))
    evaluate_fn = jax.jit(job.evaluate)
    clock = _Clock()
    with _Signals() as signals, place.scope():
        if start is None:
            begin = 0
            state = _initialise(job, jax.random.fold_in(root, _HELDOUT_STREAM - 1), lie)
            if job.begin_from is not None:
                state = place.state(job.begin_from(state))
            _truncate_log(workdir, before=0)
            before = heldout_metrics(job, evaluate_fn, state, root, place)
            _log(workdir, {"step": 0, "heldout": before})
        else:
            begin = start
            state, progress = checkpoints.restore(start, like, batches, lie)
            clock.earlier = progress.pop("seconds")
            before = progress
            _truncate_log(workdir, before=start + 1)
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))
        origin = "from the start" if start is None else f"resumed from step {start}"
        over = f"; on {place.count} devices ({place})" if place.count > 1 else ""
        _say(job, f"{job.steps} steps {origin}; {count:,} numbers of state{over}; held-out loss {before['loss']:.4g}")

        # --- Loop -----------------------------------------------------------------------------------------------------
        meter = _Meter(job, begin, report_seconds)
        unchecked: tuple[int, Batch, Metrics] | None = None

        def check() -> dict[str, float]:
            if unchecked is None:
                return {}
            number, batch, metrics = unchecked
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            if not math.isfinite(values["loss"]):
                path = workdir / f"bad_batch_{number:06d}.npz"
                write_file(path, npz_bytes(flatten(batch)))
                raise NonFiniteLoss(
                    f"{job.name}: the loss of step {number} is {values['loss']}; its batch is in {path}"
                )
            return values

        for number in range(begin, job.steps):
            # Several processes agree on it now and then: asking at each step would make each wait for all.
            asked = place.agreed(signals.received) if jax.process_count() == 1 or number % log_every == 0 else 0
            if asked:
                check()
                checkpoints.save(number, state, batches, {**before, "seconds": clock.total()})
                checkpoints.close()
                _say(job, f"stopped by signal {asked}; saved step {number}")
                raise SystemExit(128 + asked)
            if save_every and number > begin and number % save_every == 0:
                check()
                checkpoints.save(number, state, batches, {**before, "seconds": clock.total()})
            batch = next(batches)
            state, metrics = step_fn(state, place.batch(batch), jax.random.fold_in(root, number))
            check()  # the step before this one, while this one runs
            unchecked = (number, batch, metrics)
            if number % log_every == 0 or number == job.steps - 1:
                values = check()
                _log(workdir, {"step": number + 1, **values, "steps_per_second": meter.rate(number + 1)})
                meter.report(number + 1, values["loss"])
        check()

        # --- After ----------------------------------------------------------------------------------------------------
        after = heldout_metrics(job, evaluate_fn, state, root, place)
        if not math.isfinite(after["loss"]):
            raise NonFiniteLoss(f"{job.name}: the held-out loss after training is {after['loss']}")
        _log(workdir, {"step": job.steps, "heldout": after})
        exported = place.whole(state)
        if _leads():
            job.export(exported, workdir)
            draw_curve(workdir / "log.jsonl", workdir / "curve.png", title=job.name)
        figures = {f"{k}_start": v for k, v in before.items()} | {f"{k}_end": v for k, v in after.items()}
        done = {
            **identity,
            "seconds": clock.total(),
            "resumed_from": start,
            "compilations": step_fn._cache_size(),
            "figures": figures,
        }
        if _leads():
            write_file(workdir / "done.json", json.dumps(done, indent=1).encode())
        checkpoints.close()
        if hasattr(batches, "close"):
            batches.close()
    _say(job, f"held-out loss {before['loss']:.4g} -> {after['loss']:.4g} in {done['seconds']:.0f} s")
    return _result(workdir, done)


def _initialise(job: Job, key: jax.Array, lie: Any) -> State:
    """Runs ``job.init`` as one program, which on a CPU is compiled without optimization: it runs once."""
    options = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else None
    return jax.jit(job.init, compiler_options=options, out_shardings=lie)(key)


def heldout_metrics(job: Job, evaluate: Callable, state: State, root: jax.Array, place: Placement) -> dict[str, float]:
    """Returns the mean of ``evaluate`` over the held-out batches; batch ``i`` always gets the same key."""
    stream = jax.random.fold_in(root, _HELDOUT_STREAM)
    total: dict[str, float] = {}
    count = 0
    for index, batch in enumerate(job.heldout_batches()):
        metrics = jax.device_get(evaluate(state, place.batch(batch), jax.random.fold_in(stream, index)))
        for name, value in metrics.items():
            total[name] = total.get(name, 0.0) + float(value)
        count += 1
    if not count:
        raise InputError(f"{job.name}: there are no held-out examples; the dataset needs at least two sources")
    return {name: value / count for name, value in total.items()}


# --- The work directory -----------------------------------------------------------------------------------------------


def _finished(workdir: Path, identity: dict) -> TrainResult | None:
    path = workdir / "done.json"
    if not path.is_file():
        return None
    done = json.loads(path.read_text())
    _same(path, {k: done[k] for k in identity}, identity)
    return _result(workdir, done)


def _claim(workdir: Path, identity: dict) -> None:
    path = workdir / "job.json"
    if path.is_file():
        _same(path, json.loads(path.read_text()), identity)
    elif _leads():
        write_file(path, json.dumps(identity, indent=1).encode())


def _same(path: Path, found: dict, expected: dict) -> None:
    for field, value in expected.items():
        if found.get(field) != value:
            have, want = _around_difference(repr(found.get(field)), repr(value))
            raise InputError(
                f"{path}: this work directory belongs to another run: {field} is {have}, this run has {want}; "
                "give another work directory or remove this one"
            )


def _around_difference(one: str, other: str, context: int = 80, most: int = 400) -> tuple[str, str]:
    """Cuts two long texts down to where they differ first: a config can be pages."""
    if max(len(one), len(other)) <= most:
        return one, other
    first = max(0, len(os.path.commonprefix([one, other])) - context)
    begin = "..." if first else ""
    return tuple(
        begin + text[first : first + most] + ("..." if first + most < len(text) else "") for text in (one, other)
    )


def _result(workdir: Path, done: dict) -> TrainResult:
    figures = done["figures"]
    return TrainResult(
        name=done["name"],
        steps=done["steps"],
        seconds=done["seconds"],
        loss_start=figures["loss_start"],
        loss_end=figures["loss_end"],
        resumed_from=done["resumed_from"],
        directory=workdir,
        figures=figures,
    )


def _leads() -> bool:
    """Whether this process writes the work directory: the first of a run's processes does."""
    return jax.process_index() == 0


def _log(workdir: Path, line: dict) -> None:
    if not _leads():
        return
    with open(workdir / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _truncate_log(workdir: Path, *, before: int) -> None:
    """Drops the lines of steps that will be run again (and a last line that a kill cut short)."""
    path = workdir / "log.jsonl"
    if not path.is_file() or not _leads():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < before:
                kept.append(line + "\n")
        except ValueError:
            continue
    write_file(path, "".join(kept).encode())


# --- Clock, progress, signals -----------------------------------------------------------------------------------------


def _say(job: Job, text: str) -> None:
    if not _leads():
        return
    print(f"[{job.name}] {text}", file=sys.stderr, flush=True)


class _Clock:
    """Seconds of this run and of the runs before it."""

    def __init__(self):
        self.earlier = 0.0
        self._begin = time.monotonic()

    def total(self) -> float:
        return self.earlier + time.monotonic() - self._begin


class _Meter:
    """Steps a second since the first step was compiled, and a line now and then."""

    def __init__(self, job: Job, begin: int, seconds: float):
        self._job, self._begin, self._seconds = job, begin, seconds
        self._start: tuple[int, float] | None = None
        self._reported = time.monotonic()

    def rate(self, done: int) -> float:
        now = time.monotonic()
        if self._start is None:
            self._start = (done, now)  # the steps up to here include compilation
            return 0.0
        step, begin = self._start
        return (done - step) / max(now - begin, 1e-9)

    def report(self, done: int, loss: float) -> None:
        now = time.monotonic()
        rate = self.rate(done)
        if now - self._reported < self._seconds or rate == 0.0:
            return
        self._reported = now
        remaining = (self._job.steps - done) / rate
        _say(
            self._job,
            f"step {done}/{self._job.steps}  loss {loss:.4g}  {rate:.2f} steps/s"
            + (f"  {rate * self._job.items:.1f} items/s" if self._job.items else "")
            + f"  {remaining:.0f} s remain",
        )


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying, so that the loop can stop between two steps. A second signal kills.

    Handlers can be set only in the main thread; elsewhere the loop runs without them.
    """

    def __init__(self):
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
