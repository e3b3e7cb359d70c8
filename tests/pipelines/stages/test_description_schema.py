import json

import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages.description_schema import DESCRIPTION_FIELDS, description_form, validate_description


def test_every_text_of_the_form_is_a_description():
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = "".join(part[rng.integers(len(part))] for part in description_form())
        assert list(validate_description(text)) == [field.name for field in DESCRIPTION_FIELDS]


def test_what_a_field_does_not_allow_is_named():
    values = json.loads("".join(part[0] for part in description_form()))
    assert validate_description(json.dumps(values)) == values
    for field, attribute, wrong in (("hair", "colour", "invisible"), ("gaze", "blinks", 100), ("voice", "rate", 3)):
        changed = {**values, field: {**values[field], attribute: wrong}}
        with pytest.raises(InputError, match=f"{field}.{attribute}"):
            validate_description(json.dumps(changed))
    del values["hair"]
    with pytest.raises(InputError, match="fields"):
        validate_description(json.dumps(values))
    with pytest.raises(InputError, match="not JSON"):
        validate_description("{")
