"""The video decoder, in two parts trained one after the other: the video autoencoder, then the latent diffusion model.

TINY: for the demo; 128 x 128 pixels, about two and a half minutes on two CPU cores with compilation, a dozen clips.
PAPER: MAGVIT-v2's video widths (128 with multipliers 1 2 2 4, four blocks a stage) without quantization, 8 latent
channels; 512 x 512 frames from 256 x 256 conditions; WALT-XL's transformer (28 blocks of 1152, 16 heads; Archon does
not print its size), windows of 5 latents, self-conditioning 0.9; Adafactor, 6,000 steps of warm-up to a constant
1.2e-4, batch 128. The autoencoder's losses here are on pixels alone: no perceptual and no adversarial term.
"""

from dataclasses import dataclass

from infra.training.optimizers import OptimizerConfig
from models.video_autoencoder import VideoAutoencoderConfig
from models.video_decoder import VideoDecoderConfig
from models.video_generation import Sampling


@dataclass(frozen=True)
class AdafactorConfig:
    """Adafactor with a linear warm-up, then constant."""

    peak: float
    warmup: int


@dataclass(frozen=True)
class AutoencoderTraining:
    """``frames``: of a training window; ``average``: decay of the latents' running statistics."""

    model: VideoAutoencoderConfig
    optimizer: OptimizerConfig
    steps: int
    batch: int
    frames: int
    average: float = 0.95
    heldout_batches: int = 2


@dataclass(frozen=True)
class DiffusionTraining:
    """``average``: decay of the weights' running average, which is what is exported; 0 for none.

    ``cache_gib``: memory for encoded clips.
    """

    model: VideoDecoderConfig
    optimizer: OptimizerConfig | AdafactorConfig
    steps: int
    batch: int
    sampling: Sampling
    average: float = 0.0
    cache_gib: float = 2.0
    heldout_batches: int = 4


@dataclass(frozen=True)
class DecoderTraining:
    """Both parts."""

    autoencoder: AutoencoderTraining
    diffusion: DiffusionTraining


TINY = DecoderTraining(
    autoencoder=AutoencoderTraining(
        model=VideoAutoencoderConfig(),
        optimizer=OptimizerConfig(peak=1.5e-3, warmup=10),
        steps=160,
        batch=4,
        frames=5,
    ),
    diffusion=DiffusionTraining(
        model=VideoDecoderConfig(image_dropout=0.0),
        optimizer=OptimizerConfig(peak=2e-3, warmup=20, weight_decay=1e-2),
        steps=120,
        batch=8,
        sampling=Sampling(steps=10, guidance=1.0, temperature=0.1),
    ),
)
PAPER = DecoderTraining(
    autoencoder=AutoencoderTraining(
        model=VideoAutoencoderConfig(
            resolution=512,
            patch=1,
            time_patch=1,
            widths=(128, 256, 256, 512),
            blocks=(4, 4, 4, 4),
            time_kernels=(3, 3, 3, 3),
            space_down=(True, True, True, False),
            time_down=(False, True, True, False),
            edge_kernel=3,
            linear_path=False,
        ),
        optimizer=OptimizerConfig(peak=1e-4, warmup=5_000, b1=0.0, b2=0.99),
        steps=500_000,
        batch=128,
        frames=17,
        average=0.999,
        heldout_batches=4,
    ),
    diffusion=DiffusionTraining(
        model=VideoDecoderConfig(
            latent_size=64,
            width=1152,
            heads=16,
            pairs=14,
            mlp_ratio=4,
            spatial_window=16,
            time_window=8,
            rank=2,
            condition_size=256,
            label_pool=1,
            label_width=256,
            vocabulary=256_128,
            text_tokens=256,
            text_width=1024,
            self_condition=0.9,
            anchor=False,
        ),
        optimizer=AdafactorConfig(peak=1.2e-4, warmup=6_000),
        steps=500_000,
        batch=128,
        sampling=Sampling(steps=50, guidance=1.0),
        average=0.9999,
        cache_gib=64.0,
        heldout_batches=4,
    ),
)
