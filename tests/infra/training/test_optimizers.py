"""Optimizers: the flat form is the same one, and the pace follows the fan-in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.training.optimizers import OptimizerConfig, by_fan_in, make_optimizer

PARAMS = {"a": {"kernel": jnp.ones((3, 4, 2)), "bias": jnp.zeros(2)}, "place": jnp.ones((4, 4))}


def run(config: OptimizerConfig) -> dict:
    optimizer = make_optimizer(config, 10)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(5):
        gradient = jax.tree.map(lambda p, s=step: jnp.cos(jnp.arange(p.size) + s).reshape(p.shape), params)
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


@pytest.mark.parametrize("relative", [False, True])
def test_flat_is_the_same_optimizer(relative):
    a, b = (run(OptimizerConfig(0.1, 2, weight_decay=0.1, relative=relative, flat=flat)) for flat in (False, True))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_kernels_move_by_their_fan_in():
    scale = by_fan_in()
    updates, _ = scale.update(jax.tree.map(jnp.ones_like, PARAMS), scale.init(PARAMS))
    np.testing.assert_allclose(updates["a"]["kernel"], 12**-0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["a"]["bias"], 1)
    np.testing.assert_array_equal(updates["place"], 1)


def test_short_runs_have_a_schedule():
    for steps in (1, 2, 3):
        optimizer = make_optimizer(OptimizerConfig(0.1, 100), steps)
        updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
