"""Flax NNX written tree-style: a module is split once into a graph and plain nested dicts of arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, dict]:
    """Returns (graph, parameters as ShapeDtypeStructs) of a module without making its arrays."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def initialise(build: Callable[[nnx.Rngs], nnx.Module], key: jax.Array) -> dict:
    """Returns fresh parameters as nested dicts; ``nnx.merge(graph, params)`` is the module again."""
    return nnx.to_pure_dict(nnx.split(build(nnx.Rngs(key)))[1])
