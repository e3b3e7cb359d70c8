import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from infra.presets.decoder import PAPER, TINY, AdafactorConfig
from infra.training import decoder_job
from infra.training.command import train_named
from infra.training.jobs import build_job
from models.errors import InputError
from models.semantic_warp import warp
from models.signals import latent_steps
from models.tokenizers import text as text_tokenizer
from models.video_generation import load_decoder, resize_image, resize_labels
from pipelines.dataset import Dataset
from tests.random_params import random_params
from tests.talking_ellipses import write_talking_dataset

SMALL = {
    "autoencoder.model.resolution": "64",
    "autoencoder.model.widths": "16",
    "autoencoder.batch": "2",
    "autoencoder.heldout_batches": "1",
    "diffusion.model.condition_size": "64",
    "diffusion.model.latent_size": "8",
    "diffusion.model.spatial_window": "4",
    "diffusion.model.width": "32",
    "diffusion.model.heads": "2",
    "diffusion.model.pairs": "1",
    "diffusion.model.text_tokens": "16",
    "diffusion.batch": "4",
    "diffusion.heldout_batches": "2",
    "diffusion.sampling.steps": "4",
}


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    root = tmp_path_factory.mktemp("talking")
    dataset = write_talking_dataset(root / "dataset")
    lines = [record["description"] for record in Dataset(dataset).column("description")]
    config = text_tokenizer.TextConfig()
    text_tokenizer.save(root / "text", text_tokenizer.fit(lines * 8, config), config)
    return root


def train(talking, workdir, **overrides):
    return train_named(
        "decoder",
        dataset=talking / "dataset",
        tokenizers=talking,
        workdir=workdir,
        overrides=SMALL | overrides,
        save_every=0,
    )


@pytest.fixture(scope="module")
def trained(talking):
    results = train(talking, talking / "decoder", **{"autoencoder.steps": "25", "diffusion.steps": "25"})
    return talking / "decoder", results


def test_both_parts_learn_on_clips_they_do_not_see(trained):
    directory, results = trained
    assert [result.name for result in results] == ["autoencoder", "diffusion"]
    for result in results:
        assert result.loss_end < result.loss_start
        assert (directory / result.name / "model.npz").is_file()


def test_a_finished_decoder_is_not_trained_again(talking, trained):
    again = train(talking, trained[0], **{"autoencoder.steps": "25", "diffusion.steps": "25"})
    assert [a.loss_end for a in again] == [b.loss_end for b in trained[1]]


def test_the_decoder_makes_the_frames_that_the_labels_ask_for(talking, trained):
    decoder = load_decoder(trained[0])
    columns = {name: Dataset(talking / "dataset").column(name) for name in ("semantics", "image")}
    row = Dataset(talking / "dataset").split("heldout")[0]
    labels, image = columns["semantics"][row]["labels"], columns["image"][row]["image"]
    made = decoder.generate(labels, image, labels[0], seed=3)
    assert made.shape == (21, 64, 64, 3) and made.dtype == np.uint8
    np.testing.assert_array_equal(made, decoder.generate(labels, image, labels[0], seed=3))
    assert np.any(made != decoder.generate(labels, image, labels[0], seed=4))
    # It looks like the person, and not like another.
    person = resize_image(image, 64).astype(int)
    others = [columns["image"][r]["image"] for r in range(len(columns["image"])) if r != row]
    near = np.abs(made[0] - person).mean()
    assert near < 0.6 * min(np.abs(made[0] - resize_image(other, 64).astype(int)).mean() for other in others)
    # Other labels make another video; the same beginning of the labels makes the same beginning of the video.
    changed = np.array(labels)
    changed[13:] = np.roll(changed[13:], 12, axis=2)
    other = decoder.generate(changed, image, labels[0], seed=3)
    assert np.abs(other[17:].astype(int) - made[17:]).mean() > 1
    for frames in (1, 5, 9):
        assert len(decoder.generate(labels[:frames], image, labels[0])) == frames


