"""Modules as a graph and plain dicts."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.io import flatten
from models.layers.convolution import CausalConv1d
from models.layers.module import abstract, initialise


class Pair(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([CausalConv1d(3, 50, 3, rngs=rngs), CausalConv1d(50, 2, 1, zero=True, rngs=rngs)])
        self.more = CausalConv1d(50, 40, 5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.layers[0](x))


def test_parameters_have_the_declared_starts_and_merge_again():
    graph, template = abstract(Pair)
    params = initialise(Pair, jax.random.key(0))
    shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in flatten(template).items()}
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in flatten(params).items()} == shapes
    flat = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    np.testing.assert_allclose(flat["layers.0.kernel"].std() * 3, 1, atol=0.15)
    np.testing.assert_allclose(flat["more.kernel"].std() * np.sqrt(250), 1, atol=0.05)
    assert not flat["layers.1.kernel"].any() and not flat["layers.0.bias"].any()
    assert abs(np.corrcoef(flat["layers.0.kernel"].ravel(), flat["more.kernel"].ravel()[:450])[0, 1]) < 0.2
    assert nnx.merge(graph, params)(jnp.ones((1, 4, 3))).shape == (1, 4, 2)


def test_the_key_decides():
    a, b, c = (flatten(initialise(Pair, jax.random.key(seed)))["more.kernel"] for seed in (0, 0, 1))
    assert (a == b).all() and (a != c).any()
