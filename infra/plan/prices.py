"""The price file of `archon plan`: read and checked."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from models.errors import InputError
from pipelines import storage

DEFAULT = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Prices:
    """Prices in ``currency``; ``checked`` says that a person compared them with the provider's list."""

    checked: bool
    currency: str
    date: str
    source: str
    vcpu_hour: float
    memory_gb_hour: float
    disk_gb_hour: float
    storage_gb_month: float
    network_gb: float
    gpu_hour: dict[str, float]


def read_prices(path: str | Path = DEFAULT) -> Prices:
    """InputError names the file and the field that is missing, unknown or not a price."""
    try:
        values = tomllib.loads(storage.read_bytes(path).decode())
    except FileNotFoundError:
        raise InputError(f"--prices {path}: no such file; copy {DEFAULT.name} and set your prices") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--prices {path}: not TOML ({error})") from None
    names = {field.name: field.type for field in fields(Prices)}
    for name in names.keys() - values.keys():
        raise InputError(f"--prices {path}: {name} is missing")
    for name, value in values.items():
        if name not in names:
            raise InputError(f"--prices {path}: unknown field {name}; expected {', '.join(names)}")
        if name == "gpu_hour":
            if not isinstance(value, dict):
                raise InputError(f"--prices {path}: gpu_hour: expected a table of accelerator = price")
            for gpu, price in value.items():
                _check_price(path, f"gpu_hour.{gpu}", price)
        elif names[name] is float:
            _check_price(path, name, value)
        elif not isinstance(value, names[name]):
            raise InputError(f"--prices {path}: {name} = {value!r}: expected {names[name].__name__}")
    return Prices(**values)


def _check_price(path: str | Path, name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise InputError(f"--prices {path}: {name} = {value!r}: expected a price, 0 or more")
