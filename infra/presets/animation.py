"""What the presets of the shape, expression and pose tokenizers share."""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.tokenizers.animation import AnimationConfig


@dataclass(frozen=True)
class AnimationTraining:
    """``frames``: of a window, 4k + 1 (1 for shape).

    ``noise``: deviation of the noise added to an example, in deviations of the data. ``drawn``: examples a step, beside
    the ``batch`` real ones, drawn from the Gaussian with the training data's mean and deviation: a dozen faces do not
    fill a codebook of shapes.
    """

    model: AnimationConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    frames: int
    noise: float = 0.0
    drawn: int = 0
    heldout_batches: int = 1
