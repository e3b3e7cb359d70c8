"""Optimizers by description, for presets."""

import math
from dataclasses import dataclass

import jax
import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine decay.

    Attributes:
        peak: highest learning rate.
        warmup: steps of linear warm-up.
        final: learning rate at the end, as a share of the peak.
        b1, b2: decay of the moments.
        weight_decay: decoupled.
        clip: largest norm of the gradient.
        relative: divide a kernel's learning rate by the square root of its fan-in, the inverse of the size its weights
            start at, so that narrow and wide layers change at one pace (as StyleGAN's equalised learning rate does). A
            run of a hundred steps needs this: with one rate for all, the last layers hardly move.
        flat: update all parameters as one vector: the same result, and less to compile; not for sharded parameters.
    """

    peak: float
    warmup: int
    final: float = 0.05
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    relative: bool = False
    flat: bool = False


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a run of ``steps`` steps."""
    warmup = min(config.warmup, max(steps // 2, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.peak, warmup, max(steps, warmup + 1), config.peak * config.final
    )
    adam = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay),
    )
    adam = optax.flatten(adam) if config.flat else adam
    return optax.chain(adam, by_fan_in()) if config.relative else adam


def by_fan_in() -> optax.GradientTransformation:
    """Divides the updates of leaves named "kernel" by the square root of the product of all axes but the last."""

    def scale(path, update):
        if getattr(path[-1], "key", None) != "kernel":
            return update
        return update / math.sqrt(math.prod(update.shape[:-1]))

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))
