"""Loading tokenizers: what is not one is refused."""

import numpy as np
import pytest

from models.errors import InputError
from models.io import save_model
from models.tokenizers import load_tokenizer


def test_another_kind_is_refused(tmp_path):
    save_model(tmp_path, "language", {}, {"a": np.zeros(1)})
    with pytest.raises(InputError, match="'language' is not a tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_tokenizer(tmp_path / "none")
