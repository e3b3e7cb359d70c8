"""Attention by blocks against dense attention with the same mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.attention import allowed, attend
from models.layers.block_attention import block_attend, segment_starts
from tests.models.layers.test_prefix_splash import packed_rows, qkv


def value_and_grads(attention, arrays, real):
    """The output where it is read, and the gradients of a function of it."""

    def value(arrays):
        out = jnp.where(real, attention(*arrays), 0)
        return jnp.sum(jnp.sin(out)), out

    (_, out), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(arrays)
    return [out, *grads]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "length", "block"), [(2, 1, 512, 64), (4, 2, 512, 128), (2, 2, 300, 64), (1, 1, 40, 64)]
)
def test_blocks_are_dense_attention_gradients_included(heads, kv_heads, length, block):
    """Rows that blocks do not divide, and rows shorter than one, among them."""
    segments, bounds = (x[:, :length] for x in packed_rows(3))
    bounds = np.minimum(bounds, length - 1)
    arrays = tuple(x[:, :length, :, :32] for x in qkv(3, heads, kv_heads))
    real = (segments > 0)[:, :, None, None]  # what padding attends to, nobody reads
    mask, starts = allowed(segments, bounds), segment_starts(jnp.asarray(segments))
    by_blocks = value_and_grads(lambda *x: block_attend(*x, starts, bounds, block), arrays, real)
    dense = value_and_grads(lambda *x: attend(*x, mask), arrays, real)
    for left, right in zip(by_blocks, dense, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_what_nobody_sees_is_never_read():
    """Of two examples, each of whole blocks: not-a-numbers in one reach nothing of the other, gradients included."""
    segments = jnp.repeat(jnp.array([[1, 2]]), 128, axis=1)
    bounds = jnp.arange(256)[None]
    arrays = tuple(x[:, :256].at[:, 128:].set(jnp.nan) for x in qkv(1, 2, 1))
    first = jnp.arange(256)[None, :, None, None] < 128
    starts = segment_starts(segments)
    out, *grads = value_and_grads(lambda *x: block_attend(*x, starts, bounds, 64), arrays, first)
    assert np.isfinite(out).all()
    assert all(np.isfinite(grad[:, :128]).all() for grad in grads)


def test_a_segment_starts_where_the_number_changes():
    assert segment_starts(jnp.array([[1, 1, 2, 2, 2, 0], [3, 0, 0, 0, 0, 0]])).tolist() == [
        [0, 0, 2, 2, 2, 5],
        [0, 1, 1, 1, 1, 1],
    ]
