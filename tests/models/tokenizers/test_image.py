"""The image tokenizer: grid, wrong input, and that its loss can be driven down."""

import jax
import numpy as np
import optax
import pytest

from models.errors import InputError
from models.io import save_model
from models.layers.module import abstract, initialise
from models.tokenizers import image, load_tokenizer
from models.tokenizers.visual import LfqLoss, VisualConfig

NET = VisualConfig(
    bits=18, patch=(1, 8), widths=(8, 16), strides=((1, 2),), blocks=1, time_kernel=1, groups=2, pixel_channels=0
)
CONFIG = image.ImageConfig(net=NET, lfq=LfqLoss(groups=2, temperature=1.0))


def build(rngs):
    return image.build(CONFIG, rngs)


def picture() -> np.ndarray:
    y, x = np.mgrid[:256, :256]
    return np.stack([y, x, np.where((y - 128) ** 2 + (x - 128) ** 2 < 4000, 220, 30)], -1).astype(np.uint8)


def test_grid_and_errors(tmp_path):
    save_model(tmp_path, "image", CONFIG, {"params": initialise(build, jax.random.key(0))})
    tokenizer = load_tokenizer(tmp_path)
    codes = tokenizer.encode(picture())
    assert codes.shape == (16, 16) and codes.dtype == np.int32 and codes.max() < 2**18 and codes.max() > 2**10
    assert tokenizer.codebook_sizes == (2**18,)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (256, 256, 3) and decoded.dtype == np.uint8
    with pytest.raises(InputError, match="256"):
        tokenizer.encode(picture()[:128])
    with pytest.raises(InputError, match="uint8"):
        tokenizer.encode(picture().astype(np.float32))


def test_a_few_steps_reconstruct_better():
    graph, _ = abstract(build)
    params = initialise(build, jax.random.key(0))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        (_, (metrics, _)), gradient = jax.value_and_grad(
            lambda p: (lambda v, m, pair: (v, (m, pair)))(*image.loss(CONFIG, graph, p, {"image": picture()[None]})),
            has_aux=True,
        )(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, metrics["l2"]

    errors = []
    for _ in range(15):
        params, state, error = step(params, state)
        errors.append(float(error))
    assert errors[-1] < 0.5 * errors[0]
