"""Which loader reads which file: a face model's format is told by its content, not its name."""

import os

import numpy as np

from models.errors import InputError
from models.face.model import FaceModel
from models.loading import load_once

_EXPECTED = "expected FLAME (.pkl or .npz), BFM (.mat of Deep3DFaceRecon) or an .npz of our format"


def load(path, landmarks, masks, allow_pickle_code) -> FaceModel:
    """Returns a face model; arguments and errors as ``models.face.model.load_face_model``."""
    if path is None:
        return _embedded()
    path = os.fspath(path)
    landmarks, masks = (None if p is None else os.fspath(p) for p in (landmarks, masks))
    kind = file_kind(path)
    if kind == "mat":
        from models.face.bfm import from_bfm, read_mat

        return from_bfm(path, read_mat(path))
    arrays = read_dictionary(path, allow_pickle_code)
    if kind == "pickle" or "v_template" in arrays or "shapedirs" in arrays:
        from models.face.flame import from_flame

        return from_flame(path, arrays, landmarks, masks, allow_pickle_code)
    from models.face.archive import from_archive

    return from_archive(path, arrays)


def file_kind(path: str) -> str:
    """Returns "npz", "npy", "mat" or "pickle" by a file's first bytes.

    Raises:
      InputError: no such file, or none of these.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: not a face model that can be read ({error}); {_EXPECTED}") from error
    if start.startswith(b"PK"):
        return "npz"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"MATLAB"):
        return "mat"
    # A pickle of protocol 2 or later, or one of a dictionary in protocol 0 or 1.
    if start[:1] == b"\x80" or start[:2] in (b"(d", b"}q", b"ct", b"cc"):
        return "pickle"
    raise InputError(f"{path}: not a face model; {_EXPECTED}")


def read_dictionary(path: str, allow_code: bool) -> dict[str, np.ndarray]:
    """Returns the named arrays of an ``.npz``, a pickled dictionary, or an ``.npy`` that holds one.

    Raises:
      InputError: none of these, or one that holds something else.
    """
    from models.face.archive import read_archive
    from models.face.pickles import read_npy, read_pickle

    kind = file_kind(path)
    if kind == "npz":
        return read_archive(path, allow_code)
    if kind == "npy":
        with open(path, "rb") as file:
            value = read_npy(path, file.read(), allow_code)
    elif kind == "pickle":
        value = read_pickle(path, allow_code)
    else:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}, expected a dictionary of arrays")
    return {str(key): array for key, array in value.items()}


@load_once()
def _embedded() -> FaceModel:
    from models.face.procedural import build_head

    return build_head()
