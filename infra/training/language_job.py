"""The language model's training job: token records through the loader into the prefix language model."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infra.presets.language import LanguageConfig
from infra.training.jobs import preset_config
from infra.training.loop import Job
from models.errors import InputError
from models.gemma import checkpoint_files, load_gemma, read_sizes
from models.io import save_model
from models.language_model import LanguageModelConfig, init_params, loss, parameter_axes
from pipelines import storage
from pipelines.dataset import Dataset
from tasks.generate import check_weights, read_token_space
from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig, TokenRecords, heldout_batches, training_batches
from tasks.mixture import UNIFORM, read_mixture
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
from tasks.prompts import TextCodec
from tasks.registry import TASKS


@dataclass(frozen=True)
class LanguageJobConfig:
    """What a work directory belongs to: the preset, the vocabulary that the tokenizers gave, how often each task is
    sampled, as (task, weight) pairs, and the hashes of the checkpoint's files that the training begins with. The
    weights themselves: a run goes on with those that it began with, wherever the file is that they came from.
    """

    preset: LanguageConfig
    vocabulary: Vocabulary
    mixture: tuple[tuple[str, float], ...] = read_mixture(UNIFORM, TASKS)
    begins_with: tuple[str, ...] = ()


def build(
    *,
    preset: str,
    dataset: Path | None,
    tokenizers: Path | None,
    overrides: dict[str, str],
    steps: int | None,
    seed: int,
) -> Job:
    """Builds the job; arguments as in ``infra.training.jobs.build_job``.

    Without a dataset (a dry run) the vocabulary is the published one. The override ``tasks`` is the mixture, as
    ``tasks.mixture.read_mixture`` takes it.
    """
    mixture = read_mixture(overrides.pop("tasks", UNIFORM), TASKS)
    config = preset_config("infra.presets.language", preset, overrides)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    begins_with: tuple[str, ...] = ()
    if config.init_from:
        config = with_sizes_of(config.init_from, config)
        begins_with = tuple(storage.sha256_file(path) for path in checkpoint_files(config.init_from))
    if dataset is None:
        vocabulary = paper_vocabulary()
        return make_job(LanguageJobConfig(config, vocabulary, mixture, begins_with))
    if tokenizers is None:
        raise InputError("train language: --tokenizers is needed: the vocabulary is computed from them")
    space = read_token_space(tokenizers)
    column = token_column(dataset, space.weights, tokenizers)
    data = json.dumps([dataclasses.asdict(info) for info in Dataset(dataset).shard_infos("tokens")])
    return make_job(
        LanguageJobConfig(config, space.vocabulary, mixture, begins_with),
        text=space.text,
        weights=space.weights,
        column=column,
        data=hashlib.sha256(data.encode()).hexdigest()[:16],
        seed=seed,
    )


def paper_vocabulary() -> Vocabulary:
    """The published one: 546,944 ids."""
    return Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1)


def with_sizes_of(folder: str, config: LanguageConfig) -> LanguageConfig:
    """Returns the preset with the body's sizes of a Gemma checkpoint, and without a clock, which its rotary frequencies
    have never turned with; a full-width image table stays one.
    """
    sizes = dataclasses.asdict(read_sizes(folder))
    del sizes["text"]
    image = sizes["width"] if config.image_width == config.width else config.image_width
    return dataclasses.replace(config, **sizes, image_width=image, clock=False)


def token_column(dataset: Path, weights: dict[str, str], tokenizers: Path) -> Sequence:
    """Opens a dataset's tokens column.

    Args:
        weights: tokenizer name -> sha256 of the tokenizers in use.
        tokenizers: where these are, for the message.

    Raises:
        InputError: no such column, damaged shards, or tokens that other tokenizers made.
    """
    Dataset(dataset).verify("tokens")
    made = Dataset(dataset).manifest()["columns"]["tokens"]["producer"]["tokenizers"]
    check_weights(made, weights, f"{dataset}: tokens were made by", f"{tokenizers} has")
    return Dataset(dataset).column("tokens")


def model_config(config: LanguageConfig, vocabulary: Vocabulary) -> LanguageModelConfig:
    """Returns the network of a preset over a vocabulary."""
    sizes = {f.name for f in dataclasses.fields(LanguageModelConfig)} & {f.name for f in dataclasses.fields(config)}
    return LanguageModelConfig(
        text=vocabulary.sizes[0][0],
        image=vocabulary.sizes[1][0],
        levels=tuple(size for levels in vocabulary.sizes[2:] for size in levels),
        **{name: getattr(config, name) for name in sizes},
    )


def optimizer(config: LanguageConfig) -> optax.GradientTransformation:
    """AdamW ("Adam with weight decay 1e-3" read as decoupled), warm-up from 0, cosine decay."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.peak_rate, min(config.warmup, config.steps), max(config.steps, config.warmup + 1), config.final_rate
    )
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule, weight_decay=config.weight_decay))


