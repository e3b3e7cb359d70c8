"""The tokenizers' training jobs: presets, data and models put together for the loop; the fit of the text tokenizer."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from infra.training import data
from infra.training.jobs import preset_config
from models.errors import InputError
from models.signals import grid_frames
from pipelines.dataset import Dataset


def _autoencoder_job(
    name: str,
    config: Any,
    steps: int,
    *,
    init: Callable,
    loss: Callable,
    rows: Callable[[str], Any],
    make: Callable,
    make_fixed: Callable,
    seed: int,
    export: Callable,
    discriminator: Callable | None = None,
    identity: str = "",
):
    """Builds a ``Job`` from a model's parts.

    Args:
        init: key -> {"params", and "books" if the model has codebooks}.
        loss: (params, books, batch, key, train) -> (loss, metrics, books, (real, made)).
        rows: split -> random access to items.
        make: (item, rng) -> training example; make_fixed: (item, where) -> held-out example.
        export: (state, directory) -> None.
        discriminator: builds the module that judges ``real`` and ``made``; used if the config has ``adversarial``.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from infra.training.loop import Job
    from infra.training.optimizers import make_optimizer
    from models.layers.module import abstract, initialise
    from models.tokenizers.adversarial import discriminator_loss, generator_loss

    optimizer = make_optimizer(config.optimizer, steps)
    adversarial = getattr(config, "adversarial", None)
    if adversarial is not None:
        judge_graph, _ = abstract(discriminator)
        judge_optimizer = optax.adam(adversarial.peak, b1=0.5, b2=0.9)

    def start(key):
        state = init(key)
        state["optimizer"] = optimizer.init(state["params"])
        if adversarial is not None:
            state["judge"] = initialise(discriminator, jax.random.fold_in(key, 1))
            state["judge_optimizer"] = judge_optimizer.init(state["judge"])
            state["step"] = jnp.zeros((), jnp.int32)
        return state

    def judge(params, x):
        return nnx.merge(judge_graph, params)(x)

    def step(state, batch, key):
        def total(params):
            value, metrics, books, pair = loss(params, state.get("books"), batch, key, True)
            metrics = {"loss": value, **metrics}
            if adversarial is not None:
                hinge, features = generator_loss(judge(state["judge"], pair[0]), judge(state["judge"], pair[1]))
                on = (state["step"] >= adversarial.start).astype(jnp.float32)
                value = value + on * (adversarial.weight * hinge + adversarial.feature_weight * features)
                metrics |= {"generator": hinge, "features": features}
            return value, (metrics, books, pair)

        (_, (metrics, books, pair)), gradient = jax.value_and_grad(total, has_aux=True)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        new = {**state, "params": optax.apply_updates(state["params"], updates), "optimizer": moments}
        if books is not None:
            new["books"] = books
        if adversarial is not None:
            real, made = jax.lax.stop_gradient(pair)

            def contest(params):
                return discriminator_loss(judge(params, real), judge(params, made))

            value, gradient = jax.value_and_grad(contest)(state["judge"])
            updates, moments = judge_optimizer.update(gradient, state["judge_optimizer"])
            new["judge"] = optax.apply_updates(state["judge"], updates)
            new["judge_optimizer"], new["step"] = moments, state["step"] + 1
            metrics["discriminator"] = value
        return new, metrics

    def evaluate(state, batch, key):
        value, metrics, _, _ = loss(state["params"], state.get("books"), batch, key, False)
        return {"loss": value, **metrics}

    def heldout():
        return data.fixed_batches(rows("heldout"), make_fixed, batch=config.batch, batches=config.heldout_batches)

    return Job(
        name=name,
        config=config,
        init=start,
        step=step,
        evaluate=evaluate,
        train_batches=lambda: data.train_iterator(rows("train"), make, batch=config.batch, seed=seed),
        heldout_batches=heldout,
        export=export,
        steps=steps,
        items=config.batch,
        data=identity,
    )


def _rows(dataset: Path | None, column: str, read: Callable[[dict], dict]) -> Callable[[str], data.Rows]:
    """Returns split -> rows of a column; a job without a dataset (``--dry-run``, compilation) has none to give."""

    def rows(split: str) -> data.Rows:
        if dataset is None:
            raise InputError("train: --dataset is needed")
        source = Dataset(dataset)
        return data.Rows(source, column, data.split_rows(source, column, split), read)

    return rows


