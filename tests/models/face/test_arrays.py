import numpy as np
import pytest

from models.errors import InputError
from models.face.arrays import checked, describe, in_range

LAYOUT = {"points": (np.float32, ("V", 3)), "flat": (np.float32, ("3V", "N")), "names": (str, ("N",))}
GOOD = {"points": np.zeros((4, 3)), "flat": np.ones((12, 2)), "names": np.array(["a", "b"])}


def test_arrays_come_back_in_their_types():
    fields, sizes = checked("f", GOOD, LAYOUT)
    assert fields["points"].dtype == np.float32 and fields["names"] == ("a", "b") and sizes == {"V": 4, "N": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": None}, r"f: array 'points' is missing, expected shape \(V, 3\)"),
        ({"flat": np.zeros((11, 2))}, r"'flat' has shape \(11, 2\), expected \(12, N\)"),
        ({"flat": np.zeros(12)}, r"'flat' has shape \(12,\), expected \(12, N\)"),
        ({"names": np.array(["a"])}, r"'names' has shape \(1,\), expected \(2,\)"),
        ({"points": np.full((4, 3), "x")}, "'points' holds <U1, expected numbers"),
        ({"points": np.full((4, 3), np.nan)}, "'points' holds numbers that are not finite"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    arrays = {k: v for k, v in (GOOD | change).items() if v is not None}
    with pytest.raises(InputError, match=message):
        checked("f", arrays, LAYOUT)


def test_shapes_in_words():
    assert describe(("V", 3, "Ns"), {"V": 5}) == "(5, 3, Ns)" and describe(("3V",), {}) == "(3V,)"


def test_indices_have_limits():
    in_range("f", "faces", np.array([0, 3]), 4)
    with pytest.raises(InputError, match="'faces' has values from 0 to 4, expected 0..3"):
        in_range("f", "faces", np.array([0, 4]), 4)
