import argparse

import numpy as np
import pytest

from infra.measure_learning import HEARD_SHARE, TARGETS, family_gains, mean_track, measure, mixture, register
from models.errors import InputError
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


def test_too_few_clips_are_refused(tmp_path):
    parser = argparse.ArgumentParser()
    register(parser)
    with pytest.raises(InputError, match="--clips 5"):
        measure(parser.parse_args(["--workdir", str(tmp_path), "--clips", "5"]))


def test_half_of_the_examples_hear_lips_move():
    weights = {name: entry["weight"] for name, entry in mixture()["tasks"].items()}
    assert set(weights) == {task.name for task in TASKS} and sum(weights.values()) == pytest.approx(1)
    heard = {name for name, weight in weights.items() if weight > 0.1}
    assert heard == {
        "speech-to-expression",
        "speech-image-shape-to-expression",
        "past-expression-speech-to-expression",
    }
    assert sum(weights[name] for name in heard) == pytest.approx(HEARD_SHARE + (1 - HEARD_SHARE) * 3 / 72)
