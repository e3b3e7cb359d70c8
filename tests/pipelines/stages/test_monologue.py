import json

import numpy as np
import pytest

from models.face.model import load_face_model
from models.signals import VIDEO_FPS
from pipelines.stages.describe import validate_description
from pipelines.stages.imperfections import KINDS
from pipelines.stages.monologue import ClipTask, draw_voice, lay_out, plan, render_clip
from pipelines.stages.voice import FEMALE_VARIANTS, MALE_VARIANTS


def test_lay_out_pads_to_the_minimum():
    audio, lead, frames = lay_out(np.full(22050, 7, np.int16), 22050)
    assert frames == 90 and len(audio) == 3 * 22050 and lead == pytest.approx(0.2, abs=1e-4)
    assert (audio[:4410] == 0).all() and (audio[4410 : 4410 + 22050] == 7).all() and (audio[4410 + 22050 :] == 0).all()
    assert lay_out(np.zeros(4 * 22050, np.int16), 22050)[2] == 132


def test_voices_go_with_people():
    for k in range(30):
        woman = draw_voice(np.random.default_rng(k), "female", "young")
        man = draw_voice(np.random.default_rng(k), "male", "young")
        assert woman.variant in FEMALE_VARIANTS and man.variant in MALE_VARIANTS
    lower = [draw_voice(np.random.default_rng(k), "male", "older").pitch for k in range(20)]
    assert np.mean(lower) < np.mean([draw_voice(np.random.default_rng(k), "female", "young").pitch for k in range(20)])


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """One small clip with every imperfection."""
    base = tmp_path_factory.mktemp("hard") / "clip"
    result = render_clip(ClipTask(1, 0, 160, 128, KINDS, 1.0), base, {"by": "test"})
    with np.load(f"{base}.truth.npz") as file:
        return base, result, json.loads((base.parent / "clip.truth.json").read_text()), dict(file)


def test_every_imperfection_is_recorded_with_frames_and_strength(hard):
    _, result, truth, arrays = hard
    records = {fault["kind"]: fault for fault in truth["imperfections"]}
    assert set(records) == set(KINDS)
    for fault in records.values():
        assert 0 <= fault["start"] < fault["end"] <= result["frames"] and fault["unit"]
    assert records["hand"]["strength"] == pytest.approx(
        arrays["hidden"][records["hand"]["start"] : records["hand"]["end"]].mean(), abs=1e-3
    )


def test_truth_arrays_fit_the_frame(hard):
    _, result, truth, arrays = hard
    frames = result["frames"]
    assert truth["size"] == [160, 128] and truth["made_by"] == {"by": "test"}
    assert arrays["labels"].shape == (frames, 128, 160) and arrays["hidden"].shape == (frames, 68)
    assert arrays["landmarks"].shape == (frames, 68, 2) and arrays["camera"].shape == (3,)
    validate_description(json.dumps(truth["description"]))


def test_the_cut_moves_the_head_and_nothing_else_does(hard):
    _, _, truth, arrays = hard
    cut = next(f for f in truth["imperfections"] if f["kind"] == "cut")["start"]
    steps = np.linalg.norm(np.diff(arrays["pose"][:, 3:], axis=0), axis=1)
    assert steps.argmax() == cut - 1 and steps[cut - 1] > 5 * np.delete(steps, cut - 1).max()


def test_silence_is_silent():
    model = load_face_model()
    whole = paused = 0
    for index in range(5):
        take = plan(model, ClipTask(1, index, 128, 128, ("silence",), 1.0))
        fault = take.faults[0]
        first, last = (int(t / VIDEO_FPS * take.rate) for t in (fault.start + 1, fault.end - 1))
        assert np.abs(take.audio[first:last]).max() == 0
        whole += not take.words
        paused += bool(take.words)
        assert bool(take.words) == bool(take.text) == bool(take.audio.any())
    assert whole and paused


def test_asking_for_imperfections_leaves_the_rest_of_a_clip():
    model = load_face_model()
    plain, noisy = plan(model, ClipTask(1, 0, 128, 128)), plan(model, ClipTask(1, 0, 128, 128, ("noise", "blur"), 1.0))
    assert plain.text == noisy.text and plain.character.attributes == noisy.character.attributes
    np.testing.assert_array_equal(plain.pose, noisy.pose)
    assert not plain.faults and len(noisy.faults) == 2
