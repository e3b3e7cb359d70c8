"""The tokenizers' jobs: published sizes can be built, small ones learn, and what they write can be loaded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.training.jobs import build_job
from infra.training.loop import train
from infra.training.tokenizer_jobs import text_config, train_text
from models.errors import InputError
from models.face.model import load_face_model
from models.io import load_model
from models.tokenizers import load_tokenizer
from models.tokenizers.adversarial import AdversarialConfig
from pipelines.dataset import Dataset, shard_name, update_manifest, write_shard
from tests.infra.training.synthetic import write_dataset

CHANNELS = {"shape": "100", "expression": "50"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("jobs"), clips=6, frames=37, broken="semantics")


def published(name: str):
    overrides = {"model.channels": CHANNELS[name]} if name in CHANNELS else {}
    return build_job(name, preset="paper", overrides=overrides)


@pytest.mark.parametrize(
    ("name", "batch", "parameters"),
    [
        ("speech", {"audio": jax.ShapeDtypeStruct((2, 16000), jnp.float32)}, (10e6, 60e6)),
        ("image", {"image": jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.uint8)}, (50e6, 400e6)),
        ("semantic", {"labels": jax.ShapeDtypeStruct((2, 17, 128, 128), jnp.uint8)}, (50e6, 400e6)),
        ("shape", {"signal": jax.ShapeDtypeStruct((2, 1, 100), jnp.float32)}, (1e6, 50e6)),
        ("expression", {"signal": jax.ShapeDtypeStruct((2, 65, 50), jnp.float32)}, (1e6, 80e6)),
        ("pose", {"signal": jax.ShapeDtypeStruct((2, 65, 6), jnp.float32)}, (1e6, 80e6)),
    ],
)
def test_published_sizes_make_a_step(name, batch, parameters):
    job = published(name)
    key = jax.random.key(0)
    state = jax.eval_shape(job.init, key)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state["params"]))
    assert parameters[0] < count < parameters[1]
    after, metrics = jax.eval_shape(job.step, state, batch, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    assert ("discriminator" in metrics) == (name in ("speech", "image", "semantic"))


@pytest.mark.parametrize("name", ["shape", "pose"])
def test_animation_learns_and_reads_back(dataset, tmp_path, name):
    overrides = {"model.width": "16", "model.rvq.codes": "32", "model.rvq.channels": "8", "batch": "8"}
    result = train(build_job(name, dataset=dataset, overrides=overrides, steps=120), tmp_path, save_every=0)
    assert result.loss_end < 0.8 * result.loss_start
    tokenizer = load_tokenizer(tmp_path)
    signal = Dataset(dataset).column(name)[0][name]
    codes = tokenizer.encode(signal)
    assert codes.shape == ((8,) if name == "shape" else (6, 10))
    assert np.abs(tokenizer.decode(codes) - signal).mean() < np.abs(signal).mean()


def test_an_expressions_channels_count_as_they_are_seen(dataset, tmp_path):
    """With fits of the embedded head a channel's scale is what it does to landmarks; of another's, its deviation."""
    head = load_face_model()
    moves = np.random.default_rng(0).normal(size=(3, 13, head.num_expression)).astype(np.float32) * 0.05
    rows = {"clips": {}, "shape": {"shape": np.zeros(head.num_shape, np.float32), "face_model": head.name}}
    for column in ("clips", "shape", "expression"):
        made = [
            {"clip_id": f"c{n}", "source_sha256": f"s{n}", "error": "", **rows.get(column, {"expression": moves[n]})}
            for n in range(3)
        ]
        update_manifest(tmp_path, {column: ([write_shard(tmp_path, shard_name(column, 0, 1), made)], {})})
    job = build_job("expression", dataset=tmp_path, overrides={"frames": "13", "batch": "2"})
    assert job.config.model.scale == "landmarks" and job.config.model.channels == head.num_expression
    assert build_job("expression", dataset=dataset).config.model.scale == "deviation"
    spread = next(iter(job.train_batches()))["signal"].std((0, 1))
    jaw, gaze = (head.expression_index(name) for name in ("jaw_x", "gaze_x"))
    assert spread[jaw] > 5 * spread[gaze] > 0


@pytest.mark.slow
def test_adversarial_speech_learns(dataset, tmp_path):
    overrides = {
        "model.patch": "40", "model.strides": "4,4", "model.multipliers": "1,1", "model.width": "16",
        "model.dilations": "1", "model.rvq.codes": "64", "model.rvq.channels": "8", "model.windows": "512",
        "batch": "2", "window": "6400",
    }  # fmt: skip
    job = build_job("speech", dataset=dataset, overrides=overrides, steps=12)
    assert job.config.adversarial is None
    import infra.presets.speech as presets

    tiny = presets.TINY
    presets.TINY = dataclasses.replace(
        tiny, adversarial=AdversarialConfig(1.0, feature_weight=1.0, width=4, layers=2, start=4, peak=1e-3)
    )
    try:
        job = build_job("speech", dataset=dataset, overrides=overrides, steps=12)
    finally:
        presets.TINY = tiny
    result = train(job, tmp_path, save_every=0)
    assert result.loss_end < result.loss_start
    assert load_tokenizer(tmp_path).encode(np.zeros(1280, np.float32)).shape == (4, 2)


def test_start_of_the_semantic_decoder_is_the_mean_of_the_training_labels(dataset):
    job = build_job("semantic", dataset=dataset)
    prior = np.asarray(jax.eval_shape(job.init, jax.random.key(0))["params"]["decoder"]["prior"].shape)
    np.testing.assert_array_equal(prior, (128, 128, 24))
    from models.tokenizers import semantic

    labels = np.zeros((1, 128, 128), np.uint8)
    labels[:, :64] = 4
    made = semantic.prior([labels], shift=0)
    assert (made[:64, :, 3:].argmax(-1) == 4).all() and (made[64:, :, 3:].argmax(-1) == 0).all()


def test_wrong_windows_and_no_dataset_are_input_errors(dataset):
    with pytest.raises(InputError, match="4k"):
        build_job("semantic", dataset=dataset, overrides={"frames": "16"})
    with pytest.raises(InputError, match="--dataset"):
        build_job("speech").train_batches()


def test_text_is_fitted_to_the_training_clips_and_kept(dataset, tmp_path):
    config = text_config(preset="tiny", overrides={"vocabulary": "420"})
    made = train_text(config, dataset, tmp_path, extra=["<speech state=current>"])
    tokenizer = load_tokenizer(tmp_path)
    assert made["vocabulary"] == tokenizer.codebook_sizes[0] <= 420
    assert len(tokenizer.encode("The number of this clip is")) < 16
    before = (tmp_path / "model.npz").stat().st_mtime_ns
    assert train_text(config, dataset, tmp_path, extra=["<speech state=current>"]) == made
    assert (tmp_path / "model.npz").stat().st_mtime_ns == before
    assert train_text(config, dataset, tmp_path, extra=["other"])["weights_sha256"] != made["weights_sha256"]
    assert load_model(tmp_path)[3].extra["lines"] == made["lines"]


def test_a_given_text_model_is_taken_as_it_is(tmp_path):
    from models.tokenizers import load_tokenizer, text

    (tmp_path / "m.model").write_bytes(text.fit(["what somebody said", "and what not"], text.TextConfig(300)))
    config = text_config(preset="paper", overrides={"model": str(tmp_path / "m.model")})
    made = train_text(config, tmp_path / "no-dataset", tmp_path / "text")
    given = text.TextTokenizer.from_file(tmp_path / "m.model")
    assert made["vocabulary"] == given.codebook_sizes[0] and made["lines"] == 0
    assert load_tokenizer(tmp_path / "text").encode("what").tolist() == given.encode("what").tolist()
    (tmp_path / "n.model").write_bytes(b"no model")
    for name, says in (("none", "No such file"), ("n.model", "not a SentencePiece model")):
        with pytest.raises(InputError, match=says):
            train_text(text.TextConfig(model=str(tmp_path / name)), tmp_path, tmp_path / "other")
