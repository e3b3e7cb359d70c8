import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra.measure_learning import (
    HEARD_SHARE,
    TARGETS,
    family_gains,
    follow,
    lips,
    mean_track,
    measure,
    mixture,
    register,
)
from models.errors import InputError
from models.face.model import load_face_model
from models.sampling import Sampling
from tasks.generate import Language
from tasks.registry import TASKS
from tasks.windows import WindowConfig
from tests.language import VOCABULARY, language_config
from tests.token_records import ByteText, random_params, record


def test_the_mean_of_tracks_of_several_lengths():
    np.testing.assert_allclose(mean_track([np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])]), [2, 3, 5])


def test_every_family_is_measured_on_held_out_clips():
    config = language_config(layers=1)
    language = Language(config, random_params(config), VOCABULARY, ByteText(), WindowConfig(3, 3), length=1280)
    column = [record(index, frames=37) for index in range(7)]
    figures = family_gains(language, column)
    assert figures["heldout_clips"] == sum(one["split"] == "heldout" for one in column) == 2
    for family in ("continuation", "cross-modal", "chained"):
        right, shuffled, gain = (figures[f"{family}_{name}"] for name in ("right", "shuffled", "gain"))
        assert right > 0 and gain == pytest.approx(shuffled - right)
        assert figures[f"{family}_gain_low"] <= gain <= figures[f"{family}_gain_high"]
        # A model that has learned nothing has no use for the right condition.
        assert abs(gain) < 0.5
        assert f"{family}_gain_low" in TARGETS


def test_an_opening_is_held_against_its_own_truth_and_against_the_others():
    wave = np.sin(np.linspace(0, 20, 90))
    noise = np.random.default_rng(0).normal(size=60)
    own, others = follow([wave[:80], noise], [wave, noise + 1])
    np.testing.assert_allclose(own, 1)
    assert others[0] == pytest.approx(np.corrcoef(wave[:60], noise)[0, 1])
    assert others[1] == pytest.approx(np.corrcoef(noise, wave[:60])[0, 1])


@pytest.mark.parametrize("listens", [True, False])
def test_lips_that_follow_the_speech_are_told_from_lips_that_do_not(monkeypatch, tmp_path, listens):
    """The whole measure on made-up truths; the model's place is taken by one that knows the truth, or another's."""
    import pipelines.dataset
    import pipelines.measure.corpus
    import tasks.generate

    model = load_face_model()
    rng = np.random.default_rng(0)
    frames, count = 41, 6

    def truth():
        expression = np.zeros((frames, model.num_expression), np.float32)
        waves = np.sin(np.arange(frames)[:, None] * rng.uniform(0.3, 1.2, 4) + rng.uniform(0, 6, 4))
        expression[:, :4] = waves * 2
        pose, landmarks = np.zeros((frames, 6), np.float32), np.zeros((frames, 68, 2), np.float32)
        shape = np.zeros(model.num_shape, np.float32)
        return {"shape": shape, "expression": expression, "pose": pose, "landmarks": landmarks, "camera": [500, 64, 64]}

    truths = [truth() for _ in range(count)]
    clips = [
        {"source": f"in/{k}.mp4", "start_frame": 0, "end_frame": frames, "box": np.array([0, 0, 128])}
        for k in range(count)
    ]
    tokens = [
        {"error": "", "split": "heldout" if k else "train", "num_frames": frames, "speech": k, "expression": k}
        for k in range(count)
    ]
    # The clip that could not be tokenized is passed over.
    columns = {"clips": [*clips, {}], "tokens": [*tokens, {"error": "no face"}]}
    asked = []

    def generate(language, requests, want, *, sampling):
        asked.append([request.seed for request in requests])
        assert want == "expression" and language.length == 256 and sampling.guidance == 2
        assert all(set(request.known) == {"speech"} and request.frames == frames for request in requests)
        heard = [request.known["speech"] for request in requests]
        return [(one if listens else 1 + one % (count - 1), 0) for one in heard]

    class Codes:
        def decode(self, code):
            return truths[code]["expression"]

    monkeypatch.setattr(pipelines.dataset, "Dataset", lambda root: SimpleNamespace(column=columns.__getitem__))
    named = [(Path(f"videos/{k}.mp4"), {}, one) for k, one in enumerate(truths)]
    monkeypatch.setattr(pipelines.measure.corpus, "read_corpus", lambda directory: iter(named))
    monkeypatch.setattr(tasks.generate, "generate", generate)
    monkeypatch.setattr("models.tokenizers.load_tokenizer", lambda directory: Codes())
    config = language_config(layers=1)
    language = Language(config, {}, VOCABULARY, ByteText(), WindowConfig(3, 3), length=1280)
    figures = lips(language, tmp_path, 4, Sampling(guidance=2), draws=3)
    assert asked == [[4] * 5, [5] * 5, [6] * 5]
    assert figures["lips_tokenizer"] == pytest.approx(1)
    judged = [name for name in TARGETS if name.startswith("lips")]
    assert len(judged) == 3
    if listens:
        assert figures["lips"] == pytest.approx(1) and figures["lips_single"] == pytest.approx(1)
        assert all(figures[name] > 0 for name in judged)
    else:
        assert figures["lips"] < 0.9 and all(figures[name] < 0 for name in judged[:2])


@pytest.mark.parametrize("given", [("--clips", "5"), ("--draws", "0"), ("--temperature", "-1")])
def test_what_cannot_be_measured_is_refused(tmp_path, given):
    parser = argparse.ArgumentParser()
    register(parser)
    with pytest.raises(InputError, match=given[0].strip("-")):
        measure(parser.parse_args(["--workdir", str(tmp_path), *given]))


def test_most_examples_hear_lips_move():
    weights = {name: entry["weight"] for name, entry in mixture()["tasks"].items()}
    assert set(weights) == {task.name for task in TASKS} and sum(weights.values()) == pytest.approx(1)
    heard = {name for name, weight in weights.items() if weight > 0.1}
    assert heard == {"speech-to-expression", "past-expression-speech-to-expression"}
    assert sum(weights[name] for name in heard) == pytest.approx(HEARD_SHARE + (1 - HEARD_SHARE) * 2 / 72)
