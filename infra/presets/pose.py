"""Pose tokenizer. Every preset has the paper's token grid: T frames -> 6 levels x (k+1) steps, 512 codes a level.

TINY: for the demo; 64 codes a level are learned. PAPER: the supplement's recipe (1-D convolutional residual encoder
and decoder, /4 in time, AdamW, cosine, warm-up); widths and depths are ours, the paper does not print them.
"""

from infra.presets.animation import AnimationTraining
from infra.training.optimizers import OptimizerConfig
from models.layers.quantizers import RvqConfig
from models.tokenizers.animation import AnimationConfig

TINY = AnimationTraining(
    model=AnimationConfig(
        channels=6,
        width=64,
        blocks=1,
        strides=(2, 2),
        rvq=RvqConfig(levels=6, codes=512, channels=32, decay=0.9, dead_below=0.02, used=64),
        std_floor=0.005,
    ),
    optimizer=OptimizerConfig(peak=3e-3, warmup=20, weight_decay=1e-4, flat=True),
    steps=150,
    batch=32,
    frames=33,
    noise=0.02,
)
PAPER = AnimationTraining(
    model=AnimationConfig(
        channels=6,
        width=512,
        blocks=3,
        strides=(2, 2),
        rvq=RvqConfig(levels=6, codes=512, channels=256, decay=0.99, dead_below=2.0),
        std_floor=0.005,
    ),
    optimizer=OptimizerConfig(peak=2e-4, warmup=5000, weight_decay=1e-4),
    steps=200_000,
    batch=256,
    frames=65,
    heldout_batches=4,
)
