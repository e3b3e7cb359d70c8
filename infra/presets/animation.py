"""What the presets of the shape, expression and pose tokenizers share."""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.tokenizers.animation import AnimationConfig


@dataclass(frozen=True)
class AnimationTraining:
    """``frames``: of a window, 4k + 1 (1 for shape).

    ``noise``: deviation of the noise added to an example, in deviations of the data; ``mixture``: shape only: share of
    examples drawn from the Gaussian of the training shapes' statistics (a few dozen faces do not fill a codebook).
    ``sources`` of the statistics are the training rows alone.
    """

    model: AnimationConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    frames: int
    noise: float = 0.0
    mixture: float = 0.0
    heldout_batches: int = 1
