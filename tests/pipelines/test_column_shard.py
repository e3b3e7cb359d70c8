"""Columns of a painted dataset by cheap annotators: what is made again, what is kept, what a kill costs, the books."""

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.loading import load_once
from pipelines import annotate as job
from pipelines import annotators, code_hash, column_shard
from pipelines.annotate import annotate
from pipelines.annotators import AnnotateConfig, Backend
from pipelines.beam import Hints, RunnerOptions, ShardTask
from pipelines.books import BooksError
from pipelines.dataset import (
    COLUMN_FIELDS,
    FAILURE_FIELDS,
    ROW_FIELDS,
    Dataset,
    shard_name,
    update_manifest,
    write_shard,
)
from pipelines.failures import TooManyFailures
from pipelines.stages.speech import SpeechConfig
from tests.pipelines.painted import clip
from tests.pipelines.rows import producer, row

RUNNER = RunnerOptions("in-process", 1)
CLIPS = 5
COLUMNS = ("image", "speech", "script")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [clip(index, folder) for index in range(CLIPS)]


def make_dataset(root, records) -> str:
    """Two shards of clips and nothing else."""
    parts = records[:3], records[3:]
    shards = [write_shard(root, shard_name("clips", k, 2), part) for k, part in enumerate(parts)]
    update_manifest(root, {"clips": (shards, producer("clips"))})
    return str(root)


def say_clip_id(clip, columns, settings, backend):
    """A script that depends on nothing but the clip and what it builds on."""
    return {"script": script_fields(f"{clip['clip_id']} {columns['speech']['clip_id']}", backend)}


def script_fields(text: str, backend: str) -> dict:
    return {**dict.fromkeys(COLUMN_FIELDS["script"], ""), "text": text, "words": "[]", "backend": backend}


def with_script(monkeypatch, **changes) -> None:
    """Makes the script by a stand-in; image and speech (by energy) are real."""
    spoken = Backend(**{"name": "spoken", "function": say_clip_id, "requires": ("speech",), **changes})
    items = [item if item.name != "script" else replace(item, backends=(spoken,)) for item in annotators.ANNOTATORS]
    for module in (annotators, job):
        monkeypatch.setattr(module, "ANNOTATORS", tuple(items))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    with_script(monkeypatch)


def config(root, columns=COLUMNS, **settings) -> AnnotateConfig:
    return AnnotateConfig(root, columns, (("speech", "energy"),), **settings)


def content(root, columns=COLUMNS) -> dict[str, bytes]:
    dataset = Dataset(root)
    return {path: open(path, "rb").read() for name in columns for path in dataset.shards(name)}


class Made:
    """Which rows are made: (column, clip id) for each call of an annotator's function."""

    def __init__(self, monkeypatch):
        self.calls = []
        inner = column_shard.run_keyed

        def run_keyed(function, items):
            self.calls += [item.key for item in items]
            return inner(function, items)

        monkeypatch.setattr(column_shard, "run_keyed", run_keyed)
        publish = column_shard._publish
        self.columns = []

        def published(work, *rest):
            self.columns.append(work.label)
            return publish(work, *rest)

        monkeypatch.setattr(column_shard, "_publish", published)

    def take(self) -> set[str]:
        """The columns of which a shard was made since the last call."""
        made, self.columns, self.calls = set(self.columns), [], []
        return made


@pytest.fixture
def made(monkeypatch):
    return Made(monkeypatch)


@pytest.fixture
def change_source(monkeypatch):
    """Changes a module's source as the code hash reads it."""
    plain = code_hash.module_source
    changes: dict[str, tuple[str, str]] = {}

    def read(module):
        source = plain(module)
        if module in changes:
            old, new = changes[module]
            assert old in source
            source = source.replace(old, new)
        return source

    monkeypatch.setattr(code_hash, "module_source", read)

    def change(module: str, old: str, new: str) -> None:
        changes[module] = (old, new)
        code_hash.forget()

    yield change
    changes.clear()
    code_hash.forget()


