import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.cli import main
from infra.presets.language import TINY
from infra.training import language_job
from infra.training.jobs import build_job
from infra.training.language_job import LanguageJobConfig, gradient, make_job, model_config, with_sizes_of
from infra.training.loop import train
from models.errors import InputError
from models.io import load_model
from models.language_model import loss
from pipelines.dataset import shard_name, update_manifest, write_shard
from tasks.generate import TokenSpace
from tasks.loader import HeadLayout, LoaderConfig, arrange
from tasks.loader import example as build_example
from tasks.mixture import read_mixture
from tasks.modalities import Vocabulary
from tasks.registry import TASKS, task_named
from tasks.windows import WindowConfig, window_at
from tests.language import language_batch, language_config
from tests.token_records import ByteText, random_params, record, vocabulary

VOCABULARY = vocabulary()
SMALL = dataclasses.replace(
    TINY,
    width=48,
    layers=2,
    heads=2,
    head_width=24,
    hidden=96,
    image_width=16,
    length=768,
    block=32,
    window=WindowConfig(3, 3),
    steps=40,
    warmup=5,
    peak_rate=1e-2,
    heldout_batches=4,
)


def small_job(tasks: str = "uniform", **changes):
    config = LanguageJobConfig(dataclasses.replace(SMALL, **changes), VOCABULARY, read_mixture(tasks, TASKS))
    return make_job(config, text=ByteText(), column=[record(i, frames=37) for i in range(24)])


def step_loss(job, params, clip: dict, task: str) -> float:
    """Held-out loss of a task's last step on a clip's first window."""
    preset = job.config.preset
    model = model_config(preset, VOCABULARY)
    loader = LoaderConfig(preset.length, 1, preset.block, 1, preset.window, clock=preset.clock)
    step = task_named(task).steps[-1]
    built = build_example(step, clip, window_at(0, 10, preset.window), loader, VOCABULARY, ByteText())
    pad = lambda a: np.pad(a, (0, preset.length - a.size))[None]  # noqa: E731
    n = built["tokens"].size
    batch = arrange(
        pad(built["tokens"]), pad(np.ones(n, int)), pad(np.arange(n)), pad(built["target"]), loader, VOCABULARY,
        HeadLayout.of(VOCABULARY, model), pad(built["clock"]),
    )  # fmt: skip
    return float(jax.jit(lambda p, b: loss(model, p, b)[0])(params, batch))


def test_it_learns_and_the_right_condition_helps(tmp_path):
    names = ("speech-image-shape-to-expression", "image-to-shape")
    job = small_job(tasks=",".join(names))
    result = train(job, tmp_path / "work", save_every=0)
    assert result.loss_end < 0.6 * result.loss_start
    kind, _, params, meta = load_model(tmp_path / "work")
    assert kind == "language" and meta.extra["length"] == SMALL.length
    assert Vocabulary.from_json(meta.extra["vocabulary"]) == VOCABULARY
    assert {name for name, weight in meta.extra["task_weights"].items() if weight} == set(names)
    params = jax.tree.map(jnp.asarray, params)
    clips = [record(i, frames=37) for i in range(0, 24, 6)]
    right = [step_loss(job, params, clip, names[1]) for clip in clips]
    # The same targets under another person's image.
    others = [next(o for o in clips if not np.array_equal(o["shape"], clip["shape"])) for clip in clips]
    wrong = [
        step_loss(job, params, clip | {"image": o["image"]}, names[1]) for clip, o in zip(clips, others, strict=True)
    ]
    assert np.mean(right) < np.mean(wrong)


def test_it_begins_with_a_checkpoint(tmp_path):
    """The body's sizes are the checkpoint's, its weights are there before the first step, and go with the run."""
    from transformers import GemmaConfig, GemmaForCausalLM

    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    rows = VOCABULARY.sizes[0][0]
    gemma = GemmaForCausalLM(GemmaConfig(vocab_size=rows, head_dim=16, intermediate_size=40, **sizes))
    gemma.save_pretrained(tmp_path / "gemma")
    preset = with_sizes_of(str(tmp_path / "gemma"), dataclasses.replace(SMALL, init_from=str(tmp_path / "gemma")))
    assert SMALL.clock and not preset.clock
    assert (preset.width, preset.layers, preset.head_width, preset.hidden) == (32, 1, 16, 40)
    column = [record(i, frames=37) for i in range(8)]
    preset = dataclasses.replace(preset, steps=1, warmup=0, peak_rate=0.0, final_rate=0.0)
    train(make_job(LanguageJobConfig(preset, VOCABULARY), text=ByteText(), column=column), tmp_path / "w", save_every=0)
    _, config, params, _ = load_model(tmp_path / "w")
    assert config["width"] == 32
    wanted = gemma.model.layers[0].mlp.down_proj.weight.detach().numpy().T
    np.testing.assert_array_equal(params["layers"]["down"][0], wanted)
    np.testing.assert_array_equal(params["embedding"]["text"], gemma.model.embed_tokens.weight.detach().numpy())


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    straight = train(small_job(steps=4), tmp_path / "straight", save_every=0)
    job, batches = small_job(steps=4), []

    def stop_at_the_third(batch):
        batches.append(1)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    stopped = dataclasses.replace(job, train_batches=lambda: job.train_batches().map(stop_at_the_third))
    with pytest.raises(SystemExit):
        train(stopped, tmp_path / "stopped", save_every=0)
    resumed = train(small_job(steps=4), tmp_path / "stopped", save_every=0)
    assert resumed.resumed_from == 3
    assert load_model(straight.directory)[3].weights_sha256 == load_model(resumed.directory)[3].weights_sha256