def test_windows_go_on_where_the_one_before_ended(talking, trained, monkeypatch):
    from models import video_generation

    decoder = load_decoder(trained[0])
    record = Dataset(talking / "dataset").column("semantics")[0]
    labels = np.concatenate([record["labels"], record["labels"][1:]])  # 41 frames, 11 latents
    image = Dataset(talking / "dataset").column("image")[0]["image"]
    seen, real = [], video_generation._window

    def watched(config, params, conditions, key, sampling):
        made = real(config, params, conditions, key, sampling)
        seen.append((jax.device_get(conditions), np.asarray(made)))
        return made

    monkeypatch.setattr(video_generation, "_window", watched)
    for given in (1, 2):
        seen.clear()
        made = decoder.generate(labels, image, labels[0], given_steps=given)
        assert len(made) == 41
        assert len(seen) == 1 + -(-(11 - 5) // (5 - given))
        for (_, before), (conditions, after) in zip(seen, seen[1:], strict=False):
            assert conditions["given_mask"].sum() == given
            np.testing.assert_array_equal(after[0, :given], before[0, -given:])


def test_what_a_clip_gives_to_the_diffusion_model(talking, trained):
    decoder = load_decoder(trained[0])
    dataset = Dataset(talking / "dataset")
    record = {name: dataset.column(name)[1] for name in decoder_job.COLUMNS}

    class Words:
        def encode(self, text):
            return np.arange(len(json.loads(text)))

    item = decoder_job.read_clip(record, decoder.config, decoder.autoencoder, Words())
    steps = latent_steps(21)
    assert item["latents"].shape == (2, steps, 8, 8, 8) and item["labels"].shape == (2, 21, 64, 64)
    assert item["text_mask"].sum() == 2
    np.testing.assert_array_equal(item["labels"][1], item["labels"][0][:, :, ::-1])
    moved = warp(resize_image(record["image"]["image"], 64), item["image_labels"][0], item["labels"][0])
    np.testing.assert_allclose(item["anchor"][0], decoder.autoencoder.encode(moved), atol=1e-5)
    first = decoder_job.cut_window(item, 5, 0.0, 0)
    assert first["first"] and first["steps"] == 5
    np.testing.assert_array_equal(first["labels"][0], np.repeat(item["labels"][0][:1], 4, axis=0))
    np.testing.assert_array_equal(first["labels"][2], item["labels"][0][5:9])
    last = decoder_job.cut_window(item, 5, 1.0, 1)
    assert not last["first"]
    np.testing.assert_array_equal(last["labels"][-1], item["labels"][1][17:21])
    np.testing.assert_array_equal(last["latents"], item["latents"][1][1:])
    longer = decoder_job.cut_window(item, 8, 0.5, 0)
    assert longer["steps"] == 6 and longer["latents"].shape[0] == 8


def test_a_decoder_knows_its_autoencoder(talking, trained, tmp_path):
    import shutil

    copy = tmp_path / "decoder"
    shutil.copytree(trained[0], copy, ignore=shutil.ignore_patterns("checkpoints"))
    other = decoder_job.autoencoder_job(TINY.autoencoder, None)
    other.export(random_params(other.init), copy / "autoencoder")
    with pytest.raises(InputError, match="trained with the autoencoder"):
        load_decoder(copy)
    shutil.rmtree(copy / "diffusion")
    with pytest.raises(InputError, match="diffusion"):
        load_decoder(copy)


def test_missing_things_are_named(talking):
    with pytest.raises(InputError, match="--tokenizers"):
        build_job("decoder", dataset=talking / "dataset")
    job = decoder_job.autoencoder_job(TINY.autoencoder, None)
    with pytest.raises(InputError, match="--dataset"):
        next(iter(job.train_batches()))


def test_labels_keep_their_classes_when_resized():
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    np.testing.assert_array_equal(resize_labels(labels, 8)[0, ::2, ::2], labels[0])
    assert set(resize_labels(labels, 2).ravel()) <= set(range(16))


def test_the_paper_preset_says_what_the_paper_says():
    parts = build_job("decoder", preset="paper")
    assert [part.name for part in parts] == ["autoencoder", "diffusion"]
    config = PAPER.diffusion
    assert config.optimizer == AdafactorConfig(peak=1.2e-4, warmup=6_000) and config.batch == 128
    assert PAPER.autoencoder.model.resolution == 512 and config.model.condition_size == 256
    assert not config.model.anchor and not PAPER.autoencoder.model.linear_path
    job = decoder_job.diffusion_job(config, None, None, None)
    state = jax.eval_shape(job.init, jax.random.key(0))
    assert jax.tree.structure(state["average"]) == jax.tree.structure(state["params"])
    state = jax.eval_shape(decoder_job.autoencoder_job(PAPER.autoencoder, None).init, jax.random.key(0))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state["params"])) > 1e7


def test_adafactors_rate_warms_up_and_stays():
    optimizer = decoder_job.diffusion_optimizer(AdafactorConfig(peak=1e-2, warmup=4), 100)
    params = {"w": np.ones(3, np.float32)}
    state = optimizer.init(params)
    sizes = []
    for _ in range(8):
        updates, state = optimizer.update({"w": np.ones(3, np.float32)}, state, params)
        sizes.append(float(optax.tree.norm(updates)))
    assert sizes[0] == 0 and sizes[1] < sizes[3]
    np.testing.assert_allclose(sizes[5:], sizes[5], rtol=1e-3)


def test_scale_multiplies_the_steps(talking, tmp_path, monkeypatch):
    from infra.training import loop

    steps = []
    monkeypatch.setattr(loop, "train", lambda job, workdir, **_: steps.append((job.name, job.steps)))
    monkeypatch.setattr(decoder_job, "load_autoencoder", lambda _: load_decoder(talking / "decoder").autoencoder)
    train_named(
        "decoder",
        dataset=talking / "dataset",
        tokenizers=talking,
        workdir=tmp_path,
        overrides=SMALL | {"autoencoder.steps": "30", "diffusion.steps": "20"},
        scale=0.1,
    )
    assert steps == [("autoencoder", 3), ("diffusion", 2)]
    assert dataclasses.replace(TINY.autoencoder, steps=3).steps == 3
