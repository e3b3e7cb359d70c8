"""The 21-class segmenter.

EMBEDDED: the one to carry along (models/embedded/segmenter), two U-Nets of 1.9 million parameters, made by::

    archon synthesize --clips 240 --seed 100 --size 768 --output corpus
    archon train segmenter --preset embedded --devices 2 --source truth=corpus --source landmarks=DATASET --workdir W
    archon train segmenter --preset embedded --devices 2 --source truth=corpus --source landmarks=DATASET \\
        --workdir W2 --steps 4000 --set start_from=W --set parts=details --set optimizer.peak=2.5e-3
    archon train segmenter --preset embedded --devices 2 --source truth=corpus --source landmarks=DATASET \\
        --workdir W3 --steps 1500 --set start_from=W2 --set parts=details --set optimizer.peak=1.5e-3
    cp W3/model.json W3/model.npz models/embedded/segmenter/
    archon synthesize --clips 40 --seed 901 --size 768 --output heldout
    archon measure segmentation --corpus heldout --dataset DATASET --mesh face_landmarker.task \\
        --card models/embedded/segmenter/CARD.md

DATASET is real clips (`archon curate`). Frames of 768 pixels, as a head in one of 512 can be smaller than the crop. On
two 2.5 GHz cores a step of the whole took 1.2 s (2.1 s without ``--devices 2``), one of the windows' part 0.7 s. The
last run is there because the labels of real brows changed: the first two had older ones, and all three with today's
were never run in a row.

TINY: the same, narrow and short, for tests. PAPER: DINOv2 ViT-B/14 (the paper's backbone; size not published) under a
multi-layer head; needs its weights: ``--set backbone_weights=dinov2_vitb14_pretrain.pth``.
"""

from dataclasses import dataclass, field

from infra.training.optimizers import OptimizerConfig
from models.dinov2 import DinoConfig
from models.segmenter import CompactConfig, DinoSegmenterConfig, UNetConfig
from pipelines.stages.augment import AugmentConfig


@dataclass(frozen=True)
class SegmenterTraining:
    """How a segmenter is trained.

    Attributes:
        sources: KIND=PATH of pipelines/parsing_examples.py; where the same content lies is no part of what a run is.
        cache: folder where the sources' examples are kept.
        per_clip: frames taken of a clip.
        real_share: share of the training examples that come from sources other than ``truth``, where there are both.
        dice: weight of the Dice term. window_weight: weight of the windows' loss beside the whole crop's.
        average: decay of the running average of the parameters, which is what is exported.
        start_from: directory of a segmenter to begin with. parts: of it (whole or backbone and head, details) that are
            trained, the others stay as they are; none for all.
        backbone_weights: official DINOv2 weights. backbone_rate: learning rate of the backbone as a share of the
            head's; 0 leaves it as it is.
    """

    model: CompactConfig | DinoSegmenterConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    sources: tuple[str, ...] = field(default=(), repr=False)
    cache: str = field(default="", repr=False)
    per_clip: int = 12
    real_share: float = 0.25
    dice: float = 0.5
    window_weight: float = 1.0
    average: float = 0.998
    heldout_batches: int = 8
    augment: AugmentConfig = AugmentConfig()
    start_from: str = field(default="", repr=False)
    parts: tuple[str, ...] = ()
    backbone_weights: str | None = None
    backbone_rate: float = 0.0


EMBEDDED = SegmenterTraining(
    model=CompactConfig(),
    optimizer=OptimizerConfig(peak=5e-3, warmup=100, final=0.02, weight_decay=1e-3, clip=3.0, flat=True),
    steps=3600,
    batch=8,
)
TINY = SegmenterTraining(
    model=CompactConfig(
        whole=UNetConfig((16, 24, 32), (1, 1, 1), (1, 1), patch=4, unfold=2),
        details=UNetConfig((16, 24), (1, 1), (1,), patch=4, unfold=4),
    ),
    optimizer=OptimizerConfig(peak=5e-3, warmup=10, flat=True),
    steps=120,
    batch=4,
    average=0.95,
    heldout_batches=2,
)
PAPER = SegmenterTraining(
    model=DinoSegmenterConfig(dino=DinoConfig.base()),
    optimizer=OptimizerConfig(peak=1e-3, warmup=500, weight_decay=1e-2),
    steps=40_000,
    batch=32,
    average=0.9995,
    heldout_batches=16,
    backbone_rate=0.02,
)