def test_the_paper_preset_can_be_shown_without_data_and_says_what_the_paper_says():
    job = build_job("language", preset="paper")
    preset = job.config.preset
    assert (preset.warmup, preset.peak_rate, preset.final_rate, preset.weight_decay) == (4000, 1e-3, 5e-5, 1e-3)
    assert preset.rows == 256 and preset.length == 8192 and job.config.vocabulary.total == 546_944
    state = jax.eval_shape(job.init, jax.random.key(0))
    assert sum(np.prod(a.shape) for a in jax.tree.leaves(state["params"])) > 2e9
    with pytest.raises(InputError, match="--dataset"):
        next(iter(job.train_batches()))


def test_overrides_and_missing_tokenizers(tmp_path):
    job = build_job("language", preset="tiny", overrides={"window.current": "9", "width": "64"}, steps=7)
    assert job.config.preset.window.current == 9 and job.config.preset.width == 64 and job.steps == 7
    with pytest.raises(InputError, match="--tokenizers"):
        build_job("language", dataset=tmp_path)


def test_a_dataset_is_trained_on_only_with_the_tokenizers_that_made_it(tmp_path, monkeypatch):
    shard = write_shard(tmp_path, shard_name("tokens", 0, 1), [record(i, frames=37) for i in range(8)])
    update_manifest(tmp_path, {"tokens": ([shard], {"tokenizers": {"speech": "abc"}})})
    space = TokenSpace(VOCABULARY, ByteText(), {"speech": "abc"})
    monkeypatch.setattr(language_job, "read_token_space", lambda tokenizers: space)
    job = build_job("language", dataset=tmp_path, tokenizers=tmp_path, overrides={"length": "1536"})
    assert job.config.vocabulary == VOCABULARY and job.data
    assert next(iter(job.train_batches()))["tokens"].shape == (1, 1536)
    assert len(list(job.heldout_batches())) == TINY.heldout_batches
    space.weights["speech"] = "def"
    with pytest.raises(InputError, match="speech tokenizer abc, but .* has def"):
        build_job("language", dataset=tmp_path, tokenizers=tmp_path)


def test_the_held_out_loss_of_the_tiny_preset_is_of_every_task_that_fits():
    """One held-out clip of four seconds: its whole semantics leave no room for the script."""
    clip = record(0, frames=121) | {"description": "d" * 40, "script": "s" * 10}
    job = make_job(LanguageJobConfig(TINY, VOCABULARY), text=ByteText(), column=[clip])
    batches = list(job.heldout_batches())
    assert len(batches) == TINY.heldout_batches
    found = {int(task) for batch in batches for task in batch["head_task"][batch["head_weights"] > 0]}
    missing = {task.name for number, task in enumerate(TASKS) if number not in found}
    assert missing == {"semantics-to-script", "video-to-script"}


def test_a_work_directory_belongs_to_its_mixture(tmp_path):
    """The weights are part of the config: where they came from does not matter, what they are does."""
    table = {task.name: {"weight": 1.0} for task in TASKS}
    files = [tmp_path / name for name in ("one.json", "copy.json", "other.json")]
    for file in files:
        table[TASKS[0].name]["weight"] = 1.0 + 4 * (file.stem == "other")
        file.write_text(json.dumps({"tasks": table}))
    one, copy, other = (build_job("language", overrides={"tasks": str(file)}).config for file in files)
    assert one == copy == build_job("language").config != other
    work = tmp_path / "work"
    work.mkdir()
    (work / "job.json").write_text(json.dumps({"name": "language", "config": repr(one)}))
    with pytest.raises(InputError, match="belongs to another run: config is .*past-speech-to-speech") as refused:
        train(make_job(other), work)
    assert len(str(refused.value)) < 1500, "the whole of both configs"


def test_only_the_language_model_has_tasks(capsys):
    assert main(["train", "pose", "--tasks", "uniform", "--dry-run"]) == 2
    assert "--tasks is for the language model" in capsys.readouterr().err
    assert main(["train", "language", "--tasks", "speech-to-smell", "--dry-run"]) == 2
    assert "no task 'speech-to-smell'" in capsys.readouterr().err
    assert main(["train", "language", "--tasks", "speech-to-script", "--dry-run"]) == 0
    assert "('speech-to-script', 1.0)" in capsys.readouterr().out


def test_every_part_of_a_step_forgets_by_a_key_of_its_own():
    config = language_config(dropout=0.3, layers=1)
    params = random_params(config)
    batch = language_batch(config, rows=2, length=512, look_at=1)
    twice = jax.tree.map(lambda x: np.concatenate([x[:1], x[:1]]), batch)  # two parts that are the same
    step = jax.jit(functools.partial(gradient, config, parts=2))
    value, grads = step(params, twice, key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 2)
    one = jax.tree.map(lambda x: x[:1], batch)
    of_part = jax.jit(functools.partial(loss, config))
    alone = [float(of_part(params, one, key=key)[0]) for key in keys]
    assert alone[0] != alone[1] and float(value) == pytest.approx(np.mean(alone), abs=1e-5)
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))
