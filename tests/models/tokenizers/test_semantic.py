"""The semantic tokenizer: grid, causality, losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InputError
from models.io import save_model
from models.labels import NUM_LABELS
from models.layers.module import abstract, initialise
from models.tokenizers import load_tokenizer, semantic
from models.tokenizers.visual import VisualConfig

NET = VisualConfig(
    bits=10,
    patch=(2, 8),
    widths=(8, 8),
    strides=((2, 2),),
    blocks=1,
    groups=2,
    pixel_channels=4,
    outputs=semantic.OUTPUTS,
    grid=(8, 8),
)
CONFIG = semantic.SemanticConfig(net=NET, pixel_step=2)


def build(rngs):
    return semantic.build(CONFIG, rngs)


@pytest.fixture(scope="module")
def params():
    return initialise(build, jax.random.key(0))


@pytest.fixture(scope="module")
def tokenizer(params, tmp_path_factory):
    directory = tmp_path_factory.mktemp("semantic")
    save_model(directory, "semantic", CONFIG, {"params": params})
    made = load_tokenizer(directory)
    made.bucket = 4
    return made


def labels(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, NUM_LABELS, (frames, 16, 16)).repeat(8, 1).repeat(8, 2).astype(np.uint8)


def test_grid_and_round_trip_shapes(tokenizer):
    codes = tokenizer.encode(labels(17))
    assert codes.shape == (5, 8, 8) and codes.dtype == np.int32 and 0 <= codes.min() and codes.max() < 1024
    assert len(np.unique(codes)) > 10
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (17, 128, 128) and decoded.dtype == np.uint8 and decoded.max() < NUM_LABELS
    assert tokenizer.codebook_sizes == (1024,) and tokenizer.kind == "semantic"
    assert tokenizer.decode(tokenizer.encode(labels(1))).shape == (1, 128, 128)


def test_codes_and_pixels_do_not_look_ahead(tokenizer):
    whole = tokenizer.encode(labels(17))
    np.testing.assert_array_equal(tokenizer.encode(labels(17)[:9]), whole[:3])
    np.testing.assert_array_equal(tokenizer.decode(whole[:3]), tokenizer.decode(whole)[:9])
    changed = labels(17)
    changed[9] = 3
    assert (tokenizer.encode(changed)[3] != whole[3]).any()


def test_wrong_input_is_named(tokenizer):
    with pytest.raises(InputError, match="4k"):
        tokenizer.encode(labels(16))
    with pytest.raises(InputError, match="uint8"):
        tokenizer.encode(labels(17).astype(np.int32))
    with pytest.raises(InputError, match="label 99"):
        tokenizer.encode(np.full((1, 128, 128), 99, np.uint8))


def test_rare_classes_weigh_more_with_balance(params):
    graph, _ = abstract(build)
    rare = np.zeros((1, 1, 128, 128), np.uint8)
    rare[..., :8, :8] = 15

    start = params["decoder"]["out"]["bias"]

    def gain(balance: float) -> float:
        """How much the loss falls when the rare class's logit rises."""
        config = semantic.SemanticConfig(net=NET, balance=balance, pixel_step=4)

        @jax.jit
        def loss(bias):
            p = {**params, "decoder": {**params["decoder"], "out": {**params["decoder"]["out"], "bias": bias}}}
            return semantic.loss(config, graph, p, {"labels": rare}, jax.random.key(0))[0]

        return float(loss(start) - loss(start.at[3 + 15].add(0.1)))

    assert gain(1.0) > gain(0.0)


def test_sampled_pixels_are_the_same_pixels_as_the_whole(params):
    from flax import nnx

    graph, _ = abstract(build)
    net = nnx.merge(graph, params)
    features = jax.jit(net.decoder.features)(jnp.ones((1, 2, 8, 8, 10)))
    whole = net.decoder.head(features)
    some = net.decoder.head(features, sample=(4, jnp.asarray(1), jnp.asarray(3)))
    np.testing.assert_allclose(some, whole[:, :, 1::4, 3::4], rtol=1e-4, atol=1e-4)
