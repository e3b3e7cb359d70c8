"""Expression tokenizer. Every preset has the paper's token grid: T frames -> 8 levels x (k+1), 2,048 codes a level.

TINY: for the demo; a dozen clips do not fill 2,048 codes, so 32 a level are learned. PAPER: the supplement's recipe
(1-D convolutional residual encoder and decoder, /4 in time, AdamW, cosine, warm-up); widths and depths are ours, the
paper does not print them.
"""

from infra.presets.animation import AnimationTraining
from infra.training.optimizers import OptimizerConfig
from models.layers.quantizers import RvqConfig
from models.tokenizers.animation import AnimationConfig

TINY = AnimationTraining(
    model=AnimationConfig(
        channels=0,
        width=64,
        blocks=1,
        strides=(2, 2),
        rvq=RvqConfig(levels=8, codes=2048, channels=32, decay=0.9, dead_below=0.02, used=32),
        std_floor=0.03,
    ),
    optimizer=OptimizerConfig(peak=3e-3, warmup=20, weight_decay=1e-4, flat=True),
    steps=200,
    batch=32,
    frames=33,
    noise=0.02,
)
PAPER = AnimationTraining(
    model=AnimationConfig(
        channels=0,
        width=512,
        blocks=3,
        strides=(2, 2),
        rvq=RvqConfig(levels=8, codes=2048, channels=256, decay=0.99, dead_below=2.0),
        std_floor=0.03,
    ),
    optimizer=OptimizerConfig(peak=2e-4, warmup=5000, weight_decay=1e-4),
    steps=200_000,
    batch=256,
    frames=65,
    heldout_batches=4,
)
