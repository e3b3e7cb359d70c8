"""The segmenter's job: sources mix, the loss falls, a stop changes nothing, the preset of the paper has its shapes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from infra.presets import segmenter as presets
from infra.training.command import train_named
from infra.training.jobs import build_job
from infra.training.segmenter_job import CLASS_WEIGHTS, MixedRows, _slower
from models.errors import InputError
from models.labels import LABEL_INDEX, NUM_LABELS
from models.layers.module import initialise
from models.segmenter import WINDOWS, UNetConfig, build, load_segmenter, save_segmenter
from tests.corpus_clip import write_clip

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(4):
        write_clip(folder, seed=7, index=index)
    return folder


def overrides(corpus, folder):
    return {"sources": f"truth={corpus}", "cache": str(folder / "examples"), "per_clip": "3", "heldout_batches": "1"}


def test_sources_are_mixed_by_share():
    class Source(list):
        pass

    true, real = Source(range(90)), Source(range(100, 104))
    rows = MixedRows([(True, true), (False, real)], 0.25)
    items = [rows[k] for k in range(len(rows))]
    assert sum(item >= 100 for item in items) / len(items) == pytest.approx(0.25)
    assert set(items) == {*true, *real}
    # More real ones than wanted: the others repeat, none is lost.
    rows = MixedRows([(True, Source(range(4))), (False, Source(range(100, 190)))], 0.25)
    items = [rows[k] for k in range(len(rows))]
    assert set(items) == {*range(4), *range(100, 190)}
    assert sum(item >= 100 for item in items) / len(items) == pytest.approx(0.25, abs=0.01)
    assert len(MixedRows([(False, real)], 0.25)) == 4


def test_rare_classes_weigh_more():
    assert CLASS_WEIGHTS.shape == (NUM_LABELS,)
    assert CLASS_WEIGHTS[LABEL_INDEX["pupil"]] > CLASS_WEIGHTS[LABEL_INDEX["background"]]


@pytest.mark.slow
def test_it_learns_and_goes_on_as_if_it_had_not_been_stopped(corpus, tmp_path):
    small = overrides(corpus, tmp_path)
    result = train_named("segmenter", dataset=None, workdir=tmp_path / "run", overrides=small, steps=40)[0]
    figures = result.figures
    assert figures["loss_end"] < 0.75 * figures["loss_start"]
    assert figures["miou_end"] > figures["miou_start"] + 0.05
    config, params, meta = load_segmenter(tmp_path / "run")
    assert config == presets.TINY.model
    assert meta.extra["truth_seeds"] == [7] and meta.extra["sources"] == ["truth"] and meta.extra["real_groups"] == []
    # The state after two steps, in one go and over a checkpoint.
    job = build_job("segmenter", overrides=small, steps=4)
    step = jax.jit(job.step)
    state = job.init(jax.random.key(0))
    batches = iter(job.train_batches())
    first = next(batches)
    position = batches.get_state()
    second = next(batches)
    again = iter(job.train_batches())
    again.set_state(position)
    for name, value in next(again).items():
        np.testing.assert_array_equal(value, second[name])
    state, metrics = step(state, first, jax.random.key(1))
    assert np.isfinite(float(metrics["loss"])) and int(state["step"]) == 1


@pytest.mark.slow
def test_parts_of_a_finished_segmenter_are_trained_on(corpus, tmp_path):
    small = overrides(corpus, tmp_path)
    params = initialise(functools.partial(build, presets.TINY.model), jax.random.key(3))
    save_segmenter(tmp_path / "begin", presets.TINY.model, params)
    further = {**small, "start_from": str(tmp_path / "begin"), "parts": "details"}
    job = build_job("segmenter", overrides=further, steps=8)
    state = job.init(jax.random.key(0))
    assert set(state["params"]) == {"details"} and set(state["fixed"]) == {"whole"}
    new, step, batch = state, jax.jit(job.step), next(iter(job.train_batches()))
    for _ in range(2):  # the first step of a warm-up has the rate 0
        new, metrics = step(new, batch, KEY)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["windows"]))
    assert float(metrics["windows"]) > 0 and float(metrics["whole"]) == 0
    before, after = (jax.tree.leaves(part["params"]["details"]) for part in (state, new))
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    job.export(new, tmp_path / "after")
    kept = [load_segmenter(tmp_path / name)[1]["whole"] for name in ("begin", "after")]
    jax.tree.map(np.testing.assert_array_equal, *kept)
    # What it began with is part of what the run is; parts without a beginning, or of another name, are refused.
    assert job.data != build_job("segmenter", overrides=small, steps=8).data
    with pytest.raises(InputError, match="needs start_from"):
        build_job("segmenter", overrides={**small, "parts": "details"})
    with pytest.raises(InputError, match="no nose"):
        build_job("segmenter", overrides={**further, "parts": "nose"})


def test_examples_are_found_again_and_a_source_is_needed(corpus, tmp_path):
    job = build_job("segmenter", overrides=overrides(corpus, tmp_path), steps=4)
    batch = next(iter(job.heldout_batches()))
    assert batch["picture"].shape == (4, 256, 256, 3) and batch["sets"].dtype == np.uint32
    made = sorted((tmp_path / "examples").iterdir())
    next(iter(build_job("segmenter", overrides=overrides(corpus, tmp_path), steps=4).heldout_batches()))
    assert sorted((tmp_path / "examples").iterdir()) == made and len(made) == 1
    with pytest.raises(InputError, match="give --source KIND=PATH"):
        build_job("segmenter", steps=2).train_batches()


def test_where_the_pictures_lie_is_no_part_of_the_run(corpus, tmp_path):
    jobs = [build_job("segmenter", overrides=overrides(corpus, tmp_path / name)) for name in "ab"]
    assert repr(jobs[0].config) == repr(jobs[1].config) and jobs[0].data == jobs[1].data
    other = build_job("segmenter", overrides={**overrides(corpus, tmp_path), "per_clip": "4"})
    assert other.data != jobs[0].data


def test_the_paper_preset_has_its_shapes():
    frozen = jax.eval_shape(build_job("segmenter", preset="paper", overrides={"backbone_rate": "0"}).init, KEY)
    assert "backbone" in frozen["fixed"] and set(frozen["params"]) == {"head", "details"}
    job = build_job("segmenter", preset="paper")
    state = jax.eval_shape(job.init, KEY)
    assert not state["fixed"] and set(state["params"]) == {"backbone", "head", "details"}
    batch = {
        "picture": jax.ShapeDtypeStruct((2, 256, 256, 3), np.uint8),
        "sets": jax.ShapeDtypeStruct((2, 128, 128), np.uint32),
        "windows": jax.ShapeDtypeStruct((2, len(WINDOWS), 64, 64, 3), np.uint8),
        "window_sets": jax.ShapeDtypeStruct((2, len(WINDOWS), 64, 64), np.uint32),
    }
    new, metrics = jax.eval_shape(job.step, state, batch, KEY)
    assert jax.tree.structure(new) == jax.tree.structure(state) and metrics["loss"].shape == ()


def test_a_backbone_learns_at_its_own_rate():
    slower = _slower("backbone", 0.1)
    updates = {"backbone": {"a": np.ones(2)}, "head": np.ones(2)}
    made, _ = slower.update(updates, slower.init(updates), updates)
    assert made["backbone"]["a"][0] == pytest.approx(0.1) and made["head"][0] == 1


def test_official_weights_go_into_the_backbone(tmp_path):
    torch = pytest.importorskip("torch")
    from models.dinov2 import DinoConfig, official_names
    from tests.models.test_dinov2 import named, reference

    dino = DinoConfig(24, 2, 3, patch=14, image=70)
    tensors = official_names(named(reference(dino)))
    torch.save({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, tmp_path / "vit.pth")
    thin = UNetConfig((8, 8), (1, 1), (1,), patch=4, unfold=4)
    model = dataclasses.replace(presets.PAPER.model, dino=dino, layers=(0, 1), width=16, picture=70, details=thin)
    config = dataclasses.replace(presets.PAPER, model=model, backbone_weights=str(tmp_path / "vit.pth"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PAPER", config)
        state = build_job("segmenter", preset="paper", overrides={"backbone_rate": "0"}).init(jax.random.key(0))
    np.testing.assert_array_equal(state["fixed"]["backbone"]["class_token"], tensors["cls_token"][0, 0])
    with pytest.raises(InputError, match="no DINOv2 backbone"):
        build_job("segmenter", preset="tiny", overrides={"backbone_weights": "x.pth"})
