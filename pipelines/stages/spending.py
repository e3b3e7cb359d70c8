"""What a paid service cost: tokens as it counted them, times the prices in a file that its user edits.

Sums are exact: tokens are integers and money is decimal, kept as text wherever it is stored.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation

from models.errors import InputError
from pipelines import storage


@dataclass(frozen=True)
class Usage:
    """Requests that were answered, and their tokens; output includes what the model thought."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class Price:
    """Of one model, per million tokens."""

    input: Decimal
    output: Decimal
    currency: str

    def cost(self, usage: Usage) -> Decimal:
        return (self.input * usage.input_tokens + self.output * usage.output_tokens) / 1_000_000


def default_price_file() -> str:
    from importlib.resources import files

    return str(files("pipelines") / "gemini_prices.json")


def load_price(path: str | None, model: str) -> Price:
    """Reads a model's price: JSON {"currency", "per_million_tokens": {MODEL: {"input", "output"}}}, local or gs://.

    Raises:
        InputError: no such file, not of this form, or the model is not in it.
    """
    name = path or default_price_file()
    try:
        table = json.loads(storage.read_bytes(name))
        prices, currency = table["per_million_tokens"], str(table["currency"])
        if model not in prices:
            known = ", ".join(prices)
            raise InputError(f"{name}: no price of {model} (it has {known}): add it, or give --gemini-prices FILE")
        price = Price(Decimal(str(prices[model]["input"])), Decimal(str(prices[model]["output"])), currency)
    except InputError:  # a ValueError too
        raise
    except FileNotFoundError as error:
        raise InputError(f"--gemini-prices {name}: no such file") from error
    except (ValueError, KeyError, TypeError, InvalidOperation) as error:
        raise InputError(
            f'{name}: expected {{"currency", "per_million_tokens": {{MODEL: {{"input", "output"}}}}}}: {error!r}'
        ) from error
    if not (price.input.is_finite() and price.output.is_finite() and min(price.input, price.output) >= 0):
        raise InputError(f"{name}: {model}: expected prices of at least 0")
    return price


def spent(usage: Usage, price: Price) -> dict:
    """What a record and a summary store: requests, input_tokens, output_tokens, cost (decimal text), currency."""
    return {**asdict(usage), "cost": format(price.cost(usage).normalize(), "f"), "currency": price.currency}


def total_spent(parts: Iterable[dict]) -> dict:
    """Adds up what ``spent`` returned; {} of nothing. All must be in one currency."""
    total: dict = {}
    for part in parts:
        if not total:
            total = dict(part)
            continue
        if part["currency"] != total["currency"]:
            raise ValueError(f"cannot add {part['currency']} to {total['currency']}")
        for name in ("requests", "input_tokens", "output_tokens"):
            total[name] += part[name]
        total["cost"] = format((Decimal(total["cost"]) + Decimal(part["cost"])).normalize(), "f")
    return total


def spending_line(total: dict) -> str:
    """For people: 12 answers, 3400 tokens in, 800 out, 0.0123 USD."""
    tokens = f"{total['input_tokens']} tokens in, {total['output_tokens']} out"
    return f"{total['requests']} answers paid for, {tokens}, {total['cost']} {total['currency']}"
