"""The segmenter's loss on sets of classes, its two networks, and its files."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.dinov2 import DinoConfig
from models.errors import InputError
from models.io import save_model
from models.labels import EVERY_LABEL, LABEL_INDEX, NUM_LABELS, label_set
from models.layers.module import abstract
from models.segmenter import (
    WINDOWS,
    CompactConfig,
    DinoSegmenterConfig,
    SegmenterModel,
    UNetConfig,
    agreement,
    build,
    load_segmenter,
    save_segmenter,
    set_loss,
)
from tests.random_params import random_params

TINY = CompactConfig(
    whole=UNetConfig((8, 16), (1, 1), (1,), patch=8, unfold=4),
    details=UNetConfig((8, 8), (1, 1), (1,), patch=4, unfold=4),
)
ONES = jnp.ones(NUM_LABELS)


def logits(shares: dict[str, float]) -> np.ndarray:
    out = np.full(NUM_LABELS, 1e-9)
    for name, share in shares.items():
        out[LABEL_INDEX[name]] = share
    return np.log(out / out.sum()).astype(np.float32)


def loss_of(shares, members, dice=0.0):
    sets = jnp.full((1, 1), members, jnp.uint32)
    return float(set_loss(jnp.asarray(logits(shares))[None, None], sets, ONES, dice))


def test_a_set_costs_the_negative_log_of_its_summed_share():
    shares = {"face": 0.5, "beard": 0.25, "hair": 0.25}
    assert loss_of(shares, label_set("face")) == pytest.approx(-np.log(0.5), abs=1e-5)
    assert loss_of(shares, label_set("face", "beard")) == pytest.approx(-np.log(0.75), abs=1e-5)
    assert loss_of(shares, label_set("hair", "face", "beard")) == pytest.approx(0, abs=1e-5)


def test_a_pixel_of_which_nothing_is_known_costs_and_teaches_nothing():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, NUM_LABELS)), jnp.float32)
    nothing = jnp.full((2, 4, 4), EVERY_LABEL, jnp.uint32)
    assert float(set_loss(x, nothing, ONES, 1.0)) == pytest.approx(0, abs=1e-6)
    half = nothing.at[0].set(label_set("iris"))
    gradient = jax.jit(jax.grad(lambda v: set_loss(v, half, ONES, 1.0)))(x)
    assert np.abs(gradient[0]).max() > 1e-4 and np.abs(gradient[1]).max() < 1e-7


def test_dice_sees_a_rare_class_that_the_mean_does_not():
    sets = np.full((1, 40, 40), label_set("face"), np.uint32)
    sets[0, 0, 0] = label_set("pupil")
    blind = np.broadcast_to(logits({"face": 1.0, "pupil": 1e-4}), (1, 40, 40, NUM_LABELS))
    plain = float(set_loss(jnp.asarray(blind), jnp.asarray(sets), ONES, 0.0))
    assert plain < 0.01
    assert float(set_loss(jnp.asarray(blind), jnp.asarray(sets), ONES, 1.0)) - plain > 0.2


def test_class_weights_shift_the_mean():
    sets = np.array([[[label_set("face"), label_set("pupil")]]], np.uint32)
    x = np.stack([logits({"face": 0.9}), logits({"pupil": 0.5, "iris": 0.5})])[None, None]
    weights = np.ones(NUM_LABELS, np.float32)
    weights[LABEL_INDEX["pupil"]] = 3
    made = float(set_loss(jnp.asarray(x), jnp.asarray(sets), jnp.asarray(weights), 0.0))
    assert made == pytest.approx(3 * np.log(2) / 4, abs=1e-5)


def test_agreement_counts_known_pixels_only():
    sets = np.array([[label_set("face"), label_set("face"), label_set("hair"), label_set("hair", "headwear")]])
    made = np.array([["face", "hair", "hair", "tongue"]])
    x = np.stack([logits({name: 1.0}) for name in made[0]])[None]
    scores = agreement(jnp.asarray(x), jnp.asarray(sets, jnp.uint32))
    assert float(scores["right"]) == pytest.approx(2 / 3)
    assert float(scores["miou"]) == pytest.approx(0.5)


def shapes(config):
    graph, template = abstract(functools.partial(build, config))
    pictures = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.uint8)
    windows = jax.ShapeDtypeStruct((2, len(WINDOWS), 64, 64, 3), jnp.uint8)
    return jax.eval_shape(lambda p, a, b: nnx.merge(graph, p)(a, b), template, pictures, windows), template


@pytest.mark.parametrize(
    "config",
    [
        CompactConfig(),
        DinoSegmenterConfig(),
        DinoSegmenterConfig(dino=DinoConfig.giant(), layers=(9, 19, 29, 39), picture=518),
        DinoSegmenterConfig(dino=DinoConfig(32, 2, 2, image=56, registers=4), layers=(0, 1), width=32, picture=56),
    ],
    ids=["compact", "dinov2-b", "dinov2-g", "small-with-registers"],
)
def test_every_size_gives_the_maps(config):
    (whole, windows), template = shapes(config)
    assert whole.shape == (2, 128, 128, NUM_LABELS) and windows.shape == (2, len(WINDOWS), 64, 64, NUM_LABELS)
    if isinstance(config, CompactConfig):
        # As float16 it must stay a small part of the repository.
        assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(template)) * 2 < 6e6


def tiny_params(config=TINY):
    return random_params(
        lambda key: nnx.to_pure_dict(nnx.split(build(config, nnx.Rngs(key)))[1]), zero=("none",), seed=1
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter")
    save_segmenter(folder, TINY, tiny_params(), {"sources": ["truth"], "truth_seeds": [3]})
    return folder


def test_a_saved_segmenter_runs_and_its_weights_are_half_precision(saved):
    config, params, meta = load_segmenter(saved)
    assert config == TINY and meta.extra["truth_seeds"] == [3]
    assert {kind for _, kind in json.loads((saved / "model.json").read_text())["arrays"].values()} == {"float16"}
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    model = SegmenterModel(saved)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 256, 256, 3), np.uint8)
    windows = rng.integers(0, 256, (2, len(WINDOWS), 64, 64, 3), np.uint8)
    shares = model.map(pictures)
    assert shares.shape == (2, NUM_LABELS, 128, 128)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares[1], model.map(pictures[::-1])[0])
    # Two windows of a kind judge the same pixels alike, others otherwise.
    same = model.windows(np.repeat(windows[:, :1], len(WINDOWS), 1))
    for k, kind in enumerate(WINDOWS):
        first = WINDOWS.index(kind)
        np.testing.assert_array_equal(same[:, k], same[:, first])
        assert first == 0 or np.abs(same[:, k] - same[:, 0]).max() > 1e-4
    assert model.facts()["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_files_that_are_no_segmenter_are_refused(tmp_path, saved):
    save_model(tmp_path / "speech", "speech", {}, {"params": {"a": np.zeros(2)}})
    with pytest.raises(InputError, match="kind 'speech', expected 'segmenter'"):
        load_segmenter(tmp_path / "speech")
    save_model(tmp_path / "old", "segmenter", TINY, {"params": {}}, {"labels_version": 0})
    with pytest.raises(InputError, match="labels_version 0"):
        load_segmenter(tmp_path / "old")
    params = tiny_params()
    del params["whole"]["stem"]
    save_segmenter(tmp_path / "part", TINY, params)
    with pytest.raises(InputError, match="whole.stem"):
        load_segmenter(tmp_path / "part")
