"""Weights as others distribute them, read without their frameworks and without running anything from the file.

PyTorch's zip checkpoints (``.pth``, ``.pt``, ``.bin``) are pickles of tensor descriptions beside raw storages: the
pickle is read by an unpickler that knows tensors and containers and refuses everything else. A safetensors file is a
JSON header and raw bytes.
"""

import io
import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np

from models.errors import InputError

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict: name -> array, in the file's order.

    Args:
        path: a PyTorch zip checkpoint (torch 1.6 and later) or a safetensors file, told apart by content.

    Raises:
        InputError: no such file, neither format, damaged, or a pickle that holds more than named tensors.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if start[:4] == b"PK\x03\x04":
        return _read_torch(path)
    if len(start) == 8 and 2 <= struct.unpack("<Q", start)[0] <= path.stat().st_size - 8:
        return _read_safetensors(path)
    raise InputError(f"{path}: expected a PyTorch zip checkpoint or a safetensors file, found neither's beginning")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = np.memmap(path, np.uint8, "r")
    length = struct.unpack("<Q", data[:8].tobytes())[0]
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
    except ValueError as error:
        raise InputError(f"{path}: safetensors header: expected JSON ({error})") from error
    body, tensors = data[8 + length :], {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = _SAFETENSORS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: tensor {name!r}: expected dtype, shape and data_offsets, got {entry}") from error
        wanted = math.prod(shape) * np.dtype(kind).itemsize
        if not 0 <= begin <= end <= len(body) or end - begin != wanted:
            raise InputError(f"{path}: tensor {name!r}: bytes {begin}..{end} of {len(body)}, expected {wanted} bytes")
        tensors[name] = np.frombuffer(body[begin:end].tobytes(), kind).reshape(shape)
    return tensors


class _Storage:
    """What a pickle's persistent id names: one file of the archive."""

    def __init__(self, kind: str, key: str):
        self.kind, self.key = kind, key


class _TensorUnpickler(pickle.Unpickler):
    """Knows tensors, parameters and dictionaries; anything else in the pickle is an error, so nothing is run."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, root: str, path: Path):
        super().__init__(io.BytesIO(data))
        self.archive, self.root, self.path = archive, root, path
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self.tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return name
        raise InputError(f"{self.path}: the pickle asks for {module}.{name}; expected nothing but named tensors")

    def persistent_load(self, pid):
        kind, key = pid[1], pid[2]
        if pid[0] != "storage" or kind not in _STORAGES:
            raise InputError(f"{self.path}: unknown storage {pid[:3]}")
        return _Storage(kind, str(key))

    def tensor(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
        if storage.key not in self.storages:
            name = f"{self.root}/data/{storage.key}"
            try:
                raw = self.archive.read(name)
            except (KeyError, zipfile.BadZipFile) as error:
                raise InputError(f"{self.path}: storage {name} is missing or damaged") from error
            self.storages[storage.key] = np.frombuffer(raw, _STORAGES[storage.kind])
        values = self.storages[storage.key]
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 in size:
            return np.zeros(size, values.dtype)
        if offset < 0 or min(stride, default=0) < 0 or last >= len(values):
            raise InputError(f"{self.path}: a tensor of shape {tuple(size)} reaches beyond its storage {storage.key}")
        strides = [s * values.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], size, strides).copy()


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError(f"{path}: expected a PyTorch checkpoint with one data.pkl, found {len(pickles)}")
            root = pickles[0].rsplit("/", 1)[0]
            if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
                raise InputError(f"{path}: expected little-endian tensors")
            tensors = _TensorUnpickler(archive.read(pickles[0]), archive, root, path).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: damaged PyTorch checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(tensors, dict):
        raise InputError(f"{path}: expected a state dict (name to tensor), got {type(tensors).__name__}")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise InputError(f"{path}: entry {name!r} is {type(value).__name__}, expected a tensor under a name")
    return dict(tensors)
