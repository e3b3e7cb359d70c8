"""The shape, expression and pose tokenizers: grids, units, causality."""

import jax
import numpy as np
import pytest

from models.errors import InputError
from models.io import save_model
from models.layers.module import initialise
from models.layers.quantizers import RvqConfig
from models.tokenizers import animation, load_tokenizer


def make(directory, kind: str, channels: int, strides: tuple[int, ...]):
    config = animation.AnimationConfig(
        channels=channels, width=16, blocks=1, strides=strides, rvq=RvqConfig(levels=6, codes=32, channels=8)
    )
    params = initialise(lambda rngs: animation.build(config, rngs), jax.random.key(0))
    code = np.random.default_rng(0).normal(size=(6, 32, 8)).astype(np.float32)
    mean, std = np.full(channels, 5, np.float32), np.full(channels, 0.1, np.float32)
    save_model(directory, kind, config, {"params": params, "code": code, "mean": mean, "std": std})
    tokenizer = load_tokenizer(directory)
    tokenizer.bucket = 4
    return tokenizer


def signal(frames: int, channels: int = 6) -> np.ndarray:
    return 5 + 0.1 * np.random.default_rng(0).normal(size=(frames, channels)).astype(np.float32)


def test_pose_grid_and_causality(tmp_path):
    tokenizer = make(tmp_path, "pose", 6, (2, 2))
    codes = tokenizer.encode(signal(33))
    assert codes.shape == (6, 9) and codes.dtype == np.int32 and tokenizer.codebook_sizes == (32,) * 6
    np.testing.assert_array_equal(tokenizer.encode(signal(33)[:13]), codes[:, :4])
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (33, 6) and decoded.dtype == np.float32
    np.testing.assert_allclose(tokenizer.decode(codes[:, :4]), decoded[:13], atol=1e-5)
    later = signal(33)
    later[13:] += 1
    np.testing.assert_array_equal(tokenizer.encode(later)[:, :4], codes[:, :4])
    assert abs(decoded.mean() - 5) < 1  # in the signal's own unit


def test_shape_is_one_vector(tmp_path):
    tokenizer = make(tmp_path, "shape", 12, ())
    codes = tokenizer.encode(signal(1, 12)[0])
    assert codes.shape == (6,) and tokenizer.decode(codes).shape == (12,)


def test_wrong_input_is_named(tmp_path):
    tokenizer = make(tmp_path, "pose", 6, (4,))
    with pytest.raises(InputError, match="4k"):
        tokenizer.encode(signal(32))
    with pytest.raises(InputError, match="6"):
        tokenizer.encode(signal(33, 5))
