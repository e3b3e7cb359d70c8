"""How tokens of the language model are drawn."""

from dataclasses import dataclass

from models.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keeps so many of the most likely ids (and those as likely as the last of them); 0 keeps all.
        top_p: in (0, 1], keeps the smallest set with that much mass.
        guidance: classifier-free guidance (Ho and Salimans 2022): log p = log p(without the conditions) + guidance *
            (log p(with them) - log p(without)); 1 is none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.95
    guidance: float = 1.0

    def __post_init__(self):
        if self.temperature < 0:
            raise InputError(f"temperature={self.temperature:g}: expected at least 0")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k}: expected at least 0")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p:g}: expected above 0, at most 1")
        if self.guidance < 0:
            raise InputError(f"guidance={self.guidance:g}: expected at least 0")
