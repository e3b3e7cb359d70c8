"""Reads pickled arrays without running pickled code.

The pickles that face models come in (of Python 2 and 3) hold dictionaries of numpy arrays, scipy sparse matrices and
chumpy objects. A pickle may name any function to call; here it may name those that build arrays, and nothing else.
"""

import io
import pickle

import numpy as np

from models.errors import InputError

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_SPARSE_KINDS = ("csc", "csr", "coo")


def read_pickle(path: str, allow_code: bool = False, data: bytes | None = None):
    """Returns what a pickle holds, chumpy objects replaced by their arrays and sparse matrices made dense.

    Args:
      path: the file, or its name for messages if ``data`` is given.
      allow_code: whether the pickle may import and call whatever it names.
      data: the pickle's bytes.

    Raises:
      InputError: not a pickle, or one that names a class which is no array (and ``allow_code`` is off).
    """
    if data is None:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
    reader = (_TrustingUnpickler if allow_code else _ArrayUnpickler)(io.BytesIO(data), path)
    try:
        value = reader.load()
    except InputError:
        raise
    except Exception as error:  # a torn pickle can fail anywhere
        raise InputError(f"{path}: not a pickle that can be read ({type(error).__name__}: {error})") from error
    return _plain(value, path)


def read_npy(path: str, data: bytes, allow_code: bool = False):
    """Returns what the bytes of an ``.npy`` hold: an array, or the object of a pickled one (see ``read_pickle``).

    Raises:
      InputError: not an ``.npy``, or as ``read_pickle``.
    """
    stream = io.BytesIO(data)
    try:
        old = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        if not header(stream)[2].hasobject:
            return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not an .npy that can be read ({error})") from error
    return read_pickle(path, allow_code, data[stream.tell() :])


class _Container:
    """Stands for a pickled object: holds its state, runs nothing."""

    full_name = ""

    def __init__(self, *arguments):
        self.arguments, self.state = arguments, {}

    def __setstate__(self, state):
        # Slots come second, if an object has them.
        self.state = state[0] if isinstance(state, tuple) and len(state) == 2 else state


def _container(full_name: str) -> type:
    # A class of its own for every reader: what a pickle sets on it, the next one does not see.
    return type("Container", (_Container,), {"full_name": full_name})


def _is_container_name(module: str, name: str) -> bool:
    if module == "chumpy" or module.startswith("chumpy."):
        return True
    return module.startswith("scipy.sparse") and name in [
        f"{k}_{s}" for k in _SPARSE_KINDS for s in ("matrix", "array")
    ]


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file, path: str):
        # Strings of Python 2 are bytes; as latin1 they keep every one.
        super().__init__(file, encoding="latin1")
        self.path, self.containers = path, {}
        array, encode, rebuild = _builders()
        self.known = {("numpy", "ndarray"): array[0], ("numpy", "dtype"): np.dtype}
        for module in _ARRAY_MODULES:
            self.known |= {
                (module, "_reconstruct"): array[1],
                (module, "scalar"): array[2],
                (module, "_frombuffer"): array[3],
            }
        for module in ("copy_reg", "copyreg"):
            self.known[module, "_reconstructor"] = rebuild
        self.known["_codecs", "encode"] = encode
        self.known["collections", "OrderedDict"] = dict
        for module in ("builtins", "__builtin__"):
            for kind in (object, set, frozenset, dict, list, tuple, int, float, complex, bool, str, bytes, bytearray):
                self.known[module, kind.__name__] = kind
            self.known |= {(module, "unicode"): str, (module, "long"): int}

    def find_class(self, module, name):
        if (module, name) in self.known:
            return self.known[module, name]
        if _is_container_name(module, name):
            return self.containers.setdefault((module, name), _container(f"{module}.{name}"))
        raise InputError(
            f"{self.path}: holds the pickled class '{module}.{name}', expected numpy arrays, scipy sparse matrices and "
            "chumpy arrays only; reading it would run code of the file, which only allow_pickle_code "
            "(--allow-pickle-code) permits"
        )

    def persistent_load(self, pid):
        raise InputError(f"{self.path}: holds a reference to something outside the pickle, expected arrays")


class _TrustingUnpickler(pickle.Unpickler):
    """Pickle's own reader; only chumpy, which is not installed, stays a container."""

    def __init__(self, file, path: str):
        super().__init__(file, encoding="latin1")
        self.containers = {}

    def find_class(self, module, name):
        if module == "chumpy" or module.startswith("chumpy."):
            return self.containers.setdefault((module, name), _container(f"{module}.{name}"))
        return super().find_class(module, name)


def _builders():
    """Returns the functions that a pickle may call, each of them checking what it is given."""

    class Array(np.ndarray):
        """What pickles call ``numpy.ndarray``, so that nothing else can pass for it."""

    def new_array(subtype, shape, kind):
        if subtype is not Array:
            raise pickle.UnpicklingError("an array of an unknown type")
        return np.ndarray.__new__(np.ndarray, (0,), "b")

    def scalar(dtype, data=None):
        if dtype.hasobject:
            raise pickle.UnpicklingError("a number that is an object")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype)[0] if raw else dtype.type(0)

    def from_buffer(buffer, dtype, shape, order, axes=None):
        array = np.frombuffer(buffer, dtype).reshape(shape, order=order)
        return array if axes is None else array.transpose(axes)

    def encode(text, encoding="latin1", *rest):
        if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
            raise pickle.UnpicklingError(f"encoding {encoding}")
        return text.encode(encoding)

    def rebuild(kind, base, state):
        if not (isinstance(kind, type) and issubclass(kind, _Container) and base is object and state is None):
            raise pickle.UnpicklingError("an object of an unknown type")
        return kind()

    return (Array, new_array, scalar, from_buffer), encode, rebuild


def _plain(value, path: str):
    """Returns a value with its containers replaced by what they hold."""
    if isinstance(value, _Container):
        return _held(value, path)
    if isinstance(value, dict):
        return {_plain(k, path): _plain(v, path) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v, path) for v in value)
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0:
        return _plain(value.item(), path)
    if hasattr(value, "toarray"):  # a real sparse matrix, of a trusted pickle
        return value.toarray()
    return value


def _held(value: _Container, path: str) -> np.ndarray:
    state, name = value.state, value.full_name
    try:
        if name.startswith("scipy."):
            return _dense(state, name)
        if "idxs" in state:  # chumpy.reordering.Select
            chosen = np.asarray(_plain(state["a"], path)).ravel()[np.asarray(state["idxs"])]
            return chosen.reshape(state["preferred_shape"]) if "preferred_shape" in state else chosen
        if "newshape" in state:  # chumpy.reordering.Reshape
            return np.asarray(_plain(state["a"], path)).reshape(state["newshape"])
        return np.asarray(_plain(state["x"], path))  # chumpy.ch.Ch
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: the pickled '{name}' holds no array that can be read ({type(error).__name__}: {error})"
        ) from error


def _dense(state: dict, name: str) -> np.ndarray:
    from scipy import sparse

    shape = tuple(int(n) for n in state["_shape"] if n is not None)
    kind = name.rsplit(".", 1)[1][:3]
    if kind == "coo":
        place = state["coords"] if "coords" in state else (state["row"], state["col"])
        return sparse.coo_matrix((state["data"], place), shape).toarray()
    build = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    return build((state["data"], state["indices"], state["indptr"]), shape).toarray()
