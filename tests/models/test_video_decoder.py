import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.presets.decoder import PAPER
from models import video_decoder as vd
from models.errors import InputError
from tests.random_params import random_params

SMALL = vd.VideoDecoderConfig(
    latent_size=4,
    patch=1,
    width=32,
    heads=2,
    pairs=1,
    spatial_window=4,
    time_window=2,
    condition_size=32,
    label_pool=2,
    label_width=8,
    vocabulary=50,
    text_tokens=6,
    text_width=8,
    image_dropout=0.0,
)
PLAIN = dataclasses.replace(SMALL, anchor=False, self_condition=0.9)
BOTH = pytest.mark.parametrize(
    "config", [pytest.param(SMALL, id="anchor"), pytest.param(PLAIN, id="plain", marks=pytest.mark.slow)]
)


def batch(size=2, seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "latents": normal(size, 5, 4, 4, 8),
        "labels": jnp.asarray(rng.integers(0, 21, (size, 5, 4, 32, 32)), jnp.uint8),
        "image": normal(size, 4, 4, 8),
        "anchor": normal(size, 5, 4, 4, 8),
        "image_labels": jnp.asarray(rng.integers(0, 21, (size, 32, 32)), jnp.uint8),
        "text": jnp.asarray(rng.integers(0, 50, (size, 6)), jnp.int32),
        "text_mask": jnp.ones((size, 6), bool),
        "steps": jnp.full((size,), 5),
        "first": jnp.ones((size,), bool),
    }


def conditions(size=2, seed=0, given=0):
    known = batch(size, seed)
    keep = {name: known[name] for name in ("labels", "image", "anchor", "image_labels", "text", "text_mask")}
    mask = (jnp.arange(5) < given).astype(jnp.float32)[None, :, None, None, None]
    return keep | {
        "has_image": jnp.ones((size,), bool),
        "given": known["latents"],
        "given_mask": jnp.broadcast_to(mask, (size, 5, 1, 1, 1)),
    }


sample = jax.jit(vd.sample_window, static_argnums=0, static_argnames=("steps", "guidance", "temperature"))


def lively(config):
    return jax.tree.map(jnp.asarray, random_params(lambda key: vd.init(config, key)))


def untrained(config):
    """As training starts: the last layer is zero."""
    return jax.tree.map(jnp.asarray, random_params(lambda key: vd.init(config, key), zero=("last.",)))


def test_the_schedule_ends_in_noise_alone():
    alpha, sigma = vd.schedule(SMALL)
    assert alpha.shape == (1000,) and float(alpha[-1]) == 0.0 and float(sigma[-1]) == 1.0
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)
    assert np.all(np.diff(alpha) < 0)
    np.testing.assert_allclose(alpha[0], np.sqrt(1 - 1e-4), rtol=1e-6)  # the first value stays


def test_velocity_is_invertible():
    x0, noise = jax.random.normal(jax.random.key(0), (2, 1000, 3))
    alpha, sigma = (part[:, None] for part in vd.schedule(SMALL))
    x = alpha * x0 + sigma * noise
    back, eps = vd.from_velocity(x, vd.velocity(x0, noise, alpha, sigma), alpha, sigma)
    np.testing.assert_allclose(back, x0, atol=1e-5)
    np.testing.assert_allclose(eps, noise, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_ddim_with_an_oracle_finds_x0(steps):
    x0 = jax.random.normal(jax.random.key(0), (1, 5, 4, 4, 8))
    alphas, sigmas = vd.schedule(SMALL)

    def oracle(x, t, estimate):
        alpha, sigma = alphas[t], sigmas[t]
        noise = jnp.where(sigma > 0, (x - alpha * x0) / sigma, 0)
        return vd.velocity(x0, noise, alpha, sigma)

    noise = jax.random.normal(jax.random.key(1), x0.shape)
    np.testing.assert_allclose(vd.ddim(SMALL, oracle, noise, steps), x0, atol=1e-4)
    times = vd.ddim_times(SMALL, steps)
    assert times[0] == 999 and len(set(times.tolist())) == steps and np.all(np.diff(times) < 0)


@BOTH
def test_every_condition_counts_and_gets_gradients(config):
    params = lively(config)
    x, t = batch()["latents"], jnp.array([400, 800])
    predict = jax.jit(lambda c: vd.predict_velocity(config, params, x, t, c))
    base = predict(conditions(given=1))
    other = conditions(seed=1)
    names = ["labels", "image", "image_labels", "text"] + (["anchor"] if config.anchor else [])
    for name in names:
        changed = predict(conditions(given=1) | {name: other[name]})
        assert float(jnp.abs(changed - base).max()) > 1e-4, name
    assert float(jnp.abs(predict(conditions(given=2)) - base).max()) > 1e-4
    for name in ("has_image", "text_mask"):
        left_out = conditions(given=1) | {name: jnp.zeros_like(conditions()[name])}
        assert float(jnp.abs(predict(left_out) - base).max()) > 1e-4, name
    # What lies under the mask of given latents does not matter.
    hidden = conditions(given=1)
    hidden["given"] = hidden["given"].at[:, 1:].set(7.0)
    np.testing.assert_allclose(predict(hidden), base, atol=1e-5)
    grads = jax.jit(jax.grad(lambda p: vd.training_loss(config, p, batch(), jax.random.key(0))))(params)
    for part in ("labels", "image", "text", "text_table", "pairs"):
        assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(grads[part])[:1]), part