def test_every_record_says_where_it_comes_from_and_what_made_it(tmp_path, records):
    root = make_dataset(tmp_path, [*records[:4], row("clip4", error="crop: ValueError: lost", source=4)])
    annotate(config(root), RUNNER)
    dataset = Dataset(root)
    for name in ("clips", *COLUMNS):
        for index, record in enumerate(dataset.column(name)):
            assert set(ROW_FIELDS) <= set(record), (name, index)
            assert record["clip_id"] == f"clip{index}" and record["source_sha256"] == f"{index:064d}"
            assert (record["start_frame"], record["end_frame"], record["box"].tolist()) == (0, 9, [1, 2, 300])
    script = json.loads(dataset.column("script")[0]["made_by"])
    assert set(script) == {"clips", "speech", "script"}
    assert all(set(item) == {"backend", "code", "config", "weights"} for item in script.values())
    assert script["speech"]["backend"] == "energy" and len(script["speech"]["code"]) == 16
    assert dataset.manifest()["columns"]["script"]["producer"]["made_by"] == script
    assert set(json.loads(dataset.column("image")[4]["made_by"])) == {"clips", "image"}


def test_exactly_the_columns_whose_producer_changed_are_made_again(tmp_path, records, made, change_source, monkeypatch):
    root = make_dataset(tmp_path, records)
    run = config(root)
    annotate(run, RUNNER)
    assert made.take() == {"image", "speech", "script"}
    annotate(run, RUNNER)
    assert made.take() == set()

    # Code: of the annotator, with comments and unrelated definitions of its module, and of plumbing that all share.
    change_source("pipelines.stages.reference", "REFERENCE_FRAME = 0", "REFERENCE_FRAME = int(0)")
    annotate(run, RUNNER)
    assert made.take() == {"image"}
    change_source(
        "pipelines.stages.reference", "REFERENCE_FRAME = 0", "REFERENCE_FRAME = int(0)  # the first\nOTHER = 1"
    )
    change_source("pipelines.dataset", "def shard_name(", "NEW = 1\n\n\ndef shard_name(")
    annotate(run, RUNNER)
    assert made.take() == set()
    # An upstream column's code: what builds on it too.
    change_source("pipelines.stages.speech", "padded = np.pad(audio,", "padded = np.pad(1 * audio,")
    annotate(run, RUNNER)
    assert made.take() == {"speech", "script"}
    # Configuration.
    run = replace(run, speech=SpeechConfig(target_level=-20.0))
    annotate(run, RUNNER)
    assert made.take() == {"speech", "script"}
    # Weights, and the backend.
    for changes in (
        {"weights": lambda settings: "model 2"},
        {"weights": lambda settings: "model 2", "name": "said"},
        {"weights": lambda settings: "model 2", "name": "said", "packages": ("numpy",)},
    ):
        with_script(monkeypatch, **changes)
        annotate(run, RUNNER)
        assert made.take() == {"script"}
    # The clips.
    update_manifest(root, {"clips": (Dataset(root).shard_infos("clips"), producer("clips", "other"))})
    annotate(run, RUNNER)
    assert made.take() == {"image", "speech", "script"}


# --- Failures and books ---


BROKEN: set[str] = set()


def breaks(clip, columns, settings, backend):
    if clip["clip_id"] in BROKEN:
        raise ValueError(f"no words for {clip['clip_id']}")
    return say_clip_id(clip, columns, settings, backend)


@pytest.fixture
def broken(monkeypatch):
    BROKEN.clear()
    BROKEN.update({"clip1", "clip4"})
    with_script(monkeypatch, function=breaks)
    yield BROKEN
    BROKEN.clear()


def failures(root) -> list[dict]:
    folder = os.path.join(root, "failures")
    return [line for name in sorted(os.listdir(folder)) for line in pq.read_table(f"{folder}/{name}").to_pylist()]


