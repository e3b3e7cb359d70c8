"""Image tokenizer. Every preset has the paper's token grid: 256x256 -> 16x16 tokens of 2^18 codes.

TINY: for the demo. PAPER: MAGVIT-v2's network at /16 (base 128, multipliers 1 1 2 2 4, 4 blocks), adversarial
weight 0.1. The perceptual loss of the paper needs a pretrained network's weights and is not part of this job.
"""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.tokenizers.adversarial import AdversarialConfig
from models.tokenizers.image import ImageConfig
from models.tokenizers.visual import LfqLoss, VisualConfig


@dataclass(frozen=True)
class ImageTraining:
    """``shift``: pixels by which an example is moved at most; ``flip``: half of the examples are mirrored."""

    model: ImageConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    shift: int = 24
    flip: bool = True
    heldout_batches: int = 1
    adversarial: AdversarialConfig | None = None


TINY = ImageTraining(
    model=ImageConfig(
        net=VisualConfig(
            bits=18,
            patch=(1, 8),
            widths=(32, 64),
            strides=((1, 2),),
            blocks=1,
            time_kernel=1,
            pixel_channels=0,
            grid=(16, 16),
            prior=256,
        ),
        lfq=LfqLoss(groups=2, entropy=0.1, temperature=1.0),
    ),
    optimizer=OptimizerConfig(peak=3e-2, warmup=10, relative=True, flat=True),
    steps=200,
    batch=8,
)
PAPER = ImageTraining(
    model=ImageConfig(
        net=VisualConfig(
            bits=18,
            patch=(1, 1),
            widths=(128, 128, 256, 256, 512),
            strides=((1, 2), (1, 2), (1, 2), (1, 2)),
            blocks=4,
            time_kernel=1,
            groups=32,
            pixel_channels=128,
        ),
        lfq=LfqLoss(groups=2, entropy=0.1, temperature=0.01),
    ),
    optimizer=OptimizerConfig(peak=1e-4, warmup=5000, b1=0.0, b2=0.99),
    steps=400_000,
    batch=256,
    heldout_batches=4,
    adversarial=AdversarialConfig(weight=0.1, width=64, layers=5, start=0, peak=1e-4),
)
