"""Semantic-video tokenizer. Every preset has the paper's grid: T x 128 x 128 -> (k+1) x 8 x 8 tokens of 2^10 codes.

TINY: for the demo. PAPER: MAGVIT-v2's video network (base 128, multipliers 1 2 2 4, 4 blocks, time /4) after one more
halving of space, segmentation weight 3, patch discriminator weight 0.3, 17-frame windows.
"""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.tokenizers.adversarial import AdversarialConfig
from models.tokenizers.semantic import OUTPUTS, SemanticConfig
from models.tokenizers.visual import LfqLoss, VisualConfig


@dataclass(frozen=True)
class SemanticTraining:
    """``frames``: of a window, 4k + 1; ``shift``: most pixels an example is moved by; ``flip``: half are mirrored."""

    model: SemanticConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    frames: int = 17
    shift: int = 12
    flip: bool = True
    heldout_batches: int = 1
    adversarial: AdversarialConfig | None = None


TINY = SemanticTraining(
    model=SemanticConfig(
        net=VisualConfig(
            bits=10,
            patch=(4, 8),
            widths=(32, 64),
            strides=((1, 2),),
            blocks=1,
            time_kernel=3,
            pixel_channels=8,
            outputs=OUTPUTS,
            grid=(8, 8),
            prior=128,
        ),
        lfq=LfqLoss(entropy=0.3, temperature=1.0),
        pixel_step=4,
    ),
    optimizer=OptimizerConfig(peak=3e-2, warmup=10, relative=True, flat=True),
    steps=120,
    batch=4,
)
PAPER = SemanticTraining(
    model=SemanticConfig(
        net=VisualConfig(
            bits=10,
            patch=(1, 2),
            widths=(128, 256, 256, 512),
            strides=((1, 2), (2, 2), (2, 2)),
            blocks=4,
            time_kernel=3,
            groups=32,
            pixel_channels=128,
            outputs=OUTPUTS,
        ),
        lfq=LfqLoss(entropy=0.1, temperature=0.01),
    ),
    optimizer=OptimizerConfig(peak=1e-4, warmup=5000, b1=0.0, b2=0.99),
    steps=400_000,
    batch=256,
    heldout_batches=4,
    adversarial=AdversarialConfig(weight=0.3, width=64, layers=4, start=0, peak=1e-4),
)
