"""A trained model on disk: a directory with ``model.json`` (what it is) and ``model.npz`` (its arrays).

``model.json`` holds ``format``, ``kind``, ``config``, ``weights_sha256`` (of the npz file's bytes), ``arrays`` (name to
[shape, dtype]) and ``extra``. ``model.npz`` is written with fixed time stamps: the same arrays are the same bytes.
"""

import dataclasses
import hashlib
import io
import json
import os
import typing
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from models.errors import InputError

FORMAT = 1
SEPARATOR = "."


@dataclass(frozen=True)
class ModelMeta:
    """What ``model.json`` says beside kind and config."""

    weights_sha256: str
    extra: dict
    directory: Path


def flatten(tree: Any) -> dict[str, Any]:
    """Returns a pytree's leaves under dotted names, in the order of ``jax.tree.leaves``.

    >>> list(flatten({"a": [1, {"b": 2}]}))
    ['a.0', 'a.1.b']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): leaf for path, leaf in paths}
    if len(named) != len(paths):
        raise ValueError("two leaves of the tree have one dotted name")
    return named


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts from dotted names; every level's keys are strings."""
    tree: dict[str, Any] = {}
    for name, leaf in arrays.items():
        *parents, last = name.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def write_file(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name and renames it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns an npz file's bytes; unlike ``np.savez`` the bytes depend on names and arrays alone (no time stamps)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()


def save_model(directory: Path | str, kind: str, config: Any, params: Any, extra: dict | None = None) -> str:
    """Writes a model; ``model.json`` comes last, so a directory that has one is whole.

    Args:
        directory: made if it is not there; an earlier model in it is replaced.
        kind: "speech", "language", ...
        config: a dataclass (stored field by field) or a dict.
        params: pytree of arrays, stored under dotted names.
        extra: JSON values.

    Returns:
        The sha256 of ``model.npz``.
    """
    directory = Path(directory)
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    data = npz_bytes(arrays)
    digest = hashlib.sha256(data).hexdigest()
    write_file(directory / "model.npz", data)
    meta = {
        "format": FORMAT,
        "kind": kind,
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config),
        "weights_sha256": digest,
        "arrays": {name: [list(a.shape), str(a.dtype)] for name, a in sorted(arrays.items())},
        "extra": extra or {},
    }
    write_file(directory / "model.json", json.dumps(meta, indent=1).encode())
    return digest


def load_model(directory: Path | str) -> tuple[str, dict, dict, ModelMeta]:
    """Reads a model: returns (kind, config as dict, params as nested dicts of numpy arrays, meta).

    Raises:
        InputError: a file is missing, is no model, or its arrays are not the ones that ``model.json`` names.
    """
    directory = Path(directory)
    path = directory / "model.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a trained model's directory")
    try:
        meta = json.loads(path.read_text())
        kind, config, wanted, digest = meta["kind"], meta["config"], meta["arrays"], meta["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a model description ({type(error).__name__}: {error})") from error
    if meta.get("format") != FORMAT:
        raise InputError(f"{path}: format {meta.get('format')!r}, expected {FORMAT}")
    weights = directory / "model.npz"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    data = weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{weights}: not an npz file of arrays: {error}") from error
    for name, (shape, dtype) in wanted.items():
        if name not in arrays:
            raise InputError(f"{weights}: array {name!r} is missing")
        if list(arrays[name].shape) != shape or str(arrays[name].dtype) != dtype:
            have = f"{arrays[name].dtype}{list(arrays[name].shape)}"
            raise InputError(f"{weights}: array {name!r} is {have}, expected {dtype}{shape}")
    if found != digest:
        raise InputError(f"{weights}: sha256 is {found}, expected {digest}")
    return kind, config, unflatten(arrays), ModelMeta(digest, meta["extra"], directory)


def fill(template: Any, params: Mapping[str, Any], source: Path | str = "model") -> Any:
    """Puts loaded arrays into a pytree of the template's structure (its leaves need only shape and dtype).

    Raises:
        InputError: naming the first array that is missing, unknown or of another shape.
    """
    have = flatten(params)
    want = flatten(template)
    for name, leaf in want.items():
        if name not in have:
            raise InputError(f"{source}: array {name!r} is missing")
        if tuple(have[name].shape) != tuple(leaf.shape):
            raise InputError(f"{source}: array {name!r} has shape {have[name].shape}, expected {leaf.shape}")
    for name in have:
        if name not in want:
            raise InputError(f"{source}: array {name!r} is not part of this model")
    return jax.tree.unflatten(jax.tree.structure(template), [have[name] for name in want])


def dataclass_from_dict(kind: type, values: Mapping[str, Any]) -> Any:
    """Builds a (nested) config dataclass from ``dataclasses.asdict`` that went through JSON: lists become tuples.

    Raises:
        InputError: an unknown or a missing field.
    """
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"{kind.__name__}: unknown field {unknown[0]!r}")
    fields = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = dataclass_from_dict(hint, value)
        elif isinstance(value, list):
            value = _tuples(value)
        fields[name] = value
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{kind.__name__}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