def test_a_failed_clip_is_in_the_books_and_in_the_table_of_failures(tmp_path, records, broken):
    torn = {**records[2], "video": b"not a video"}
    root = make_dataset(tmp_path, [*records[:2], torn, *records[3:]])
    summary = annotate(config(root), RUNNER)
    assert summary["columns"]["script"]["errors"] == 2 and summary["columns"]["image"]["errors"] == 1
    books = Dataset(root).manifest()["books"]
    assert books == summary["books"] and set(books) == {f"annotate {name}" for name in COLUMNS}
    script = books["annotate script"]
    assert (script["items"], script["kept"]) == (CLIPS, 3)
    assert [(kind["stage"], kind["type"], kind["count"]) for kind in script["failed"]] == [("script", "ValueError", 2)]
    lines = failures(root)
    assert [(line["column"], line["clip_id"], line["type"]) for line in lines] == [
        ("image", "clip2", "InputError"),
        ("script", "clip1", "ValueError"),
        ("script", "clip4", "ValueError"),
    ]
    assert tuple(lines[0]) == FAILURE_FIELDS and "in breaks" in lines[1]["traceback"]
    assert lines[1]["traceback_hash"] == lines[2]["traceback_hash"] == script["failed"][0]["traceback_hash"]
    error = Dataset(root).column("script")[1]
    assert error["error"] == "script: ValueError: no words for clip1" and set(error) == set(ROW_FIELDS)


def test_retry_makes_the_failed_rows_and_nothing_else(tmp_path, records, broken, made, monkeypatch):
    root = make_dataset(tmp_path, records)
    annotate(config(root), RUNNER)
    before, shards = content(root), Dataset(root).shards("script")
    made.take()
    annotate(config(root), RUNNER)  # without the flag a failure is a result
    assert made.calls == []
    broken.remove("clip1")
    summary = annotate(config(root), replace(RUNNER, retry_failed=True))
    assert sorted(made.calls) == ["1/clip1", "1/clip4"] and summary["columns"]["script"]["errors"] == 1
    after = content(root)
    assert {path for path in after if after[path] != before[path]} == {shards[0]}
    column = Dataset(root).column("script")
    assert [bool(record["error"]) for record in column] == [False, False, False, False, True]
    assert [line["clip_id"] for line in failures(root)] == ["clip4"]
    broken.clear()
    annotate(config(root), replace(RUNNER, retry_failed=True))
    # As if it had never failed, with no table of failures left.
    clean = make_dataset(tmp_path / "clean", records)
    annotate(config(clean), RUNNER)
    assert list(content(root).values()) == list(content(clean).values()) and failures(root) == []
    assert not list((tmp_path / "_state" / "annotate").glob("parts/*"))


def test_retry_also_makes_what_builds_on_the_column(tmp_path, records, made):
    root = make_dataset(tmp_path, [{**records[0], "audio": records[0]["audio"][:0]}, *records[1:]])
    annotate(config(root), RUNNER)
    failed = [record["error"] for record in Dataset(root).column("script")]
    assert failed[0].startswith("script: MissingInput: needs speech: speech: ") and not any(failed[1:])
    made.take()
    annotate(config(root, ("speech",)), replace(RUNNER, retry_failed=True))
    assert made.columns == ["speech", "script"] and made.calls == ["0/clip0"]


def test_too_many_failures_stop_the_job_and_keep_what_is_done(tmp_path, records, broken):
    root = make_dataset(tmp_path, records)
    broken.update(record["clip_id"] for record in records)
    with pytest.raises(TooManyFailures, match="--max-failures allows 1"):
        annotate(config(root), replace(RUNNER, max_failures=1))
    broken.clear()
    broken.add("clip0")
    summary = annotate(config(root), replace(RUNNER, max_failures=4))
    # What had failed stays failed, what had not been reached is made now.
    assert summary["columns"]["script"]["errors"] == 2


def test_books_that_do_not_close_end_the_job(tmp_path, records, monkeypatch):
    root = make_dataset(tmp_path, records)
    publish = column_shard._publish

    def loses_a_row(work, task, rows, frames):
        rows.keys.pop()
        return publish(work, task, rows, frames)

    monkeypatch.setattr(column_shard, "_publish", loses_a_row)
    with pytest.raises(BooksError, match="annotate image.*5 expected"):
        annotate(config(root, ("image",)), RUNNER)


