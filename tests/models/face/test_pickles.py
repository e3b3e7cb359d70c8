import os
import pickle

import numpy as np
import pytest
from scipy import sparse

from models.errors import InputError
from models.face.pickles import read_npy, read_pickle
from tests.models.face.released import chumpy_array, forget_chumpy, old_pickle

ARRAY = np.arange(12.0).reshape(3, 4)


class _Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_arrays_of_every_kind_come_back(tmp_path, protocol):
    value = {
        "a": ARRAY,
        "fortran": np.asfortranarray(ARRAY),
        "ints": np.arange(3, dtype=np.uint32),
        "number": np.float64(2.5),
        "text": "lbs",
        "list": [1, (2.0, None)],
        "csc": sparse.csc_matrix(ARRAY),
        "csr": sparse.csr_array(ARRAY),
        "coo": sparse.coo_matrix(ARRAY),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    back = read_pickle(str(path))
    for key in ("a", "fortran", "csc", "csr", "coo"):
        np.testing.assert_array_equal(back[key], ARRAY)
    assert back["ints"].dtype == np.uint32 and back["number"] == 2.5 and back["text"] == "lbs"
    assert back["list"] == [1, (2.0, None)]


@pytest.mark.filterwarnings("ignore:Please import `csc_matrix`:DeprecationWarning")
def test_python_2_and_chumpy():
    data = old_pickle({"x": ARRAY, "ch": chumpy_array(ARRAY), "j": sparse.csc_matrix(ARRAY), "name": "bs"})
    forget_chumpy()
    assert b"numpy.core.multiarray" in data and b"scipy.sparse.csc\n" in data and b"chumpy.ch\n" in data
    for trusted in (False, True):
        back = read_pickle("old.pkl", trusted, data)
        for key in ("x", "ch", "j"):
            np.testing.assert_array_equal(back[key], ARRAY)
        assert back["name"] == "bs"


def test_chumpy_selections_are_resolved():
    class Select:
        pass

    Select.__module__, Select.__qualname__ = "chumpy.ch", "Ch"  # pickled under a name that exists in the stub
    chosen = chumpy_array(None)
    chosen.__class__.__getstate__ = lambda self: self.state
    base = chumpy_array(None)
    base.state = {"x": ARRAY}
    chosen.state = {"a": base, "idxs": np.array([5, 0]), "preferred_shape": (2, 1)}
    data = pickle.dumps(chosen, 2)
    forget_chumpy()
    np.testing.assert_array_equal(read_pickle("s.pkl", data=data), [[5.0], [0.0]])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (_Evil(os.system, "touch {}"), "system"),
        (_Evil(eval, "open('{}', 'w')"), "eval"),
        (_Evil(np.fromfile, "{}"), "fromfile"),
        (_Evil(getattr, ARRAY, "tofile"), "getattr"),
    ],
)
def test_code_is_refused_by_name_and_not_run(tmp_path, value, name):
    mark = tmp_path / "ran"
    value.call = (value.call[0], tuple(a.format(mark) if isinstance(a, str) else a for a in value.call[1]))
    data = pickle.dumps({"a": ARRAY, "b": value})
    with pytest.raises(InputError, match=f"pickled class '[a-z._0-9]*{name}'.*--allow-pickle-code"):
        read_pickle("f.pkl", data=data)
    assert not mark.exists()


def test_allowed_code_runs(tmp_path):
    mark = tmp_path / "ran"
    data = pickle.dumps(_Evil(os.mkdir, str(mark)))
    read_pickle("f.pkl", allow_code=True, data=data)
    assert mark.exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"hello", pickle.dumps(ARRAY)[:-40]])
def test_torn_pickles_are_input_errors(data):
    with pytest.raises(InputError, match="f.pkl: not a pickle that can be read"):
        read_pickle("f.pkl", data=data)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(str(tmp_path / "none.pkl"))


def test_a_chumpy_object_without_an_array_is_named():
    value = chumpy_array(ARRAY)
    value.__class__.__getstate__ = lambda self: {"left": 1}
    data = pickle.dumps(value, 2)
    forget_chumpy()
    with pytest.raises(InputError, match="'chumpy.ch.Ch' holds no array"):
        read_pickle("f.pkl", data=data)


def test_npy_of_numbers_and_of_a_dictionary(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    np.testing.assert_array_equal(read_npy("a.npy", (tmp_path / "a.npy").read_bytes()), ARRAY)
    np.save(tmp_path / "b.npy", {"k": ARRAY}, allow_pickle=True)
    np.testing.assert_array_equal(read_npy("b.npy", (tmp_path / "b.npy").read_bytes())["k"], ARRAY)
    np.save(tmp_path / "c.npy", np.array(_Evil(os.system, "true"), dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="system"):
        read_npy("c.npy", (tmp_path / "c.npy").read_bytes())
