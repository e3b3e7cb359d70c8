"""Flax NNX written tree-style: a module is split once into a graph and plain nested dicts of arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, dict]:
    """Returns (graph, parameters as ShapeDtypeStructs) of a module without making its arrays."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


class Draws:
    """Gives layers their random starts, as ``nnx.Rngs.normal`` does, out of one vector of normal numbers.

    XLA needs longer to compile a draw than to make one, so a network of fifty kernels is drawn at once.
    """

    def __init__(self, pool: jax.Array | None = None):
        self.pool, self.used = pool, 0

    def normal(self, shape: tuple[int, ...]) -> jax.Array:
        """The next numbers; zeros where there is no vector and only the count is wanted."""
        first, self.used = self.used, self.used + math.prod(shape)
        return jnp.zeros(shape) if self.pool is None else self.pool[first : self.used].reshape(shape)


def initialise(build: Callable[[Any], nnx.Module], key: jax.Array) -> dict:
    """Returns fresh parameters as nested dicts; ``nnx.merge(graph, params)`` is the module again.

    Every random start in the module has to come from ``rngs.normal``.
    """
    count = Draws()
    jax.eval_shape(lambda: nnx.split(build(count))[1])

    def make(key):
        pool = jax.random.normal(key, (count.used,))
        return nnx.to_pure_dict(nnx.split(build(Draws(pool)))[1])

    return jax.jit(make)(key)
