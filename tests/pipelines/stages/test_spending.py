"""Money is exact, and a price file that cannot be read says why."""

import json
from decimal import Decimal

import pytest

from models.errors import InputError
from pipelines.stages.spending import Usage, load_price, spent, total_spent


def price_file(tmp_path, content) -> str:
    path = tmp_path / "prices.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_sums_are_exact(tmp_path):
    prices = {"currency": "EUR", "per_million_tokens": {"m": {"input": "0.1", "output": 0.3}}}
    price = load_price(price_file(tmp_path, prices), "m")
    parts = [spent(Usage(1, k, 3), price) for k in range(100)]
    total = total_spent(parts)
    assert total == {**total, "requests": 100, "input_tokens": 4950, "output_tokens": 300, "currency": "EUR"}
    assert Decimal(total["cost"]) == (Decimal("0.1") * 4950 + Decimal("0.3") * 300) / 10**6
    assert total_spent([]) == {} and spent(Usage(), price)["cost"] == "0"
    with pytest.raises(ValueError, match="USD"):
        total_spent([parts[0], {**parts[0], "currency": "USD"}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "per_million_tokens"),
        ({"currency": "EUR"}, "per_million_tokens"),
        ({"currency": "EUR", "per_million_tokens": {"m": {"input": "cheap", "output": 1}}}, "expected"),
        ({"currency": "EUR", "per_million_tokens": {"m": {"input": "NaN", "output": 1}}}, "at least 0"),
        ({"currency": "EUR", "per_million_tokens": {"n": {}}}, "no price of m"),
    ],
)
def test_wrong_price_files_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_price(price_file(tmp_path, content), "m")


def test_the_price_file_that_comes_along_knows_the_papers_captioner():
    assert load_price(None, "gemini-2.5-pro").output > load_price(None, "gemini-2.5-pro").input > 0


def test_a_model_without_a_price_is_told_of_those_that_have_one(tmp_path):
    name = price_file(tmp_path, {"currency": "EUR", "per_million_tokens": {"n": {}, "o": {}}})
    with pytest.raises(
        InputError, match=f"^{name}: no price of m .it has n, o.: add it, or give --gemini-prices FILE$"
    ):
        load_price(name, "m")
