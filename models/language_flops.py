"""How many floating-point operations a training step of the language model takes, counted from its sizes.

A compiler's own count sees the body of a loop once and nothing of a kernel. Convention: a product of matrices of n
multiplications is 2 n operations; the backward pass is twice the forward one; attention is counted over the lower
triangle, as if a row were one causal segment. What is computed again to save memory (every layer once, with ``remat``;
the head's logits once) is work of the machine and not of the model, and is given apart.

The head's cost has a bound: of a row's targets at most ``wide`` are text or image ids, whose ranges are large.
"""

from dataclasses import dataclass

from models.language_model import LanguageModelConfig


@dataclass(frozen=True)
class StepFlops:
    """Operations of one row's step, by part; ``again`` is what is computed a second time."""

    body: float
    attention: float
    head: float
    again: float
    full_softmax: float

    @property
    def model(self) -> float:
        return self.body + self.attention + self.head

    @property
    def head_share(self) -> float:
        return self.head / self.model

    @property
    def full_softmax_share(self) -> float:
        """What the head's share would be if every position's softmax went over the whole vocabulary."""
        return self.full_softmax / (self.body + self.attention + self.full_softmax)


def step_flops(config: LanguageModelConfig, length: int, wide: int = 0) -> StepFlops:
    """Counts one row of ``length`` positions, all of which are targets.

    Args:
        wide: the loader's bound on targets of the large ranges (``LoaderConfig.wide``); 0: all may be.
    """
    c = config
    wide = min(wide or length, length)
    per_layer = 2 * c.width * c.heads * c.head_width + 2 * c.width * c.kv_heads * c.head_width + 3 * c.width * c.hidden
    body = 6.0 * length * c.layers * per_layer
    attention = 6.0 * length**2 * c.layers * c.heads * c.head_width
    image = c.image * c.image_width + (c.image_width * c.width if c.image_width != c.width else 0)
    large, small = max(c.text * c.width, image), max(c.levels) * c.width
    head = 6.0 * (wide * large + (length - wide) * small)
    again = head / 3 + ((body + attention) / 3 if c.remat else 0)
    return StepFlops(body, attention, head, again, 6.0 * length * (c.text * c.width + image + sum(c.levels) * c.width))
