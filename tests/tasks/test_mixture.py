import json
import math

import numpy as np
import pytest

from models.errors import InputError
from tasks.mixture import FLOOR, mixture_weights, read_mixture, uniform_weights
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


def test_a_video_counts_as_the_output_of_what_ends_in_it():
    """1 / N of each: two tasks end in video and one in semantics, though the model makes semantics for all three."""
    names = ("speech-image-to-semantics-video", "past-video-to-semantics-video", "speech-image-to-semantics")
    weights = mixture_weights([task_named(n) for n in names], dict.fromkeys(names, 8.0))
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.5])


def test_the_weights_of_all_tasks_by_hand():
    """Two tasks per output on average would be N = 2; the registry's own counts are used."""
    perplexity = {task.name: 2.0 + number for number, task in enumerate(TASKS)}
    raw = []
    for number, task in enumerate(TASKS):
        same = sum(other.outputs[-1] == task.outputs[-1] for other in TASKS)
        raw.append(math.log(2.0 + number) / same)
    np.testing.assert_allclose(mixture_weights(TASKS, perplexity), np.array(raw) / sum(raw))


def test_a_mixture_is_uniform_names_or_a_file(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"tasks": {t.name: {"weight": w} for t, w in zip(THREE, (1, 0, 3), strict=True)}}))
    names = [task.name for task in THREE]
    assert read_mixture("uniform", THREE) == tuple((name, 1 / 3) for name in names)
    assert read_mixture(f"{names[2]}, {names[0]}", THREE) == ((names[0], 0.5), (names[1], 0), (names[2], 0.5))
    assert read_mixture(str(path), THREE) == ((names[0], 0.25), (names[1], 0), (names[2], 0.75))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dance", "weights.json: not a file of weights"),
        ("{}", "not a file of weights"),
        ('{"tasks": {"past-speech-to-speech": 0.5}}', "not a file of weights"),
        ({"past-speech-to-speech": 1, "dance": 1}, r"1 unknown \(dance\) and 2 missing \(description-to-speech, spee"),
        ({"past-speech-to-speech": 1, "description-to-speech": 1}, r"1 missing \(speech-to-script\)"),
        (dict.fromkeys((t.name for t in THREE), 0), "every weight is 0"),
        (dict.fromkeys((t.name for t in THREE), -1), "past-speech-to-speech.weight: -1, expected a number"),
        (dict.fromkeys((t.name for t in THREE), math.nan), "expected a number"),
        (dict.fromkeys((t.name for t in THREE), None), "expected a number"),
    ],
)
def test_a_file_that_does_not_fit_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "weights.json"
    if not isinstance(content, str):
        content = json.dumps({"tasks": {name: {"weight": weight} for name, weight in content.items()}})
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_mixture(str(path), THREE)


def test_what_is_neither_a_task_nor_a_file_is_named():
    with pytest.raises(InputError, match="no task 'dance' and no such file; expected uniform, names"):
        read_mixture(f"{THREE[0].name},dance", THREE)
    with pytest.raises(InputError, match="no such file"):
        read_mixture(",".join(["x" * 50] * 200), THREE)
