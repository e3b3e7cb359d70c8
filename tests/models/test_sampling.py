import pytest

from models.errors import InputError
from models.sampling import Sampling


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -0.1), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1), ("guidance", -1.0)]
)
def test_sampling_that_means_nothing_is_refused(field, value):
    with pytest.raises(InputError, match=field):
        Sampling(**{field: value})
