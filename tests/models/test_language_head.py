import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.language_model import head_nll
from tests.language import VOCABULARY, all_rows, classes_in_use, language_batch, language_config
from tests.token_records import random_params

CONFIG = language_config()


@pytest.fixture(scope="module")
def batch():
    return language_batch(CONFIG, rows=2)


def head_loss(config, params, x, batch):
    weights = batch["head_weights"]
    return jnp.sum(head_nll(config, params, x, batch) * weights) / jnp.sum(weights)


def states(batch, config):
    shape = (*batch["tokens"].shape, config.width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def reference_targets(batch) -> dict[str, np.ndarray]:
    """Positions that predict, the ids that they predict, and which of all ids are in the range of each."""
    starts = np.array([r.start for r in VOCABULARY.ranges])
    ends = starts + np.array([r.size for r in VOCABULARY.ranges])
    used = batch["head_weights"] > 0
    row, position = np.nonzero(used)[0], batch["head_positions"][used]
    ids = batch["tokens"][row, position + 1]
    which = np.searchsorted(starts, ids, side="right") - 1
    index = np.arange(VOCABULARY.total)[None]
    return {
        "at": (row, position),
        "ids": ids,
        "mask": (index >= starts[which][:, None]) & (index < ends[which][:, None]),
    }


def masked_full_softmax_loss(params, x, targets):
    """The reference: logits over the whole vocabulary, everything outside the target's range at -inf."""
    logits = x[targets["at"]] @ all_rows(params).T
    masked = jnp.where(targets["mask"], logits, -jnp.inf)
    return -jnp.take_along_axis(jax.nn.log_softmax(masked, -1), targets["ids"][:, None], -1).mean()


@pytest.mark.parametrize("image_width", [16, 32])
def test_the_head_equals_the_masked_full_softmax_gradient_included(batch, image_width):
    config = language_config(image_width=image_width)
    params = random_params(config, 1)
    x = states(batch, config)
    assert classes_in_use(batch) >= 3
    ours = jax.jit(jax.value_and_grad(lambda p, x, b: head_loss(config, p, x, b), (0, 1)))(params, x, batch)
    reference = jax.jit(jax.value_and_grad(masked_full_softmax_loss, (0, 1)))(params, x, reference_targets(batch))
    assert float(ours[0]) == pytest.approx(float(reference[0]), abs=1e-5)
    assert jax.tree.structure(ours[1]) == jax.tree.structure(reference[1])
    for left, right in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(reference[1]), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_ranges_without_targets_get_no_output_gradient(batch):
    params = random_params(CONFIG, 1)
    hits = []
    for row in range(2):
        one = {name: array[row : row + 1] for name, array in batch.items()}
        x = states(one, CONFIG)
        grad = jax.jit(jax.grad(lambda p, x, b: head_loss(CONFIG, p, x, b)))(params, x, one)["embedding"]
        rows = np.concatenate([np.abs(grad[name]).sum(1) for name in CONFIG.tables])
        targets = reference_targets(one)["ids"]
        hits.append([bool(np.any((targets >= r.start) & (targets < r.start + r.size))) for r in VOCABULARY.ranges])
        assert [bool(np.any(rows[r.start : r.start + r.size])) for r in VOCABULARY.ranges] == hits[-1]
    assert hits[0] != hits[1] and all(0 < sum(hit) < len(hit) for hit in hits)
