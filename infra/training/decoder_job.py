"""The video decoder's two jobs: the autoencoder on windows of clips, then the diffusion model on their latents."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from infra.presets.decoder import AdafactorConfig, AutoencoderTraining, DecoderTraining, DiffusionTraining
from infra.training import data
from infra.training.jobs import Part, preset_config
from infra.training.loop import Job
from infra.training.optimizers import OptimizerConfig, make_optimizer
from models import video_autoencoder, video_decoder
from models.errors import InputError
from models.io import save_model
from models.semantic_warp import warp
from models.tokenizers import load_tokenizer
from models.video_autoencoder import TrainedAutoencoder, load_autoencoder, pixels_to_unit
from models.video_generation import label_steps, resize_image, resize_labels, text_condition
from pipelines.dataset import Dataset
from pipelines.stages.frames import clip_frames

COLUMNS = ("clips", "semantics", "image", "description")
_PCA_WINDOWS = 64  # windows of frames that the linear path's start is computed from


def build(
    *,
    preset: str,
    dataset: Path | None,
    tokenizers: Path | None,
    overrides: dict[str, str],
    steps: int | None,
    seed: int,
) -> tuple[Part, Part]:
    """Builds both parts; arguments as in ``infra.training.jobs.build_job``.

    ``steps`` is given to both. The second part reads the first one's model from its folder.
    """
    config: DecoderTraining = preset_config("infra.presets.decoder", preset, overrides)
    if steps is not None:
        config = dataclasses.replace(
            config,
            autoencoder=dataclasses.replace(config.autoencoder, steps=steps),
            diffusion=dataclasses.replace(config.diffusion, steps=steps),
        )
    if dataset is not None and tokenizers is None:
        raise InputError("train decoder: --tokenizers is needed: the decoder reads text by the text tokenizer's ids")

    def autoencoder(_: Path, steps: int) -> Job:
        return autoencoder_job(dataclasses.replace(config.autoencoder, steps=steps), dataset, seed)

    def diffusion(workdir: Path, steps: int) -> Job:
        trained = load_autoencoder(workdir / "autoencoder")
        text = load_tokenizer(Path(tokenizers) / "text")
        return diffusion_job(dataclasses.replace(config.diffusion, steps=steps), dataset, trained, text, seed)

    return (
        Part("autoencoder", config.autoencoder, autoencoder),
        Part("diffusion", config.diffusion, diffusion),
    )


# --- Data -------------------------------------------------------------------------------------------------------------


class JoinedColumns:
    """Several columns of a dataset as one: row -> the columns' records, by column name.

    Has the part of ``Dataset`` that ``data.Rows`` uses.
    """

    def __init__(self, dataset: Dataset, names: Sequence[str]):
        self._columns = {name: dataset.column(name) for name in names}

    def column(self, _: str) -> "JoinedColumns":
        return self

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self._columns.items()}


def _rows(dataset: Path | None, names: Sequence[str], split: str, read, budget: float) -> data.Rows:
    if dataset is None:
        raise InputError("train decoder: --dataset is needed")
    source = Dataset(dataset)
    good = set(source.good_rows(*names))
    rows = [row for row in source.split(split) if row in good]
    if not rows:
        raise InputError(f"{dataset}: no usable {split} row in columns {', '.join(names)}; two sources are needed")
    return data.Rows(JoinedColumns(source, names), "", rows, read, int(budget * 2**30))


def read_frames(record: Mapping[str, Any], resolution: int) -> np.ndarray:
    """Decodes a clip: returns uint8 (T, resolution, resolution, 3)."""
    return np.stack([resize_image(frame, resolution) for frame in clip_frames(record)])


def flip(x: np.ndarray, axis: int) -> np.ndarray:
    """Mirrors left and right along an axis (labels have no sides, so they mirror like pixels)."""
    return np.ascontiguousarray(np.flip(x, axis))


# --- The autoencoder --------------------------------------------------------------------------------------------------


def autoencoder_job(config: AutoencoderTraining, dataset: Path | None, seed: int = 0) -> Job:
    """The video autoencoder on random windows of clips, mirrored half of the time."""
    model = config.model
    optimizer = make_optimizer(config.optimizer, config.steps)

    @functools.cache
    def rows(split: str) -> data.Rows:
        def read(record):
            return {"frames": read_frames(record["clips"], model.resolution)}

        return _rows(dataset, ("clips",), split, read, 1.0)

    def make(item, rng):
        frames = item["frames"]
        frames = data.cut(frames, data.window(len(frames), config.frames, rng), config.frames)
        return {"frames": flip(frames, 2) if rng.random() < 0.5 else frames}

    def make_fixed(item, where):
        frames = item["frames"]
        return {"frames": data.cut(frames, data.window(len(frames), config.frames, where), config.frames)}

    @functools.cache
    def linear_start() -> dict | None:
        if not model.linear_path or dataset is None:
            return None
        windows = data.fixed_batches(rows("train"), make_fixed, batch=_PCA_WINDOWS, batches=1)
        return video_autoencoder.principal_cells(pixels_to_unit(next(windows)["frames"]), model.latent_channels)

    def init(key):
        params = video_autoencoder.init(model, key, linear_start())
        return {"params": params, "optimizer": optimizer.init(params)}

    def unit(batch):
        return batch["frames"].astype(np.float32) / 127.5 - 1

    def step(state, batch, key):
        def loss(params):
            return video_autoencoder.training_loss(model, params, unit(batch), key)

        old = state["params"]
        (value, (mean, std)), gradient = jax.value_and_grad(loss, has_aux=True)(old)
        updates, moments = optimizer.update(gradient, state["optimizer"], old)
        params = dict(optax.apply_updates(old, updates))
        for name, new in (("latent_mean", mean), ("latent_std", std)):
            params[name] = config.average * old[name] + (1 - config.average) * new
        return {"params": params, "optimizer": moments}, {"loss": value}

    def evaluate(state, batch, key):
        del key
        params, frames = state["params"], unit(batch)
        output = video_autoencoder.decode(model, params, video_autoencoder.encode(model, params, frames))
        error = ((output - frames) ** 2).mean() / 4  # of pixels in 0..1
        loss = video_autoencoder.reconstruction_loss(model, output, frames)
        return {"loss": loss, "psnr_db": -10 * jax.numpy.log10(error)}

    return Job(
        name="autoencoder",
        config=config,
        init=init,
        step=step,
        evaluate=evaluate,
        train_batches=lambda: data.train_iterator(rows("train"), make, batch=config.batch, seed=seed),
        heldout_batches=lambda: data.fixed_batches(
            rows("heldout"), make_fixed, batch=config.batch, batches=config.heldout_batches
        ),
        export=lambda state, directory: save_model(directory, video_autoencoder.KIND, model, state["params"]),
        steps=config.steps,
        items=config.batch,
        data="" if dataset is None else data.data_identity(dataset),
    )


# --- The diffusion model ----------------------------------------------------------------------------------------------


def diffusion_optimizer(config: OptimizerConfig | AdafactorConfig, steps: int) -> optax.GradientTransformation:
    """AdamW with cosine decay, or Adafactor with a constant rate after warm-up."""
    if isinstance(config, OptimizerConfig):
        return make_optimizer(config, steps)
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, config.peak, config.warmup), optax.constant_schedule(config.peak)], [config.warmup]
    )
    return optax.adafactor(schedule, multiply_by_parameter_scale=False)


def read_clip(record: Mapping[str, Any], model, autoencoder: TrainedAutoencoder, text) -> dict[str, np.ndarray]:
    """A clip as the diffusion model sees it, as it is and mirrored (leading axis 2).

    Returns:
        ``latents`` float32 (2, K, h, w, c), ``labels`` uint8 (2, T, S, S), ``image`` float32 (2, h, w, c),
        ``image_labels`` uint8 (2, S, S), ``text`` int32 (L,), ``text_mask`` bool (L,), and ``anchor`` (2, K, h, w, c)
        if the model has one.
    """
    resolution, size = autoencoder.config.resolution, model.condition_size
    frames = read_frames(record["clips"], resolution)
    labels = resize_labels(np.asarray(record["semantics"]["labels"]), size)
    image = resize_image(np.asarray(record["image"]["image"]), resolution)
    image_labels = labels[int(record["image"]["frame"])]
    out = {
        "latents": [autoencoder.encode(frames), autoencoder.encode(flip(frames, 2))],
        "labels": [labels, flip(labels, 2)],
        "image": [autoencoder.encode(image[None])[0], autoencoder.encode(flip(image, 1)[None])[0]],
        "image_labels": [image_labels, flip(image_labels, 1)],
    }
    if model.anchor:
        moved = warp(image, image_labels, labels)
        out["anchor"] = [autoencoder.encode(moved), autoencoder.encode(flip(moved, 2))]
    arrays = {name: np.stack(pair) for name, pair in out.items()}
    ids = text.encode(record["description"]["description"])
    arrays["text"], arrays["text_mask"] = text_condition(ids, model.text_tokens)
    return arrays


def cut_window(item: Mapping[str, np.ndarray], steps: int, where: float | np.random.Generator, side: int) -> dict:
    """Cuts ``steps`` latents out of a clip; ``side`` 1 is the mirrored one."""
    have = item["latents"].shape[1]
    start = data.window(have, steps, where)
    frames = item["labels"][side]
    # The four frames of each step; those of the first step of a clip are frame 0 (``label_steps``).
    labels = label_steps(frames)[start : start + steps]
    out = {
        "latents": data.cut(item["latents"][side], start, steps),
        "labels": data.cut(labels, 0, steps),
        "image": item["image"][side],
        "image_labels": item["image_labels"][side],
        "text": item["text"],
        "text_mask": item["text_mask"],
        "steps": np.int32(min(steps, have - start)),
        "first": np.bool_(start == 0),
    }
    if "anchor" in item:
        out["anchor"] = data.cut(item["anchor"][side], start, steps)
    return out


def diffusion_job(
    config: DiffusionTraining, dataset: Path | None, autoencoder: TrainedAutoencoder | None, text, seed: int = 0
) -> Job:
    """The diffusion model on random windows of encoded clips.

    Args:
        config: of the preset; the vocabulary is the text tokenizer's, the latents' shape the autoencoder's.
        dataset: its directory. Without dataset, autoencoder and text the state's shapes can be computed.
        autoencoder: the trained autoencoder.
        text: the trained text tokenizer.
        seed: of the data order.
    """
    if autoencoder is not None:
        model = dataclasses.replace(
            config.model,
            latent_size=autoencoder.config.latent_size,
            latent_channels=autoencoder.config.latent_channels,
            vocabulary=text.codebook_sizes[0],
        )
        config = dataclasses.replace(config, model=model)
    model = config.model
    optimizer = diffusion_optimizer(config.optimizer, config.steps)

    @functools.cache
    def rows(split: str) -> data.Rows:
        read = functools.partial(read_clip, model=model, autoencoder=autoencoder, text=text)
        return _rows(dataset, COLUMNS, split, read, config.cache_gib)

    def make(item, rng):
        side = int(rng.integers(2))
        return cut_window(item, model.window_steps, rng, side)

    def make_fixed(item, where):
        return cut_window(item, model.window_steps, where, 0)

    def init(key):
        params = video_decoder.init(model, key)
        state = {"params": params, "optimizer": optimizer.init(params)}
        return {**state, "average": jax.tree.map(jax.numpy.copy, params)} if config.average else state

    def step(state, batch, key):
        def loss(params):
            return video_decoder.training_loss(model, params, batch, key)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"params": params, "optimizer": moments}
        if config.average:
            new["average"] = optax.incremental_update(params, state["average"], 1 - config.average)
        return new, {"loss": value}

    def evaluate(state, batch, key):
        params = state.get("average", state["params"])
        return {"loss": video_decoder.training_loss(model, params, batch, key, drop=False)}

    def export(state, directory):
        extra = {
            "autoencoder_sha256": autoencoder.weights_sha256,
            "text_sha256": text.weights_sha256,
            "sampling": dataclasses.asdict(config.sampling),
        }
        save_model(directory, video_decoder.KIND, model, state.get("average", state["params"]), extra)

    identity = ""
    if dataset is not None:
        identity = f"{data.data_identity(dataset, *COLUMNS)} {autoencoder.weights_sha256} {text.weights_sha256}"
    return Job(
        name="diffusion",
        config=config,
        init=init,
        step=step,
        evaluate=evaluate,
        train_batches=lambda: data.train_iterator(rows("train"), make, batch=config.batch, seed=seed),
        heldout_batches=lambda: data.fixed_batches(
            rows("heldout"), make_fixed, batch=config.batch, batches=config.heldout_batches
        ),
        export=export,
        steps=config.steps,
        items=config.batch,
        data=identity,
    )
