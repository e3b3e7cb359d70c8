"""Parameters for tests: of the right shapes, random, and quick to make (initialisers take XLA seconds to compile)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def random_params(init: Callable[[jax.Array], Any] | Any, *, zero: tuple[str, ...] = (), seed: int = 0) -> Any:
    """Fills what ``init`` would make: matrices of about unit gain, scales near 1, biases near 0.

    Args:
        init: key -> parameters, or their shapes.
        zero: beginnings of dotted names that shall be zeros.
        seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0)) if callable(init) else init

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name.startswith(zero) and zero:
            return np.zeros(leaf.shape, leaf.dtype)
        if name.endswith(("scale", "std")):
            return np.abs(1 + 0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype)
        if name.endswith(("bias", "mean")):
            return (0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype)
        fan_in = int(np.prod(leaf.shape[-4:-1])) if leaf.ndim >= 4 else leaf.shape[-2] if leaf.ndim >= 2 else 1
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)
