"""Speech tokenizer. Every preset has the paper's token grid: 25 steps a second, 4 levels of 1,024 codes.

TINY: for the demo; two shared CPU cores, about a minute with compilation; of a dozen clips 64
codes a level are learned.
PAPER: SoundStream's published network (width 32, multipliers 2 4 8 16, dilations 1 3 9) with strides for 25 Hz, its
discriminators and loss weights; the optimizer is DAC's 16 kHz recipe.
"""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.layers.quantizers import RvqConfig
from models.tokenizers.adversarial import AdversarialConfig
from models.tokenizers.speech import SpeechConfig


@dataclass(frozen=True)
class SpeechTraining:
    """``window``: samples an example; ``gain_db``: each example is made louder or softer by up to this much."""

    model: SpeechConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    window: int
    gain_db: float = 6.0
    heldout_batches: int = 1
    adversarial: AdversarialConfig | None = None


TINY = SpeechTraining(
    model=SpeechConfig(
        patch=8,
        width=32,
        strides=(4, 4, 5),
        multipliers=(2, 3, 4),
        dilations=(1, 3),
        rvq=RvqConfig(levels=4, codes=1024, channels=32, decay=0.9, dead_below=0.02, used=64),
        windows=(128, 512, 2048),
    ),
    optimizer=OptimizerConfig(peak=3e-3, warmup=10, weight_decay=1e-4, flat=True),
    steps=150,
    batch=8,
    window=16000,
)
PAPER = SpeechTraining(
    model=SpeechConfig(
        patch=1,
        width=32,
        strides=(4, 4, 5, 8),
        multipliers=(2, 4, 8, 16),
        dilations=(1, 3, 9),
        rvq=RvqConfig(levels=4, codes=1024, channels=512, decay=0.99, dead_below=2.0),
    ),
    optimizer=OptimizerConfig(peak=1e-4, warmup=1000, b1=0.8, b2=0.99),
    steps=400_000,
    batch=128,
    window=16000,
    heldout_batches=4,
    adversarial=AdversarialConfig(weight=1.0, feature_weight=100.0, width=16, layers=4, start=50_000, peak=1e-4),
)
