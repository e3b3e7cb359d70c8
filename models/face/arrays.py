"""Checks of what face model files hold."""

import numpy as np

from models.errors import InputError


def checked(path: str, arrays: dict, layout: dict, sizes: dict[str, int] | None = None) -> tuple[dict, dict[str, int]]:
    """Returns the arrays of a layout in its types, and the sizes behind its letters.

    Args:
      path: for messages.
      arrays: name -> array.
      layout: name -> (dtype, shape), a shape being numbers, letters (any size, the same everywhere) and strings like
        "3V" (three times the letter).
      sizes: letters that are known already.

    Raises:
      InputError: an array is missing, of another shape, or not numbers.
    """
    sizes = dict(sizes or {})
    fields = {}
    for key, (dtype, expected) in layout.items():
        text = describe(expected, sizes)
        if key not in arrays:
            raise InputError(f"{path}: array '{key}' is missing, expected shape {text}")
        array = np.asarray(arrays[key])
        fits = array.ndim == len(expected) and all(
            _fits(have, size, sizes) for have, size in zip(array.shape, expected, strict=True)
        )
        if not fits:
            raise InputError(f"{path}: array '{key}' has shape {array.shape}, expected {text}")
        if dtype is str:
            fields[key] = tuple(map(str, array))
            continue
        if array.dtype.kind not in "biuf":
            raise InputError(f"{path}: array '{key}' holds {array.dtype}, expected numbers of shape {text}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: array '{key}' holds numbers that are not finite")
        fields[key] = np.ascontiguousarray(array, dtype)
    return fields, sizes


def _fits(have: int, size, sizes: dict[str, int]) -> bool:
    if isinstance(size, int):
        return have == size
    letter = size.lstrip("0123456789")
    factor = int(size[: len(size) - len(letter)] or 1)
    if letter not in sizes:
        if have % factor:
            return False
        sizes[letter] = have // factor
    return have == factor * sizes[letter]


def describe(expected, sizes: dict[str, int]) -> str:
    """Returns a shape in words, letters replaced by the sizes that are known: "(5023, 3, Ns)"."""
    words = []
    for size in expected:
        letter = size.lstrip("0123456789") if isinstance(size, str) else ""
        factor = int(size[: len(size) - len(letter)] or 1) if letter else 0
        words.append(str(factor * sizes[letter]) if letter in sizes else str(size))
    return "(" + ", ".join(words) + ("," if len(words) == 1 else "") + ")"


def in_range(path: str, key: str, values: np.ndarray, limit: int) -> None:
    """Raises InputError unless all values are indices below ``limit``."""
    if values.size and (values.min() < 0 or values.max() >= limit):
        raise InputError(
            f"{path}: array '{key}' has values from {values.min()} to {values.max()}, expected 0..{limit - 1}"
        )
