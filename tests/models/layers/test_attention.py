import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.attention import allowed, attend, prefix_bounds, rotate


def test_bounds_of_the_docstring():
    segments = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0]])
    prefix = np.array([[1, 1, 1, 0, 0, 1, 1, 0, 0, 0]])
    assert prefix_bounds(segments, prefix).tolist() == [[2, 2, 2, 3, 4, 6, 6, 7, 8, 9]]


ROW = 40


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any), max_size=5))
def test_the_bound_says_what_prefix_attention_allows(parts):
    segments = [s + 1 for s, (p, t) in enumerate(parts) for _ in range(p + t)]
    prefix = [int(i < p) for p, t in parts for i in range(p + t)]
    segments += [0] * (ROW - len(segments))
    prefix += [0] * (ROW - len(prefix))
    bounds = prefix_bounds(np.array([segments]), np.array([prefix]))
    mask = np.array(allowed(jnp.array([segments]), jnp.array(bounds)))
    expected = [
        [segments[q] == segments[k] and (k <= q or bool(prefix[q] and prefix[k])) for k in range(ROW)]
        for q in range(ROW)
    ]
    np.testing.assert_array_equal(mask[0], expected)


def test_grouped_attention_equals_heads_one_by_one():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 5, 4, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 5, 2, 8)).astype(np.float32)
    mask = np.tril(np.ones((5, 5), bool))[None].repeat(2, 0)
    out = jax.jit(attend)(q, k, v, mask)
    for head in range(4):
        scores = np.where(mask, q[:, :, head] @ k[:, :, head // 2].swapaxes(1, 2) / 8**0.5, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(out[:, :, head], weights @ v[:, :, head // 2], atol=1e-5)


def test_rotation_makes_scores_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    at = lambda x, p: rotate(x, jnp.array([[p]]))[0, 0, 0]  # noqa: E731
    assert float(at(q, 9) @ at(k, 4)) == pytest.approx(float(at(q, 25) @ at(k, 20)), abs=1e-4)
    np.testing.assert_allclose(at(q, 0), q[0, 0, 0], atol=1e-6)


def test_half_of_the_rotation_turns_with_the_clock():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 1, 1, 16))
    at = lambda x, p, t: rotate(x, jnp.array([[p]]), jnp.array([[t]]))[0, 0, 0]  # noqa: E731
    score = lambda *where: float(at(q, *where[:2]) @ at(k, *where[2:]))  # noqa: E731
    assert score(9, 30, 4, 20) == pytest.approx(score(25, 17, 20, 7), abs=1e-4)
    assert score(9, 30, 4, 20) != pytest.approx(score(9, 31, 4, 20), abs=1e-2)
    assert score(9, 30, 4, 20) != pytest.approx(score(10, 30, 4, 20), abs=1e-2)
    one, other = at(q, 5, 0), at(q, 5, 8)
    turned = ~np.isclose(one, other, atol=1e-6)
    assert turned.tolist() == [False, True] * 8  # the frequencies in turn, in either half of a head
    np.testing.assert_allclose(at(q, 7, 7), rotate(q, jnp.array([[7]]))[0, 0, 0], atol=1e-6)
