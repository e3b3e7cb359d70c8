import math

import numpy as np
import pytest

from models.errors import InputError
from tasks.mixture import FLOOR, mixture_weights, uniform_weights
from tasks.registry import TASKS, task_named

THREE = tuple(task_named(n) for n in ("past-speech-to-speech", "description-to-speech", "speech-to-script"))


def test_weights_follow_log_perplexity_over_tasks_per_output():
    weights = mixture_weights(THREE, {THREE[0].name: 100.0, THREE[1].name: 10.0, THREE[2].name: 10.0})
    expected = np.array([math.log(100) / 2, math.log(10) / 2, math.log(10)])
    np.testing.assert_allclose(weights, expected / expected.sum())


def test_a_learned_task_keeps_a_share_and_an_unmeasured_one_gets_the_median():
    weights = mixture_weights(THREE, {THREE[0].name: math.e, THREE[1].name: 1.0})
    expected = np.array([1 / 2, FLOOR / 2, 0.5])
    np.testing.assert_allclose(weights, expected / expected.sum())


def test_everything_learned_is_uniform():
    np.testing.assert_allclose(mixture_weights(THREE, {t.name: 1.0 for t in THREE}), uniform_weights(THREE))
    assert uniform_weights(TASKS).sum() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf])
def test_impossible_perplexities_are_refused(value):
    with pytest.raises(InputError, match="at least 1"):
        mixture_weights(THREE, {THREE[0].name: value})


def test_no_measurement_at_all_is_refused():
    with pytest.raises(InputError, match="none"):
        mixture_weights(THREE, {})
