"""Checkpoints: state, position and progress come back; what does not fit is refused."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.training.checkpoints import Checkpoints
from models.errors import InputError


def iterator():
    return iter(grain.MapDataset.range(100).shuffle(seed=1).batch(2).to_iter_dataset())


def test_round_trip_and_the_newest_two_are_kept(tmp_path):
    data = iterator()
    state = {"a": [jnp.arange(3.0), {"b": jnp.int32(4)}]}
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        next(data)
        checkpoints.save(step, jax.tree.map(lambda x, s=step: x + s, state), data, {"seconds": step / 2})
    expected = next(data)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 3 and not (tmp_path / "1").exists() and (tmp_path / "2").exists()
    fresh = iterator()
    restored, progress = checkpoints.restore(3, jax.eval_shape(lambda: state), fresh)
    np.testing.assert_array_equal(restored["a"][0], [3, 4, 5])
    assert int(restored["a"][1]["b"]) == 7 and progress == {"seconds": 1.5}
    np.testing.assert_array_equal(next(fresh), expected)


def test_another_state_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": jnp.zeros(3)}, iterator(), {"loss": 1.0})
    with pytest.raises(InputError, match="does not fit"):
        checkpoints.restore(1, {"b": jax.ShapeDtypeStruct((3,), jnp.float32)}, iterator())