def _identity(dataset: Path | None, column: str) -> str:
    return "" if dataset is None else data.data_identity(dataset, column)


# --- Speech -----------------------------------------------------------------------------------------------------------


def _read_speech(record: dict) -> dict:
    return {"audio": record["audio"].astype(np.float32) / 32768}


def build_speech(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The speech tokenizer on windows of the ``speech`` column."""
    from models.io import save_model
    from models.layers.module import abstract, initialise
    from models.layers.quantizers import rvq_init
    from models.tokenizers import adversarial, speech

    config = preset_config("infra.presets.speech", preset, overrides)
    model = config.model

    def build(rngs):
        return speech.build(model, rngs)

    graph, _ = abstract(build)

    def make(item, rng):
        audio = data.cut(item["audio"], data.window(len(item["audio"]), config.window, rng), config.window)
        gain = 10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20)
        return {"audio": np.clip(audio * gain, -1, 1).astype(np.float32)}

    def make_fixed(item, where):
        return {"audio": data.cut(item["audio"], data.window(len(item["audio"]), config.window, where), config.window)}

    return _autoencoder_job(
        "speech",
        config,
        steps or config.steps,
        init=lambda key: {"params": initialise(build, key), "books": rvq_init(model.rvq)},
        loss=lambda p, b, batch, key, train: speech.loss(model, graph, p, b, batch, key, train=train),
        rows=_rows(dataset, "speech", _read_speech),
        make=make,
        make_fixed=make_fixed,
        seed=seed,
        export=lambda state, directory: save_model(
            directory, speech.KIND, model, {"params": state["params"], "code": state["books"]["code"]}
        ),
        discriminator=lambda rngs: adversarial.WaveDiscriminator(config.adversarial, rngs=rngs),
        identity=_identity(dataset, "speech"),
    )


# --- Image and semantic video -----------------------------------------------------------------------------------------


def _shifted(x: np.ndarray, shift: int, flip: bool, rng: np.random.Generator) -> np.ndarray:
    """Moves (T, H, W, ...) by up to ``shift`` pixels with its border repeated, and mirrors it half of the time."""
    if flip and rng.random() < 0.5:
        x = x[:, :, ::-1]
    dy, dx = rng.integers(-shift, shift + 1, 2)
    rows = np.clip(np.arange(x.shape[1]) + dy, 0, x.shape[1] - 1)
    columns = np.clip(np.arange(x.shape[2]) + dx, 0, x.shape[2] - 1)
    return np.ascontiguousarray(x[:, rows][:, :, columns])


def _all(rows: data.Rows) -> Iterator[dict]:
    """Yields the rows, or some hundreds of them spread evenly where there are more."""
    for index in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 512)).astype(int)):
        yield rows[index]


def _with_prior(params: dict, net, mean: Callable[[], np.ndarray] | None) -> dict:
    """Starts the decoder's prior map, if the network has one, at the training data's mean (None leaves it at zero)."""
    import jax.numpy as jnp

    if not net.prior or mean is None:
        return params
    return {**params, "decoder": {**params["decoder"], "prior": jnp.asarray(mean())}}


def _read_image(record: dict) -> dict:
    return {"image": np.asarray(record["image"])}


def build_image(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The image tokenizer on the ``image`` column, moved, mirrored and re-coloured a little."""
    from models.io import save_model
    from models.layers.module import abstract, initialise
    from models.tokenizers import adversarial, image

    config = preset_config("infra.presets.image", preset, overrides)
    model = config.model

    def build(rngs):
        return image.build(model, rngs)

    graph, _ = abstract(build)

    rows = _rows(dataset, "image", _read_image)

    def mean():
        return np.mean([item["image"] / 127.5 - 1 for item in _all(rows("train"))], 0).astype(np.float32)

    def loss(params, books, batch, key, train):
        value, metrics, pair = image.loss(model, graph, params, batch)
        return value, metrics, None, pair

    def make(item, rng):
        picture = _shifted(item["image"][None], config.shift, config.flip, rng)[0].astype(np.float32)
        gain, offset = rng.uniform(0.8, 1.2, 3), rng.uniform(-20, 20)
        return {"image": np.clip(picture * gain + offset, 0, 255).astype(np.uint8)}

    return _autoencoder_job(
        "image",
        config,
        steps or config.steps,
        init=lambda key: {"params": _with_prior(initialise(build, key), model.net, mean if dataset else None)},
        loss=loss,
        rows=rows,
        make=make,
        make_fixed=lambda item, where: {"image": item["image"]},
        seed=seed,
        export=lambda state, directory: save_model(directory, image.KIND, model, {"params": state["params"]}),
        discriminator=lambda rngs: adversarial.PatchDiscriminator(config.adversarial, 3, 1, rngs=rngs),
        identity=_identity(dataset, "image"),
    )


def _read_labels(record: dict) -> dict:
    return {"labels": np.ascontiguousarray(record["labels"][:, ::2, ::2])}


def build_semantic(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The semantic tokenizer on windows of the ``semantics`` column at 128x128."""
    from models.io import save_model
    from models.layers.module import abstract, initialise
    from models.tokenizers import adversarial, semantic

    config = preset_config("infra.presets.semantic", preset, overrides)
    if grid_frames(config.frames) != config.frames:
        raise InputError(f"semantic: frames {config.frames}, expected 4k + 1")
    model = config.model

    def build(rngs):
        return semantic.build(model, rngs)

    graph, _ = abstract(build)

    rows = _rows(dataset, "semantics", _read_labels)

    def mean():
        return semantic.prior((item["labels"] for item in _all(rows("train"))), config.shift)

    def loss(params, books, batch, key, train):
        value, metrics, pair = semantic.loss(model, graph, params, batch, key)
        return value, metrics, None, pair

    def piece(item, where):
        return data.cut(item["labels"], data.window(len(item["labels"]), config.frames, where), config.frames)

    return _autoencoder_job(
        "semantic",
        config,
        steps or config.steps,
        init=lambda key: {"params": _with_prior(initialise(build, key), model.net, mean if dataset else None)},
        loss=loss,
        rows=rows,
        make=lambda item, rng: {"labels": _shifted(piece(item, rng), config.shift, config.flip, rng)},
        make_fixed=lambda item, where: {"labels": piece(item, where)},
        seed=seed,
        export=lambda state, directory: save_model(directory, semantic.KIND, model, {"params": state["params"]}),
        discriminator=lambda rngs: adversarial.PatchDiscriminator(config.adversarial, 3, 3, rngs=rngs),
        identity=_identity(dataset, "semantics"),
    )


# --- Shape, expression, pose ------------------------------------------------------------------------------------------


def build_shape(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The shape tokenizer on the ``shape`` column."""
    return _build_animation("shape", preset, dataset, overrides, steps, seed)


def build_expression(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The expression tokenizer on windows of the ``expression`` column."""
    return _build_animation("expression", preset, dataset, overrides, steps, seed)


def build_pose(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The pose tokenizer on windows of the ``pose`` column."""
    return _build_animation("pose", preset, dataset, overrides, steps, seed)


class _Signal:
    """Reads one field as (T, D); shape has T = 1."""

    def __init__(self, field: str):
        self.field = field

    def __call__(self, record: dict) -> dict:
        x = np.asarray(record[self.field], np.float32)
        return {"signal": x[None] if x.ndim == 1 else x}


def _visible_scale(dataset: Path, mean: np.ndarray, std: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns (what the channels of an expression are scaled by, what each is divided by).

    Where the embedded head was fitted, a channel counts as much as it moves the landmarks, so that the first levels say
    what is seen first, the jaw; one that moves them little or not at all (gaze) still counts a tenth of the largest.
    Other heads' channels count alike.
    """
    from models.face.model import channel_effects, load_face_model
    from pipelines.dataset import Dataset

    head = load_face_model()
    fitted = {row["face_model"] for row in Dataset(dataset).column("shape") if not row["error"]}
    if fitted != {head.name}:
        return "deviation", std
    effect = channel_effects(head.landmark_model(), mean, std)
    effect = np.maximum(effect, 0.1 * effect.max())
    return "landmarks", (std * np.sqrt(np.mean(effect**2)) / effect).astype(np.float32)


def _build_animation(kind: str, preset: str, dataset: Path | None, overrides: dict, steps: int | None, seed: int):
    import jax
    import jax.numpy as jnp

    from models.io import save_model
    from models.layers.module import abstract, initialise
    from models.layers.quantizers import rvq_init
    from models.tokenizers import animation

    config = preset_config(f"infra.presets.{kind}", preset, overrides)
    if grid_frames(config.frames) != config.frames:
        raise InputError(f"{kind}: frames {config.frames}, expected 4k + 1")
    rows = _rows(dataset, kind, _Signal(kind))
    mean = std = np.zeros(config.model.channels, np.float32)
    if dataset is not None:
        train = rows("train")
        values = np.concatenate([train[i]["signal"] for i in range(len(train))])
        mean = values.mean(0)
        std = np.maximum(values.std(0), config.model.std_floor)
        scale = "deviation"
        if kind == "expression":
            scale, std = _visible_scale(dataset, mean, std)
        print(f"[{kind}] channels scaled by {scale}", file=sys.stderr, flush=True)
        sizes = {"channels": values.shape[1], "scale": scale}
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    model = config.model

    def build(rngs):
        return animation.build(model, rngs)

    graph, _ = abstract(build) if model.channels else (None, None)

    def loss(params, books, batch, key, train):
        signal = batch["signal"]
        if train:
            prior, noise, key = jax.random.split(key, 3)
            drawn = jax.random.normal(prior, (config.drawn, *signal.shape[1:]))
            signal = jnp.concatenate([signal, drawn]) if config.drawn else signal
            signal = signal + config.noise * jax.random.normal(noise, signal.shape)
        return *animation.loss(model, graph, params, books, {"signal": signal}, key, train=train), None

    def piece(item, where):
        signal = item["signal"]
        return (data.cut(signal, data.window(len(signal), config.frames, where), config.frames) - mean) / std

    def make(item, where):
        return {"signal": piece(item, where).astype(np.float32)}

    def export(state, directory):
        params = {"params": state["params"], "code": state["books"]["code"], "mean": mean, "std": std}
        save_model(directory, kind, model, params)

    return _autoencoder_job(
        kind,
        config,
        steps or config.steps,
        init=lambda key: {"params": initialise(build, key), "books": rvq_init(model.rvq)},
        loss=loss,
        rows=rows,
        make=make,
        make_fixed=make,
        seed=seed,
        export=export,
        identity=_identity(dataset, kind),
    )


# --- Text -------------------------------------------------------------------------------------------------------------


def text_config(*, preset: str, overrides: dict[str, str]):
    """Returns the text tokenizer's config."""
    return preset_config("infra.presets.text", preset, overrides)


def train_text(config, dataset: Path, directory: Path, extra: list[str] | None = None) -> dict:
    """Fits SentencePiece to the training clips' scripts and descriptions and to extra lines, or takes a given model.

    Args:
        config: models.tokenizers.text.TextConfig.
        dataset: has the columns ``script`` and ``description``.
        directory: of the tokenizer.
        extra: lines that have to be told well whatever the corpus (the prompts); None takes ``tasks.prompts``'s.

    Returns:
        {"name", "lines", "vocabulary", "weights_sha256", "directory"}; an existing tokenizer that was fitted with this
        config to these lines is kept.
    """
    import hashlib
    import json

    from models.io import load_model
    from models.tokenizers import text

    directory = Path(directory)
    if config.model:
        return _taken_text(config.model, directory)
    if extra is None:
        from tasks.prompts import prompt_corpus

        extra = prompt_corpus()
    source = Dataset(dataset)
    lines = list(extra)
    for column, field in (("script", "text"), ("description", "description")):
        records = source.column(column)
        lines += [records[row][field] for row in data.split_rows(source, column, "train")]
    corpus = hashlib.sha256(json.dumps([config.vocabulary, lines]).encode()).hexdigest()
    if not (directory / "model.json").is_file() or load_model(directory)[3].extra.get("corpus_sha256") != corpus:
        text.save(directory, text.fit(lines, config), config, {"corpus_sha256": corpus, "lines": len(lines)})
    return _text_facts(directory, len(lines))


def _taken_text(path: str, directory: Path) -> dict:
    """Makes a tokenizer's directory of a SentencePiece model file. InputError if it is none."""
    from models.tokenizers import text

    try:
        pieces = text.TextTokenizer.from_file(path).codebook_sizes[0]
    except OSError as error:
        raise InputError(f"--set model={path}: {error.strerror}") from None
    text.save(directory, Path(path).read_bytes(), text.TextConfig(vocabulary=pieces), {"lines": 0})
    return _text_facts(directory, 0)


def _text_facts(directory: Path, lines: int) -> dict:
    from models.tokenizers import load_tokenizer, text

    tokenizer = load_tokenizer(directory)
    return {
        "name": text.KIND,
        "lines": lines,
        "vocabulary": tokenizer.codebook_sizes[0],
        "weights_sha256": tokenizer.weights_sha256,
        "directory": str(directory),
    }
