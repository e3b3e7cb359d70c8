"""Language model: sizes, windows, schedule.

PAPER. Archon, section on implementation: a pretrained 1B PaLM 2 with a vocabulary of about 550K, Adam with weight
decay 1e-3, 4,000 steps of warm-up from 0 to 1e-3, cosine decay to 5e-5, batch 256, 256 TPU v6e chips for 20 days. PaLM
2's dimensions are unpublished: ours are those of a public decoder of the same family and size (1.07 B without the
embedding). How many steps the 20 days were is not published either.

TINY. Two CPU cores, under a second a step: the same code, windows of 0.8 s.
"""

from dataclasses import dataclass

from tasks.windows import WindowConfig


@dataclass(frozen=True)
class LanguageConfig:
    """Attributes:
    width, layers, heads, kv_heads, head_width, hidden, image_width, dtype, remat, attention, dropout, clock: see
        ``LanguageModelConfig``.
    length: ids of a row. rows: rows of a batch. block: positions of a head block. bins, wide, packing, groups,
        workers: see ``LoaderConfig``.
    accumulate: parts in which a step computes its gradient, one after the other.
    free: share of training examples without their conditions, for classifier-free guidance.
    window: latent steps of a window and its past.
    steps, warmup: of training. peak_rate, final_rate: learning rates. weight_decay: decoupled (AdamW).
    clip: largest global norm of a gradient.
    heldout_batches: most batches of a held-out evaluation. Examples of all tasks come first: as many batches as these
        fill measure every task.
    init_from: folder of a Gemma checkpoint to begin with (models/gemma.py); its sizes replace the six of the body.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    image_width: int
    dtype: str
    remat: bool
    length: int
    rows: int
    block: int
    bins: int
    window: WindowConfig
    steps: int
    warmup: int
    peak_rate: float
    final_rate: float
    weight_decay: float = 1e-3
    clip: float = 1.0
    heldout_batches: int = 12
    init_from: str = ""
    packing: str = "best-fit"
    groups: int = 8
    workers: int = 0
    wide: int = 0
    accumulate: int = 1
    free: float = 0.1
    attention: str = "dense"
    dropout: float = 0.0
    clock: bool = False


TINY = LanguageConfig(
    width=128,
    layers=3,
    heads=2,
    kv_heads=1,
    head_width=64,
    hidden=384,
    image_width=32,
    dtype="float32",
    remat=False,
    length=1280,
    rows=1,
    block=64,
    bins=4,
    window=WindowConfig(current=6, past=3),
    steps=150,
    warmup=15,
    peak_rate=4e-3,
    final_rate=2e-4,
    heldout_batches=40,
    attention="blocks",
    clock=True,
)

PAPER = LanguageConfig(
    width=2048,
    layers=18,
    heads=16,
    kv_heads=1,
    head_width=128,
    hidden=8192,
    image_width=2048,
    dtype="bfloat16",
    remat=True,
    length=8192,
    rows=256,
    block=128,
    bins=512,
    window=WindowConfig(current=75, past=75),
    steps=400_000,
    warmup=4_000,
    peak_rate=1e-3,
    final_rate=5e-5,
    wide=2048,
    attention="splash",
)
