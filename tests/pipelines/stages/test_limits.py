import pytest

from models.errors import InputError
from pipelines.stages.limits import Limits, limits_with


def test_limits_from_the_command_line():
    limits = limits_with(["max_hours=1.5", "max_streams=4"])
    assert limits == Limits(max_hours=1.5, max_streams=4) and isinstance(limits.max_streams, int)
    assert limits_with([]) == Limits()


@pytest.mark.parametrize("change", ["hours=1", "max_hours=long", "max_hours=-1", "max_hours=nan", "max_streams=1.5"])
def test_a_limit_that_makes_no_sense_is_named(change):
    with pytest.raises(InputError, match=change):
        limits_with([change])
