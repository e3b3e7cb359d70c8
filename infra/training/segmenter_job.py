"""The segmenter's training job: examples of any mix of label sources, augmented, under one loss."""

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np

from infra.training import data
from infra.training.jobs import preset_config
from models.errors import InputError
from models.labels import LABELS
from pipelines.parsing_examples import Examples, ExampleSource, make_examples, truth_seeds
from pipelines.stages.augment import augmented_example, plain_example

# Weight of a pixel of each class in the cross-entropy: classes of few pixels count more.
_THIN = {
    "brows": 2.0,
    "lashes": 4.0,
    "pupil": 3.0,
    "iris": 3.0,
    "sclera": 3.0,
    "glasses": 2.0,
    "accessory": 8.0,
    "lips": 2.0,
    "teeth": 4.0,
    "tongue": 5.0,
    "nostrils": 3.0,
    "other-in-mouth": 3.0,
    "beard": 1.5,
    "ears": 1.5,
}
CLASS_WEIGHTS = np.array([_THIN.get(name, 1.0) for name in LABELS], np.float32)


class MixedRows:
    """The sources' examples as one sequence in which those beside ``truth`` have the wanted share.

    Args:
        sources: (is truth, examples) each.
        real_share: of the rows that are not from ``truth``; counts only where there are both.
    """

    def __init__(self, sources: list[tuple[bool, Examples]], real_share: float):
        rows = {True: [], False: []}
        for truth, examples in sources:
            rows[truth] += [(examples, k) for k in range(len(examples))]
        true, real = rows[True], rows[False]
        if true and real and 0 < real_share < 1:
            wanted = round(len(true) * real_share / (1 - real_share))
            # A source with too few is repeated, one with too many makes the other repeat.
            if wanted >= len(real):
                real = [real[k % len(real)] for k in range(wanted)]
            else:
                true = [true[k % len(true)] for k in range(round(len(real) * (1 - real_share) / real_share))]
        self._rows = true + real

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        examples, k = self._rows[int(index)]
        return examples[k]


