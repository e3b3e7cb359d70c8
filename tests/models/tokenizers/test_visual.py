"""The visual network: token grids of other shapes, decoder without head channels, quantizer loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.layers.module import abstract, initialise
from models.tokenizers.visual import LfqLoss, VisualConfig, VisualNet, every, quantizer_loss, to_unit


@pytest.mark.parametrize(
    ("patch", "strides", "pixel_channels"),
    [((1, 2), ((1, 2), (2, 2)), 4), ((4, 4), ((1, 2), (1, 1)), 0), ((2, 1), ((2, 4), (1, 2)), 3)],
)
def test_grid_follows_from_patch_and_strides(patch, strides, pixel_channels):
    config = VisualConfig(
        bits=5, patch=patch, widths=(4, 4, 4), strides=strides, blocks=1, groups=2, pixel_channels=pixel_channels
    )
    graph, template = abstract(lambda rngs: VisualNet(config, rngs=rngs))
    x = jax.ShapeDtypeStruct((1, 9, 32, 32, 3), jnp.float32)
    index = jax.eval_shape(lambda p, x: nnx.merge(graph, p).encode(x), template, x)
    time, space = patch
    for t, s in strides:
        time, space = time * t, space * s
    assert index.shape == (1, 8 // time + 1, 32 // space, 32 // space)
    made = jax.eval_shape(lambda p, i: nnx.merge(graph, p).decode(i), template, index)
    assert made.shape == x.shape


def test_encoder_output_is_normalised_before_the_sign():
    config = VisualConfig(bits=6, patch=(1, 4), widths=(4,), strides=(), blocks=1, time_kernel=1, groups=2)
    graph, _ = abstract(lambda rngs: VisualNet(config, rngs=rngs))
    params = initialise(lambda rngs: VisualNet(config, rngs=rngs), jax.random.key(0))
    z = nnx.merge(graph, params).encoder(jax.random.normal(jax.random.key(1), (2, 1, 16, 16, 3)))
    np.testing.assert_allclose(np.asarray(z).mean((1, 2, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(z).std((1, 2, 3, 4)), 1, atol=1e-2)


def test_quantizer_loss_prefers_sure_and_varied_codes():
    weights = LfqLoss(temperature=1.0)
    rng = np.random.default_rng(0)
    varied = jnp.asarray(rng.choice([-1.0, 1.0], (200, 4)))
    same, unsure = jnp.ones((200, 4)), varied * 0.1
    value = {
        name: float(quantizer_loss(z, weights)[0])
        for name, z in locals().items()
        if name in ("varied", "same", "unsure")
    }
    assert value["varied"] < value["same"] and value["varied"] < value["unsure"]


def test_every_and_to_unit():
    x = jnp.arange(64).reshape(1, 1, 8, 8)
    np.testing.assert_array_equal(every(x, 4, jnp.asarray(2), jnp.asarray(1))[0, 0], [[17, 21], [49, 53]])
    np.testing.assert_allclose(to_unit(np.array([0, 255], np.uint8)), [-1, 1])
