"""Discriminators tell real from made after a few steps, and their losses are the hinge losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from models.layers.module import abstract, initialise
from models.tokenizers import adversarial as adv

CONFIG = adv.AdversarialConfig(weight=0.3, width=8, layers=2)


def test_hinge_losses():
    real, fake = [[jnp.ones(2), jnp.array([2.0, 0.0])]], [[jnp.zeros(2), jnp.array([-2.0, 0.5])]]
    assert float(adv.discriminator_loss(real, fake)) == pytest.approx(0.5 + 0.75)
    hinge, features = adv.generator_loss(real, fake)
    assert float(hinge) == pytest.approx((3 + 0.5) / 2) and float(features) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["patch", "wave"])
def test_learns_to_tell(kind):
    if kind == "patch":
        real = jax.random.normal(jax.random.key(0), (2, 3, 16, 16, 3))
        made = jax.image.resize(real[:, :, ::2, ::2], real.shape, "nearest")

        def build(rngs):
            return adv.PatchDiscriminator(CONFIG, 3, 3, rngs=rngs)
    else:
        real = jax.random.normal(jax.random.key(0), (2, 2050))
        made = jnp.repeat(real[:, ::2], 2, axis=1)

        def build(rngs):
            return adv.WaveDiscriminator(CONFIG, rngs=rngs)

    graph, _ = abstract(build)
    params = initialise(build, jax.random.key(1))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    def loss(params):
        module = nnx.merge(graph, params)
        return adv.discriminator_loss(module(real), module(made))

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    values = []
    for _ in range(15):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.8 * values[0]
    assert len(nnx.merge(graph, params)(real)) == (1 if kind == "patch" else 3)
    assert np.isfinite(values).all()
