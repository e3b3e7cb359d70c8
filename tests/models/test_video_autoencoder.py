import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infra.presets.decoder import PAPER
from models import video_autoencoder as va
from models.errors import InputError
from models.io import save_model
from tests.random_params import random_params

FOLDED = va.VideoAutoencoderConfig(resolution=32, widths=(16,))
STAGED = va.VideoAutoencoderConfig(
    resolution=32,
    patch=2,
    time_patch=1,
    widths=(8, 12, 16),
    blocks=(1, 1, 1),
    time_kernels=(1, 3, 3),
    space_down=(True, True, False),
    time_down=(True, True, False),
    edge_kernel=3,
    linear_path=False,
)
NAMES = ("latent_mean", "latent_std")
encode, decode = jax.jit(va.encode, static_argnums=0), jax.jit(va.decode, static_argnums=0)
BOTH = pytest.mark.parametrize("config", [FOLDED, STAGED], ids=["folded", "staged"])


def params_of(config, **options):
    return random_params(lambda key: va.init(config, key), **options)


def video(frames, seed=0):
    pixels = np.random.default_rng(seed).uniform(-1, 1, (1, 17, 32, 32, 3))
    return jnp.asarray(pixels[:, :frames], jnp.float32)


@BOTH
def test_the_time_grid(config):
    params = params_of(config)
    for frames, steps in ((1, 1), (5, 2), (17, 5)):
        latents = encode(config, params, video(frames))
        assert latents.shape == (1, steps, 4, 4, 8)
        assert decode(config, params, latents).shape == (1, frames, 32, 32, 3)


@BOTH
def test_later_frames_do_not_change_earlier_latents(config):
    params = params_of(config)
    whole = encode(config, params, video(17))
    for frame, first in ((1, 1), (8, 2), (16, 4)):
        changed = encode(config, params, video(17).at[:, frame:].set(video(17, 1)[:, frame:]))
        np.testing.assert_array_equal(changed[:, :first], whole[:, :first])
        assert float(jnp.abs(changed[:, first] - whole[:, first]).max()) > 1e-3
    np.testing.assert_allclose(encode(config, params, video(17)[:, :5]), whole[:, :2], atol=1e-5)


@BOTH
def test_later_latents_do_not_change_earlier_frames(config):
    params = params_of(config)
    latents = jax.random.normal(jax.random.key(0), (1, 5, 4, 4, 8))
    whole = decode(config, params, latents)
    changed = decode(config, params, latents.at[:, 3].add(1.0))
    np.testing.assert_array_equal(changed[:, :9], whole[:, :9])  # latents 0..2 are frames 0..8
    assert float(jnp.abs(changed[:, 9:13] - whole[:, 9:13]).max()) > 1e-3


def test_principal_cells_are_the_best_linear_latents():
    # Cells that vary in 3 directions only are kept whole by 8 latents, of about unit variance.
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(2, 5, 4, 4, 3)) @ rng.normal(size=(3, va.CELL)) * 0.05 + 0.1
    cells[:, 0] = np.tile(cells[:, 0, ..., -va.CELL // 4 :], 4)  # the first step is one frame, four times
    frames = np.asarray(va.from_cells(jnp.asarray(cells, jnp.float32)))
    np.testing.assert_allclose(va.to_cells(frames), cells, atol=1e-6)
    params = params_of(FOLDED, zero=("encoder.last", "decoder.last"))
    params |= {"latent_mean": np.zeros(8, np.float32), "latent_std": np.ones(8, np.float32)}
    for side, linear in va.principal_cells(frames, 8).items():
        params[side]["linear"] = linear
    latents = encode(FOLDED, params, frames)
    np.testing.assert_allclose(decode(FOLDED, params, latents), frames, atol=1e-3)
    assert 0.5 < float(latents[..., 0].std()) < 2


def test_the_loss_falls_and_the_statistics_follow():
    """As the job trains: the linear path starts at the principal cells, the statistics are running averages."""
    frames = video(5)
    params = va.init(FOLDED, jax.random.key(0), va.principal_cells(np.asarray(frames), 8))
    grad = jax.jit(jax.value_and_grad(lambda p, k: va.training_loss(FOLDED, p, frames, k), has_aux=True))
    optimizer = optax.adam(5e-3)
    state = optimizer.init(params)
    losses = []
    for step in range(40):
        (loss, statistics), gradient = grad(params, jax.random.key(step))
        losses.append(float(loss))
        assert not np.any(gradient["latent_mean"]) and not np.any(gradient["latent_std"])
        updates, state = optimizer.update(gradient, state)
        running = {name: 0.8 * params[name] + 0.2 * new for name, new in zip(NAMES, statistics, strict=True)}
        params = optax.apply_updates(params, updates) | running
    assert losses[-1] < 0.5 * losses[0]
    latents = encode(FOLDED, params, frames)
    np.testing.assert_allclose(latents.mean((0, 1, 2, 3)), 0, atol=0.2)


def test_a_stored_model_works_on_pixels_of_any_length(tmp_path):
    params = params_of(FOLDED)
    save_model(tmp_path, va.KIND, FOLDED, params)
    model = va.load_autoencoder(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    latents = model.encode(frames)
    expected = encode(FOLDED, params, va.pixels_to_unit(frames)[None])[0]
    np.testing.assert_allclose(latents, expected, atol=1e-4)
    assert model.decode(latents).shape == frames.shape and model.decode(latents).dtype == np.uint8
    with pytest.raises(InputError, match="expected uint8"):
        model.encode(frames[:8])
    with pytest.raises(InputError, match="expected uint8"):
        model.encode(frames[:, :16, :16])


def test_pixels_survive_the_way_to_unit_range_and_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(va.unit_to_pixels(va.pixels_to_unit(pixels)), pixels)


def test_impossible_sizes_are_refused():
    for change in ({"patch": 4}, {"time_patch": 2}, {"resolution": 36}):
        with pytest.raises(InputError):
            dataclasses.replace(FOLDED, **change)


def test_the_paper_size():
    config = PAPER.autoencoder.model
    params = jax.eval_shape(lambda key: va.init(config, key), jax.random.key(0))
    frames = jax.ShapeDtypeStruct((1, 17, 512, 512, 3), jnp.float32)
    latents = jax.eval_shape(lambda p, x: va.encode(config, p, x), params, frames)
    assert latents.shape == (1, 5, 64, 64, 8)
    assert jax.eval_shape(lambda p, x: va.decode(config, p, x), params, latents).shape == frames.shape
