"""The job table and presets by text."""

from dataclasses import dataclass, field

import pytest

from infra.training import jobs
from models.errors import InputError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    on: bool = False
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)
    pairs: tuple[int, float] = (1, 2.0)


class presets:  # stands for a module of infra.presets
    __name__ = "presets"
    TINY = Outer()


def config(**overrides):
    return jobs.preset_config(presets, "tiny", {k.replace("__", "."): v for k, v in overrides.items()})


def test_overrides_are_read_by_the_fields_types():
    made = config(name="y", on="yes", limit="3", inner__rate="1e-3", inner__sizes="(4, 5,6)", pairs="2,0.5")
    assert made == Outer("y", True, 3, Inner(1e-3, (4, 5, 6)), (2, 0.5))
    assert config(limit="none").limit is None and config() == Outer()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth", "1", "no field 'depth'"),
        ("inner__depth", "1", "Inner has no field"),
        ("name__x", "1", "no fields of its own"),
        ("limit", "many", "limit=many"),
        ("on", "maybe", "not true or false"),
        ("inner", "1", "cannot be given as text"),
        ("pairs", "1", "pairs=1"),
    ],
)
def test_wrong_overrides_are_named(key, value, message):
    with pytest.raises(InputError, match=message):
        config(**{key: value})


def test_unknown_names():
    with pytest.raises(InputError, match="unknown job 'speach'"):
        jobs.build_job("speach")
    with pytest.raises(InputError, match="no preset 'huge'"):
        jobs.preset_config("infra.presets.speech", "huge")
    with pytest.raises(InputError, match="key=value"):
        jobs.parse_overrides(["steps"])
    assert jobs.parse_overrides(["a.b=1=2"]) == {"a.b": "1=2"}


def test_every_job_of_the_table_is_there():
    import importlib

    for place in jobs.JOBS.values():
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(module), function))
