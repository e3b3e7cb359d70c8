"""Quantizers against their definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import quantizers as q


def test_lfq_index_is_the_binary_number_of_the_signs():
    codes, index = q.lfq(jnp.array([[0.3, -2.0, 1e-3], [-1.0, -1.0, -1.0], [5.0, 5.0, 5.0]]))
    np.testing.assert_array_equal(codes, [[1, -1, 1], [-1, -1, -1], [1, 1, 1]])
    np.testing.assert_array_equal(index, [0b101, 0, 0b111])
    np.testing.assert_array_equal(q.lfq_codes(index, 3), codes)


def test_lfq_of_18_bits_round_trips():
    index = jnp.asarray(np.random.default_rng(0).integers(0, 2**18, (16, 16)))
    np.testing.assert_array_equal(q.lfq(q.lfq_codes(index, 18))[1], index)


def test_lfq_gradient_passes_straight_through():
    weight = jnp.array([1.0, -2.0, 3.0])
    gradient = jax.grad(lambda z: jnp.sum(weight * q.lfq(z)[0]))(jnp.array([0.1, -0.2, 9.0]))
    np.testing.assert_array_equal(gradient, weight)


@pytest.mark.parametrize("groups", [1, 2])
def test_lfq_entropy_equals_the_sum_over_codes(groups):
    z = np.random.default_rng(0).normal(size=(7, 4))
    single, together = q.lfq_entropy(jnp.asarray(z), groups, 0.7)
    bits = 4 // groups
    codes = np.array([[1 if n >> k & 1 else -1 for k in range(bits)] for n in range(2**bits)])
    distance = ((z.reshape(7, groups, 1, bits) - codes) ** 2).sum(-1) / 0.7
    p = np.exp(-distance) / np.exp(-distance).sum(-1, keepdims=True)
    np.testing.assert_allclose(single, -(p * np.log(p)).sum(-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(together, -(p.mean(0) * np.log(p.mean(0))).sum(-1).mean(), rtol=1e-4)


CONFIG = q.RvqConfig(levels=3, codes=16, channels=4, decay=0.8, dead_below=0.05)


def test_rvq_decode_sums_what_encode_chose():
    code = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 4)))
    z = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 4)))
    index, quantized = q.rvq_encode(code, z)
    assert index.shape == (3, 2, 5) and index.dtype == jnp.int32
    np.testing.assert_allclose(q.rvq_decode(code, index), quantized, rtol=1e-4, atol=1e-5)
    first = np.argmin(((np.asarray(z)[..., None, :] - np.asarray(code[0])) ** 2).sum(-1), -1)
    np.testing.assert_array_equal(index[0], first)


def test_rvq_learns_clusters_and_no_code_stays_dead():
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(40, 4))
    train = jax.jit(lambda books, z, key: q.rvq_train(CONFIG, books, z, key)[2])

    def batch(step):
        r = np.random.default_rng(step)
        return jnp.asarray(centres[r.integers(0, 40, 200)] + 0.05 * r.normal(size=(200, 4)), jnp.float32)

    books = train(q.rvq_init(CONFIG), batch(0), jax.random.key(0))
    errors = []
    for step in range(1, 40):
        index, quantized = q.rvq_encode(books["code"], batch(999))
        errors.append(float(jnp.mean((quantized - batch(999)) ** 2)))
        books = train(books, batch(step), jax.random.key(step))
    assert errors[-1] < errors[0] and errors[-1] < 0.05 * 9
    assert all(len(np.unique(level)) >= 12 for level in np.asarray(index))


def test_rvq_learns_as_many_codes_as_are_used_and_the_rest_are_their_copies():
    config = dataclasses.replace(CONFIG, used=6)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(300, 4)), jnp.float32)
    books = q.rvq_init(config)
    for step in range(20):
        books = q.rvq_train(config, books, z, jax.random.key(step))[2]
    assert books["code"].shape == (3, 16, 4)
    np.testing.assert_array_equal(books["code"][:, 6:12], books["code"][:, :6])
    np.testing.assert_array_equal(books["code"][:, 12:], books["code"][:, :4])
    index = np.asarray(q.rvq_encode(books["code"], z)[0])
    assert [set(level) for level in index.tolist()] == [set(range(6))] * 3
    assert dataclasses.replace(CONFIG, used=99).learned == CONFIG.learned == 16


def test_rvq_gradient_goes_to_the_encoder():
    books = q.rvq_train(CONFIG, q.rvq_init(CONFIG), jnp.ones((4, 4)), jax.random.key(0))[2]
    gradient = jax.grad(lambda z: jnp.sum(q.rvq_train(CONFIG, books, z, jax.random.key(1))[0]))(jnp.ones((4, 4)))
    np.testing.assert_array_equal(gradient, np.ones((4, 4)))


def test_perplexity_counts_codes_in_even_use():
    assert q.perplexity(np.arange(8), 16) == pytest.approx(8)
    assert q.perplexity(np.zeros(5, int), 16) == pytest.approx(1)
