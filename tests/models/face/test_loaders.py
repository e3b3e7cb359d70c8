import pickle

import numpy as np
import pytest

from models.errors import InputError
from models.face.loaders import file_kind, read_dictionary
from models.face.model import load_face_model


def test_the_embedded_head_is_built_once():
    assert load_face_model() is load_face_model()


def test_kinds_by_content_whatever_the_name(tmp_path):
    np.savez(tmp_path / "a.pkl", x=np.zeros(3))
    (tmp_path / "a.pkl.npz").rename(tmp_path / "a.pkl")
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert file_kind(str(tmp_path / "a.pkl")) == "npz" and file_kind(str(tmp_path / "b.npy")) == "npy"
    for protocol in (0, 1, 2, 4):
        (tmp_path / "c.npz").write_bytes(pickle.dumps({"x": np.zeros(3)}, protocol))
        assert file_kind(str(tmp_path / "c.npz")) == "pickle"
        np.testing.assert_array_equal(read_dictionary(str(tmp_path / "c.npz"), False)["x"], np.zeros(3))


@pytest.mark.parametrize("content", [b"", b"not arrays", b"PK but no archive", b"\x93NUMPY"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match="m: not "):
        load_face_model(tmp_path / "m")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="none.pkl: not a face model.*expected FLAME"):
        load_face_model(tmp_path / "none.pkl")


def test_a_list_is_no_model(tmp_path):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match="m.pkl: holds list, expected a dictionary of arrays"):
        load_face_model(tmp_path / "m.pkl")