def build(*, preset, dataset, tokenizers, overrides, steps, seed):
    """The job; ``dataset`` (a curated one) counts as a source ``landmarks=DATASET``."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from infra.training.loop import Job
    from infra.training.optimizers import make_optimizer
    from models import segmenter
    from models.dinov2 import load_dino
    from models.layers.module import abstract, initialise

    config = preset_config("infra.presets.segmenter", preset, overrides)
    if dataset is not None:
        config = dataclasses.replace(config, sources=(*config.sources, f"landmarks={dataset}"))
    sources = [ExampleSource.parse(text, config.per_clip) for text in config.sources]
    steps = steps or config.steps
    make = functools.partial(segmenter.build, config.model)
    graph, template = abstract(make)
    dino = isinstance(config.model, segmenter.DinoSegmenterConfig)
    names = set(template)
    if unknown := set(config.parts) - names:
        raise InputError(f"--set parts={','.join(config.parts)}: no {', '.join(unknown)}; expected of {sorted(names)}")
    kept = names - set(config.parts) if config.parts else set()
    frozen = kept | ({"backbone"} if dino and config.backbone_rate == 0 else set())
    if kept and not config.start_from:
        raise InputError("--set parts: needs start_from=DIRECTORY, the segmenter whose other parts are kept")
    optimizer = make_optimizer(config.optimizer, steps)
    if dino and "backbone" not in frozen:
        optimizer = optax.chain(optimizer, _slower("backbone", config.backbone_rate))

    def split(params):
        """(what is trained, what is not)."""
        fixed = {name: params[name] for name in sorted(frozen)}
        return {k: v for k, v in params.items() if k not in fixed}, fixed

    def start(key):
        params = initialise(make, key) if begin is None else jax.tree.map(jnp.asarray, begin)
        if config.backbone_weights:
            params = {**params, "backbone": jax.tree.map(jnp.asarray, backbone)}
        trained, fixed = split(params)
        return {
            "params": trained,
            "fixed": fixed,
            "average": trained,
            "optimizer": optimizer.init(trained),
            "step": jnp.zeros((), jnp.int32),
        }

    begin, begin_sha256 = None, ""
    if config.start_from:
        found, begin, _ = segmenter.load_segmenter(config.start_from)
        if found != config.model:
            raise InputError(f"{config.start_from}: a segmenter of {found}, expected {config.model}")
        begin_sha256 = segmenter.segmenter_sha256(config.start_from)
    backbone = None
    if config.backbone_weights:
        if not dino:
            raise InputError(f"--set backbone_weights: preset {preset} has no DINOv2 backbone")
        backbone = load_dino(config.backbone_weights, config.model.dino)
    weights = jnp.asarray(CLASS_WEIGHTS)

    trains_map, trains_windows = bool({"whole", "backbone", "head"} & (names - frozen)), "details" not in frozen

    def losses(params, batch, map_too: bool = True, windows_too: bool = True):
        """((loss, logits) of the whole crop, of the windows); what is not wanted is not computed."""
        net = nnx.merge(graph, params)

        def part(wanted, network, pictures, sets):
            logits = network(pictures) if wanted else None
            return (segmenter.set_loss(logits, sets, weights, config.dice), logits) if wanted else (0.0, None)

        return (
            part(map_too, net.map, batch["picture"], batch["sets"]),
            part(windows_too, net.windows, batch["windows"], batch["window_sets"]),
        )

    def total(first, second):
        return trains_map * first + trains_windows * config.window_weight * second

    def step(state, batch, key):
        def of(trained):
            (first, _), (second, _) = losses({**trained, **state["fixed"]}, batch, trains_map, trains_windows)
            return total(first, second), (first, second)

        (value, (first, second)), gradient = jax.value_and_grad(of, has_aux=True)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        # A young average follows quickly: it must not remember the initial values.
        decay = jnp.minimum(config.average, (1.0 + state["step"]) / (10.0 + state["step"]))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state["average"], params)
        new = {**state, "params": params, "average": average, "optimizer": moments, "step": state["step"] + 1}
        return new, {"loss": value, "whole": first, "windows": second}

    def evaluate(state, batch, key):
        (first, whole), (second, windows) = losses({**state["average"], **state["fixed"]}, batch)
        scores = segmenter.agreement(whole, batch["sets"])
        detail = segmenter.agreement(windows, batch["window_sets"])
        return {
            "loss": total(first, second),
            "whole": first,
            "windows": second,
            **scores,
            **{f"window_{name}": score for name, score in detail.items()},
        }

    @functools.cache
    def shards() -> tuple[tuple[bool, Path], ...]:
        if not sources:
            raise InputError("train segmenter: give --source KIND=PATH (or --dataset DATASET for landmarks=DATASET)")
        folder = config.cache or Path(sources[0].path.partition(":")[0]) / "examples"
        return tuple((source.kind == "truth", make_examples(source, folder)) for source in sources)

    def rows(part):
        return MixedRows([(truth, Examples(path, part)) for truth, path in shards()], config.real_share)

    def heldout():
        # Known truth alone, where there is any: partial labels would score what they can see.
        true = [(truth, Examples(path, "heldout")) for truth, path in shards() if truth]
        mixed = MixedRows(true, 0.0) if true else rows("heldout")
        spread = [mixed[k] for k in np.linspace(0, len(mixed) - 1, min(len(mixed), config.batch * 8)).astype(int)]
        return data.fixed_batches(
            spread, lambda item, where: plain_example(item), batch=config.batch, batches=config.heldout_batches
        )

    def export(state, directory):
        params = {**state["average"], **state["fixed"]}
        kinds = list(dict.fromkeys(source.kind for source in sources))
        real = {group for truth, path in shards() if not truth for group in Examples(path, "train").groups}
        extra = {
            "sources": kinds,
            "truth_seeds": sorted({seed for source in sources for seed in truth_seeds(source)}),
            "real_groups": sorted(real),
        }
        segmenter.save_segmenter(directory, config.model, params, extra)

    return Job(
        name="segmenter",
        config=config,
        init=start,
        step=step,
        evaluate=evaluate,
        train_batches=lambda: data.train_iterator(
            rows("train"),
            lambda item, rng: augmented_example(item, rng, config.augment),
            batch=config.batch,
            seed=seed,
        ),
        heldout_batches=heldout,
        export=export,
        steps=steps,
        items=config.batch,
        data=hashlib.sha256("\n".join([*(source.identity() for source in sources), begin_sha256]).encode()).hexdigest(),
    )


def _slower(name: str, rate: float):
    """Multiplies the updates under a top-level name."""
    import jax
    import optax

    return optax.stateless(
        lambda updates, params: {
            key: jax.tree.map(lambda u: rate * u, value) if key == name else value for key, value in updates.items()
        }
    )