def test_text_that_does_not_exist_does_not_matter():
    params = lively(SMALL)
    x, t = batch()["latents"], jnp.array([400, 800])
    mask = jnp.arange(6)[None] < jnp.array([[3], [6]])
    one, two = conditions() | {"text_mask": mask}, conditions() | {"text_mask": mask}
    two["text"] = two["text"].at[0, 3:].set(1)
    predict = jax.jit(lambda c: vd.predict_velocity(SMALL, params, x, t, c))
    np.testing.assert_allclose(predict(one), predict(two), atol=1e-6)


def test_an_untrained_model_with_an_anchor_makes_the_anchor():
    params = untrained(SMALL)
    made = sample(SMALL, params, conditions(), jax.random.key(0), steps=50)
    rest = np.asarray(made - conditions()["anchor"])
    # Samples of a normal distribution around the anchor, with the deviation of the config.
    assert abs(rest.std() - SMALL.anchor_deviation) < 0.15 and abs(rest.mean()) < 0.1
    still = sample(SMALL, params, conditions(), jax.random.key(0), steps=10, temperature=0.0)
    np.testing.assert_allclose(still, conditions()["anchor"], atol=1e-2)


def test_given_latents_come_back_and_guidance_moves_the_rest():
    params = lively(SMALL)

    def guided(guidance):
        return sample(SMALL, params, conditions(given=2), jax.random.key(0), steps=4, guidance=guidance)

    made = guided(1.0)
    np.testing.assert_array_equal(made[:, :2], batch()["latents"][:, :2])
    assert float(jnp.abs(made[:, 2:] - batch()["latents"][:, 2:]).min()) > 0
    assert float(jnp.abs(guided(3.0)[:, 2:] - made[:, 2:]).max()) > 1e-3


def test_latents_past_a_clips_end_do_not_count():
    # An untrained model's v depends on the same place alone, so the loss shows which places count.
    params = untrained(SMALL)
    loss = jax.jit(lambda b: vd.training_loss(SMALL, params, b, jax.random.key(0)))
    whole = batch()
    other = whole | {"latents": whole["latents"].at[:, 3:].add(5.0)}
    short = {"steps": jnp.array([3, 3])}
    assert float(loss(whole | short)) == float(loss(other | short))
    assert float(loss(whole)) != float(loss(other))


@BOTH
def test_the_loss_falls(config):
    # Latents that the labels decide: only a model that reads them can follow.
    known = batch(8)
    level = jnp.linspace(-1, 1, 21)[known["labels"]].mean((2,)).reshape(8, 5, 4, 8, 4, 8).mean((3, 5))
    known["latents"] = known["anchor"] + 4 * level[..., None]
    params = untrained(config)
    import optax

    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        loss, grads = jax.value_and_grad(lambda p: vd.training_loss(config, p, known, key))(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for number in range(80):
        params, state, loss = step(params, state, jax.random.key(number))
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_impossible_sizes_are_refused():
    for change in ({"time_window": 3}, {"condition_size": 36}, {"given_steps": 5}):
        with pytest.raises(InputError):
            dataclasses.replace(SMALL, **change)


def test_the_paper_size():
    config = PAPER.diffusion.model
    params = jax.eval_shape(lambda key: vd.init(config, key), jax.random.key(0))
    assert 4e8 < sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 9e8
    shapes = {
        "latents": ((1, 5, 64, 64, 8), jnp.float32),
        "labels": ((1, 5, 4, 256, 256), jnp.uint8),
        "image": ((1, 64, 64, 8), jnp.float32),
        "image_labels": ((1, 256, 256), jnp.uint8),
        "text": ((1, 256), jnp.int32),
        "text_mask": ((1, 256), bool),
        "steps": ((1,), jnp.int32),
        "first": ((1,), bool),
    }
    known = {name: jax.ShapeDtypeStruct(*value) for name, value in shapes.items()}
    loss = jax.eval_shape(lambda p, b, k: vd.training_loss(config, p, b, k), params, known, jax.random.key(0))
    assert loss.shape == ()