def state_axes(model: LanguageModelConfig, update: optax.GradientTransformation) -> dict:
    """Returns the logical axes of every array of the state: a moment lies where its parameter does."""
    axes = parameter_axes(model)
    params = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    moments = optax.tree_map_params(
        update,
        lambda _, names: names,
        jax.eval_shape(update.init, params),
        axes,
        transform_non_params=lambda _: (),
    )
    return {"params": axes, "optimizer": moments}


def gradient(model: LanguageModelConfig, params, batch: dict, parts: int = 1, key: jax.Array | None = None) -> tuple:
    """Returns (loss, gradient) of a batch, computed in so many parts one after the other: rows / parts at a time.

    Every part's loss is divided by the targets of the whole batch, so that the sum is the loss of the whole batch.
    """
    total = jnp.maximum(jnp.sum(batch["head_weights"]), 1)
    of_part = jax.value_and_grad(lambda p, part, key: loss(model, p, part, total, key)[0])
    if parts == 1:
        return of_part(params, batch, key)

    # A part takes every parts-th row: rows that lie on one device stay on it.
    split = jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    keys = None if key is None else jax.random.split(key, parts)

    def add(sofar, part):
        return jax.tree.map(jnp.add, sofar, of_part(params, *part)), None

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(of_part, params, batch, key))
    return jax.lax.scan(add, nothing, (split, keys))[0]


def loader_config(preset: LanguageConfig, processes: int = 1) -> LoaderConfig:
    """Returns what one of so many processes loads.

    Raises:
        InputError: rows that the processes, or the parts of a step, do not divide.
    """
    values = {f.name: getattr(preset, f.name) for f in dataclasses.fields(LoaderConfig)}
    if preset.rows % (processes * preset.accumulate):
        raise InputError(
            f"train language: rows={preset.rows}: expected a multiple of {processes} processes x "
            f"accumulate={preset.accumulate}"
        )
    return LoaderConfig(**values | {"rows": preset.rows // processes})


def make_job(
    config: LanguageJobConfig,
    *,
    text: TextCodec | None = None,
    weights: dict[str, str] | None = None,
    column: Sequence | None = None,
    data: str = "",
    seed: int = 0,
) -> Job:
    """Builds the job from parts.

    Args:
        config: preset, vocabulary and mixture.
        text: the text tokenizer.
        weights: tokenizer name -> sha256 of its weights; stored with the model.
        column: the tokens column. Without text and column the job can be shown and its state's shapes computed.
        data: identity of the column.
        seed: of the data order.
    """
    preset, vocabulary = config.preset, config.vocabulary
    model = model_config(preset, vocabulary)
    loader = loader_config(preset, jax.process_count())
    layout = HeadLayout.of(vocabulary, model)
    update = optimizer(preset)

    def init(key):
        params = init_params(model, key)
        return {"params": params, "optimizer": update.init(params)}

    def begin_from(state):
        params = load_gemma(preset.init_from, model, state["params"])
        return {"params": params, "optimizer": state["optimizer"]}

    def step(state, batch, key):
        value, grads = gradient(model, state["params"], batch, preset.accumulate, key if preset.dropout else None)
        changes, moments = update.update(grads, state["optimizer"], state["params"])
        return {"params": optax.apply_updates(state["params"], changes), "optimizer": moments}, {"loss": value}

    def evaluate(state, batch, key):
        del key
        return {"loss": loss(model, state["params"], batch)[0]}

    def export(state, directory):
        extra = {
            "vocabulary": vocabulary.to_json(),
            "tokenizers": weights or {},
            "window": dataclasses.asdict(preset.window),
            "length": preset.length,
            "steps": preset.steps,
            "task_weights": dict(config.mixture),
        }
        save_model(directory, "language", model, jax.device_get(state["params"]), extra)

    @functools.cache
    def records(split: str) -> TokenRecords:
        if column is None:
            raise InputError("train language: --dataset is needed")
        return TokenRecords.of_split(column, split)

    def maker(free: float = 0.0) -> ExampleMaker:
        weights = np.array([dict(config.mixture)[t.name] for t in TASKS])
        return ExampleMaker(TASKS, weights, loader, vocabulary, text, free)

    return Job(
        name="language",
        config=config,
        init=init,
        step=step,
        evaluate=evaluate,
        train_batches=lambda: training_batches(
            records("train"), maker(preset.free), layout, seed, (jax.process_index(), jax.process_count())
        ),
        heldout_batches=lambda: heldout_batches(records("heldout"), maker(), layout, preset.heldout_batches),
        export=export,
        steps=preset.steps,
        items=preset.rows,
        data=data,
        begin_from=begin_from if preset.init_from else None,
        axes=state_axes(model, update),
        rows=preset.rows // preset.accumulate,
    )
