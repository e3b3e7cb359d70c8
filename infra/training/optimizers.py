"""Optimizers by description, for presets."""

from dataclasses import dataclass

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
    """

    peak: float
    warmup: int
    final: float = 0.05
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a run of ``steps`` steps."""
    warmup = min(config.warmup, max(steps // 2, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.peak, warmup, max(steps, warmup + 1), config.peak * config.final
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay),
    )
