"""The splash kernel, interpreted, against dense attention with the same mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.attention import allowed, attend, prefix_bounds
from models.layers.prefix_splash import FULL, PARTIAL, SKIP, _next_used, block_kinds, kernels, splash_attend

S, H, BLOCK = 512, 128, 128


def packed_rows(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Segments and bounds of rows with several segments, each with a prefix, and padding at the end of some."""
    rng = np.random.default_rng(seed)
    segments, prefix = np.zeros((rows, S), np.int32), np.zeros((rows, S), np.int32)
    for row in range(rows):
        filled = S - int(rng.integers(0, 90)) * (row % 2)
        cuts = [0, *sorted(rng.choice(np.arange(20, filled - 20), row + 1, replace=False).tolist()), filled]
        for number, (begin, end) in enumerate(zip(cuts, cuts[1:], strict=False), 1):
            segments[row, begin:end] = number
            prefix[row, begin : begin + int(rng.integers(1, end - begin))] = 1
    return segments, prefix_bounds(segments, prefix)


def qkv(rows, heads, kv_heads, seed=1):
    rng = np.random.default_rng(seed)
    draw = lambda n: jnp.asarray(rng.normal(size=(rows, S, n, H)) * 0.3, jnp.float32)  # noqa: E731
    return draw(heads), draw(kv_heads), draw(kv_heads)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 1), (4, 2)])
def test_the_kernel_is_dense_attention_gradients_included(heads, kv_heads):
    segments, bounds = packed_rows(3)
    arrays = qkv(3, heads, kv_heads)
    real = (segments > 0)[:, :, None, None]  # what padding attends to, nobody reads

    def of_splash(arrays):
        made = kernels(bounds, segments, BLOCK, interpret=True)
        return jnp.where(real, splash_attend(made, *arrays, segments), 0)

    def of_dense(arrays):
        return jnp.where(real, attend(*arrays, allowed(segments, bounds)), 0)

    both = []
    for attention in (of_splash, of_dense):
        value = lambda arrays, attention=attention: (jnp.sum(jnp.sin(out := attention(arrays))), out)  # noqa: E731
        both.append(jax.jit(jax.value_and_grad(value, has_aux=True))(arrays))
    ((_, out), grads), ((_, dense_out), dense_grads) = both
    np.testing.assert_allclose(out, dense_out, atol=2e-6)
    for left, right in zip(grads, dense_grads, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_only_blocks_that_nobody_sees_are_skipped():
    segments, bounds = packed_rows(4, seed=3)
    mask = np.asarray(allowed(segments, bounds)).reshape(4, S // BLOCK, BLOCK, S // BLOCK, BLOCK)
    some, every = mask.any((2, 4)), mask.all((2, 4))
    kinds = np.stack([block_kinds(b, s, BLOCK) for b, s in zip(bounds, segments, strict=True)])
    assert np.all(kinds[some] != SKIP) and np.all(kinds[every] == FULL)
    # Padding aside, what is skipped is what nobody sees: the kernel does no block too many.
    assert np.all(kinds[~some] == SKIP)
    # FULL: the bounds hide nothing.
    low = np.arange(S // BLOCK) * BLOCK
    for row, q, k in zip(*np.nonzero(kinds == FULL), strict=True):
        assert bounds[row].reshape(-1, BLOCK)[q].min() >= low[k] + BLOCK - 1
    assert {SKIP, PARTIAL, FULL} == set(kinds.ravel().tolist())


def test_a_skipped_block_names_the_next_that_is_used():
    kinds = jnp.array([[1, 0, 0], [0, 0, 2], [1, 1, 0]])
    assert _next_used(kinds).tolist() == [[0, 2, 2], [2, 2, 2], [0, 1, 0]]


@pytest.mark.parametrize(("length", "block"), [(512, 192), (576, 128), (512, 64)])
def test_rows_that_blocks_do_not_divide_are_refused(length, block):
    ones = jnp.ones((1, length), jnp.int32)
    with pytest.raises(ValueError, match="multiple of"):
        kernels(ones, ones, block, interpret=True)
