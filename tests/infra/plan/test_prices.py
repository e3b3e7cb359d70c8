"""The price file: what it may say, and that a wrong one is named with its field."""

from dataclasses import asdict, fields

import pytest

from infra.plan.prices import DEFAULT, Prices, read_prices
from models.errors import InputError


def changed(tmp_path, old, new):
    text = DEFAULT.read_text()
    assert text.count(old) == 1
    (tmp_path / "p.toml").write_text(text.replace(old, new))
    return tmp_path / "p.toml"


def test_every_field_is_read_from_the_file(tmp_path):
    mine = {
        **{"checked": True, "currency": "EUR", "date": "2026-02-03", "source": "my list", "vcpu_hour": 1.5},
        **{"memory_gb_hour": 2.5, "disk_gb_hour": 3.5, "storage_gb_month": 4.5, "network_gb": 0, "gpu_hour": {"a": 6}},
    }
    assert set(mine) == {field.name for field in fields(Prices)}
    tables = {name: value for name, value in mine.items() if name != "gpu_hour"}
    lines = [f"{name} = {str(value).lower() if value is True else repr(value)}" for name, value in tables.items()]
    (tmp_path / "mine.toml").write_text("\n".join([*lines, "[gpu_hour]", "a = 6"]))
    assert asdict(read_prices(tmp_path / "mine.toml")) == mine


def test_shipped_prices_say_that_nobody_checked_them():
    shipped = read_prices()
    assert shipped.checked is False and shipped.gpu_hour and shipped.vcpu_hour > 0


def test_an_accelerator_is_not_needed(tmp_path):
    head, _, _ = DEFAULT.read_text().partition("[gpu_hour]")
    (tmp_path / "p.toml").write_text(f"{head}[gpu_hour]\n")
    assert read_prices(tmp_path / "p.toml").gpu_hour == {}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vcpu_hour = 0.05", "vcpu_hour = -1", "vcpu_hour = -1: expected a price"),
        ("vcpu_hour = 0.05", "vcpu_hour = 'cheap'", "vcpu_hour = 'cheap'"),
        ("vcpu_hour = 0.05", "vcpu_hour = nan", "vcpu_hour = nan: expected a price"),
        ("vcpu_hour = 0.05", "vcpu_hour = inf", "vcpu_hour = inf: expected a price"),
        ("vcpu_hour = 0.05", "", "vcpu_hour is missing"),
        ("vcpu_hour = 0.05", "vcpu_hour = 0.05\ncpu = 1", "unknown field cpu"),
        ("nvidia-l4 = 0.7", "nvidia-l4 = true", "gpu_hour.nvidia-l4 = True"),
        ("network_gb = 0.0", "network_gb = [0.0]", r"network_gb = \[0.0\]"),
        ("checked = false", "checked = 'yes'", "checked = 'yes': expected bool"),
        ('currency = "USD"', "currency = 1", "currency = 1: expected str"),
        ("checked = false", "checked =", "not TOML"),
    ],
)
def test_a_wrong_price_file_is_named_with_its_field(old, new, says, tmp_path):
    path = changed(tmp_path, old, new)
    with pytest.raises(InputError, match=f"--prices {path}: .*{says}"):
        read_prices(path)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="none.toml: no such file"):
        read_prices(tmp_path / "none.toml")
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="p.toml: not TOML"):
        read_prices(tmp_path / "p.toml")
    head, _, _ = DEFAULT.read_text().partition("[gpu_hour]")
    (tmp_path / "p.toml").write_text(f"{head}gpu_hour = 0.7\n")
    with pytest.raises(InputError, match="p.toml: gpu_hour: expected a table"):
        read_prices(tmp_path / "p.toml")
