"""The main job, shrunk: few clips, few steps, the same program."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.demo import EXPECTED_SECONDS, TOKENIZER_JOBS, DemoConfig, demo, estimate, plan, render_table, write_given
from models.errors import InputError
from pipelines.beam import RunnerOptions
from pipelines.dataset import ANNOTATIONS, Dataset, shard_name, update_manifest, write_shard
from pipelines.inspect import write_video
from tests.pipelines import rows as made_up
from tests.pipelines.painted import make_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_plan_is_the_whole_road_in_order():
    names = [stage.name for stage in plan(DemoConfig(), RunnerOptions())]
    assert names[:3] == ["synthesize", "curate", "annotate"]
    assert names.index("train speech") < names.index("tokenize") < names.index("train language")
    assert names[-2:] == ["generate", "report"]
    own = [stage.name for stage in plan(DemoConfig(inputs=("a/*.mp4",)), RunnerOptions())]
    assert own == names[1:]


def test_estimate_follows_the_pace_so_far():
    names = ["synthesize", "curate", "report"]
    first, *rest = (EXPECTED_SECONDS[name] for name in names)
    assert estimate({}, names) == first + sum(rest)
    # Twice as slow so far: twice as long for what is left.
    assert estimate({"synthesize": {"seconds": 2 * first}}, names) == pytest.approx(2 * sum(rest))
    assert estimate({name: {"seconds": 1} for name in names}, names) == 0


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"identity": "other", "config": {"clips": 3}, "stages": {}}))
    with pytest.raises(InputError, match="belongs to another run"):
        demo(DemoConfig(workdir=str(tmp_path)), RunnerOptions())


def test_table_shows_losses_memory_and_paths():
    row = {"items": 9, "unit": "steps", "seconds": 2.0, "peak_gib": 1.25, "loss_start": [2.0], "loss_end": [1.0]}
    text = render_table({"stages": {"train speech": row}, "paths": {"report": "w/index.html"}})
    assert "train speech  9 steps" in text and "1.2 GiB" in text and "w/index.html" in text


def test_given_files_come_from_a_held_out_clip_with_every_column(tmp_path):
    dataset = make_dataset(tmp_path, clips=3)
    for column in ("shape", "expression", "pose"):
        rows = [made_up.row(f"clip{i}", column, source=i) for i in range(3)]
        update_manifest(dataset.root, {column: ([write_shard(dataset.root, shard_name(column, 0, 1), rows)], {})})
    assert Dataset(dataset.root).good_rows("clips", *ANNOTATIONS) == [0, 1]
    speech, image = write_given(dataset, str(tmp_path / "given"))
    assert os.path.getsize(speech) > 9_000 and image.endswith("image.png")


# --- End to end -------------------------------------------------------------------------------------------------------


def command(workdir, inputs):
    return [sys.executable, "-m", "infra.cli", "demo", "--workdir", str(workdir), "--input", f"{inputs}/*.mp4",
            "--scale", "0.15", "--workers", "2", "--json"]  # fmt: skip


def run(workdir, inputs) -> dict:
    out = subprocess.run(command(workdir, inputs), cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    return json.loads(out.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Four talking heads of two and a half seconds and four files that cannot become clips."""
    from pipelines.synthesize import SynthesizeConfig, synthesize
    from tests.pipelines.media import ffmpeg

    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "inputs"))
    synthesize(SynthesizeConfig(clips=4, output=str(whole), seed=3, workers=2))
    for path in whole.glob("*.mp4"):
        ffmpeg("-i", path, "-t", "2.6", "-c", "copy", folder / path.name)
    whole = sorted(folder.glob("*.mp4"))[0]
    (folder / "x_text.mp4").write_text("this is no video")
    (folder / "x_cut.mp4").write_bytes(whole.read_bytes()[:9_000])
    noise = np.random.default_rng(0).integers(0, 255, (90, 96, 128, 3)).astype(np.uint8)
    tone = (9_000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)
    write_video(str(folder / "x_noface.mp4"), noise, tone)
    write_video(str(folder / "x_silent.mp4"), noise, None)
    return folder


@pytest.mark.slow
def test_killed_demo_finishes_and_its_books_close(inputs, tmp_path):
    workdir = tmp_path / "w"
    process = subprocess.Popen(
        command(workdir, inputs), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    # Killed once in the middle of the pipelines, and once in the middle of training.
    wait_for(lambda: (workdir / "dataset/clips").exists() and any((workdir / "dataset/clips").iterdir()), process)
    os.killpg(process.pid, signal.SIGKILL)
    process = subprocess.Popen(
        command(workdir, inputs), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    wait_for(lambda: (workdir / "models/image").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    before = json.loads((workdir / "summary.json").read_text())["stages"]
    assert "curate" in before and "train speech" in before
    summary = run(workdir, inputs)
    assert {name: summary["stages"][name] for name in before} == before, "a finished stage was run again"

    # The books: eight sources in, four gave clips, four are in the rejects with a stage and a reason.
    report = summary["stages"]["report"]["summary"]
    assert report["sources"] == 8 and report["sources_with_clips"] == 4 and report["sources_rejected"] == 4
    rows = [row for path in (workdir / "dataset/rejects").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    whole = {Path(row["source"]).name: row for row in rows if not row["clip_id"]}
    assert set(whole) == {"x_text.mp4", "x_cut.mp4", "x_noface.mp4", "x_silent.mp4"}
    assert all(row["stage"] and row["reason"] for row in rows)

    # Every model learned on held-out clips. The decoder's few steps on three clips are too few for that here;
    # tests/infra/training/test_decoder_job.py holds that both of its parts learn.
    trained = {name: row for name, row in summary["stages"].items() if "loss_end" in row}
    assert set(trained) == {f"train {job}" for job in (*TOKENIZER_JOBS, "language", "decoder")}
    for name, row in trained.items():
        assert np.isfinite([*row["loss_start"], *row["loss_end"]]).all()
        if name != "train decoder":
            assert all(end < start for start, end in zip(row["loss_start"], row["loss_end"], strict=True)), (name, row)

    # The result: a playable mp4 of the speech's length, with its sound, and every intermediate.
    generated = summary["stages"]["generate"]["summary"]["outputs"]
    with av.open(generated["video"]) as video:
        frames = sum(1 for _ in video.decode(video.streams.video[0]))
    with av.open(str(workdir / "generated/given/speech.wav")) as sound:
        samples = sum(frame.samples for frame in sound.decode(audio=0))
    assert abs(frames - samples * 30 / 16_000) <= 1
    with av.open(generated["video"]) as video:
        assert video.streams.audio
    for modality in ("shape", "expression", "semantics", "description"):
        assert os.path.getsize(generated[modality]) > 0
    assert not list(workdir.rglob("*.tmp-*"))


def wait_for(condition, process, limit: float = 900.0) -> None:
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()[-3000:]
        assert time.monotonic() - start < limit
        time.sleep(0.2)