def answers_backwards(items, settings, backend):
    """A batch function that completes in another order and cannot do one of its clips."""
    for item in reversed(items):
        if item.clip["clip_id"] in BROKEN:
            raise TimeoutError("the server does not answer")
        yield item.key, say_clip_id(item.clip, item.columns, settings, backend)


def test_a_batch_function_labels_its_own_clips(tmp_path, records, broken, monkeypatch):
    with_script(monkeypatch, function=None, batch_function=answers_backwards, batch=2)
    root = make_dataset(tmp_path, records)
    annotate(config(root), RUNNER)
    for index, record in enumerate(Dataset(root).column("script")):
        if index in (1, 4):
            assert record["error"] == "script: TimeoutError: the server does not answer"
        else:
            assert record["text"] == f"clip{index} clip{index}"


# --- Kills ---

LOG = "bought"


def slow(clip, columns, settings, backend):
    """Costs something: leaves a line for every call."""
    with open(os.environ[LOG], "a") as log:
        log.write(f"{clip['clip_id']}\n")
    return say_clip_id(clip, columns, settings, backend)


def annotate_slowly(root: str) -> None:
    """What a killed process does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_script(monkeypatch, function=slow)
        annotate(config(root), RUNNER)


def bought() -> list[str]:
    path = Path(os.environ[LOG])
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_a_kill_costs_the_clip_in_work_and_changes_nothing(tmp_path, records, monkeypatch):
    """Killed again and again, at moments spread over the whole job: the same bytes, no caption bought twice."""
    with_script(monkeypatch, function=slow)
    monkeypatch.setenv(LOG, str(tmp_path / "undisturbed.log"))
    whole = make_dataset(tmp_path / "whole", records)
    annotate(config(whole), RUNNER)
    assert Counter(bought()) == Counter(f"clip{i}" for i in range(CLIPS))

    monkeypatch.setenv(LOG, str(tmp_path / "killed.log"))
    root = make_dataset(tmp_path / "killed", records)
    # Processes that start with everything imported and nothing used yet.
    context, rng = multiprocessing.get_context("forkserver"), random.Random(11)
    context.set_forkserver_preload(["apache_beam", "pyarrow.parquet", "av", __name__])
    kills, seen = 0, set()
    while True:
        worker = context.Process(target=annotate_slowly, args=(root,))
        worker.start()
        # Until so many new files have appeared: parts, shards, markers, or the temporary ones of any of them.
        enough = len(seen) + rng.randint(2, 14)
        while worker.is_alive() and len(seen) < enough:
            seen |= {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}
        if not worker.is_alive():
            break
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        kills += 1
    assert worker.exitcode == 0
    annotate(config(root), RUNNER)
    assert kills >= 3
    assert list(content(root).values()) == list(content(whole).values())
    calls = Counter(bought())
    assert set(calls) == {f"clip{i}" for i in range(CLIPS)} and calls.total() <= CLIPS + kills
    state = tmp_path / "killed" / "_state" / "annotate"
    assert not [name for name in ("parts", "inputs") if (state / name).exists()]
    assert not list((tmp_path / "killed").rglob("*.tmp-*"))


def says_old(clip, columns, settings, backend):
    return {"script": script_fields("old", backend)}


def test_parts_of_other_code_are_not_used(tmp_path, records, monkeypatch):
    """A run ends before a shard is written, the annotator changes, the run goes on: no row of the old code is left."""

    def fails(work, *rest):
        if work.label == "script":
            raise OSError("no space left on device")
        return publish(work, *rest)

    publish = column_shard._publish
    with_script(monkeypatch, function=says_old)
    root = make_dataset(tmp_path, records)
    with monkeypatch.context() as patch:
        patch.setattr(column_shard, "_publish", fails)
        with pytest.raises(Exception, match="no space left"):
            annotate(config(root), RUNNER)
    assert list((tmp_path / "_state" / "annotate" / "parts" / "script").rglob("*"))
    with_script(monkeypatch)
    annotate(config(root), RUNNER)
    assert [record["text"] for record in Dataset(root).column("script")] == [f"clip{i} clip{i}" for i in range(CLIPS)]


# --- Threads of one worker process ---


def test_threads_of_a_worker_load_a_model_once_and_take_turns_with_it(tmp_path, records, monkeypatch):
    """As on Dataflow with one process a machine: shards in several threads, one copy of the model, never used twice."""
    busy, overlaps = threading.Lock(), []

    @load_once()
    def model():
        with open(tmp_path / "loads", "a") as file:
            file.write("load\n")
        time.sleep(0.02)
        return "model"

    def uses_model(clip, columns, settings, backend):
        model()
        if not busy.acquire(blocking=False):
            overlaps.append(clip["clip_id"])
            return say_clip_id(clip, columns, settings, backend)
        time.sleep(0.01)
        busy.release()
        return say_clip_id(clip, columns, settings, backend)

    root = make_dataset(tmp_path / "data", records)
    annotate(config(root, ("speech",)), RUNNER)
    with_script(monkeypatch, function=uses_model)
    monkeypatch.setattr(annotators, "code_of", lambda backend, config: "0" * 16)  # of a function inside a test
    monkeypatch.setattr(job, "code_of", annotators.code_of)
    (item,) = job.plan_columns(config(root, ("script",)), Dataset(root), RUNNER)
    step = job.AnnotateShard(config(root), item.work)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(step, [ShardTask(0, 2), ShardTask(1, 2)]))
    assert [result.files[0].count for result in results] == [3, 2] and overlaps == []
    assert (tmp_path / "loads").read_text().split() == ["load"]


def test_a_worker_with_other_code_is_refused(tmp_path, records, monkeypatch):
    root = make_dataset(tmp_path, records)
    (item,) = job.plan_columns(config(root, ("image",)), Dataset(root), RUNNER)
    monkeypatch.setattr(job, "code_of", lambda backend, config: "0" * 16)
    with pytest.raises(RuntimeError, match="this worker runs code 0000000000000000, the job was started by"):
        job.AnnotateShard(config(root), item.work)(ShardTask(0, 2))


@pytest.mark.parametrize("item", annotators.ANNOTATORS, ids=lambda item: item.name)
def test_packages_that_decide_are_named(item):
    """A backend's code uses no other package than those that it names and those that carry numbers and requests."""
    neutral = {"numpy", "scipy", "cv2", "av", "flax", "google", "httpx2", "requests", *sys.stdlib_module_names}
    modules = {"silero-vad": "silero_vad"}
    for backend in item.backends:
        used = code_hash.closure(annotators.roots_of(backend, AnnotateConfig(""))).packages
        # `energy` shares a function with `silero`; `pixels` reads no more of the face model than names.
        spared = {"energy": {"onnxruntime"}, "pixels": {"jax"}}.get(backend.name, set())
        assert used <= neutral | spared | {modules.get(name, name) for name in backend.packages}, backend.name


def test_a_backend_sees_only_the_settings_that_it_names():
    backend = annotators.by_name("speech").backends[0]
    settings = annotators.settings_of(backend, AnnotateConfig(""))
    assert vars(settings) == {"speech": SpeechConfig()}
    plain = annotators.producer_of(backend, AnnotateConfig(""))
    assert annotators.producer_of(backend, AnnotateConfig("elsewhere", network=None)) == plain
    assert annotators.producer_of(backend, AnnotateConfig("", speech=SpeechConfig(voicing=0.6))).config != plain.config


def test_steps_carry_what_a_worker_must_have(tmp_path, records):
    root = make_dataset(tmp_path, records)
    wanted = config(root, ("image", "semantics"))
    image, semantics = sorted(job.plan_columns(wanted, Dataset(root), RUNNER), key=lambda item: item.annotator.name)
    assert job._step(wanted, image).hints == Hints()
    assert job._step(wanted, semantics).hints == Hints(min_ram="4GB")
    asked = replace(wanted, accelerator="type:nvidia-l4;count:1")
    assert job._step(asked, semantics).hints == Hints(min_ram="4GB", accelerator="type:nvidia-l4;count:1")
    assert job._step(asked, image).hints == Hints()
