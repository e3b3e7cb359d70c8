import dataclasses

import numpy as np
import pytest

from tasks.conditions import gain, interval, likelihoods, pairs, swapped
from tasks.loader import ExampleMaker, HeadLayout, LoaderConfig, TokenRecords
from tasks.modalities import MODALITIES
from tasks.prompts import parse, to_pieces
from tasks.registry import TASKS, task_named
from tasks.windows import WindowConfig
from tests.language import VOCABULARY, language_config
from tests.token_records import ByteText, random_params, record

LOADER = LoaderConfig(length=1280, rows=1, block=32, bins=4, window=WindowConfig(3, 3))
RECORDS = TokenRecords([record(i, frames=37) for i in range(3)], range(3))
NAMES = ("speech-image-to-semantics", "past-pose-to-pose", "image-to-shape")


def maker(names=NAMES) -> ExampleMaker:
    tasks = tuple(task_named(name) for name in names)
    return ExampleMaker(tasks, np.ones(len(tasks)), LOADER, VOCABULARY, ByteText())


def prompt(built, output):
    return parse([*to_pieces(built["tokens"], VOCABULARY, ByteText()), f"</{output}></make>"])


def test_a_pair_has_one_target_and_the_inputs_of_two_clips():
    made = list(pairs(RECORDS, maker()))
    seen = set()
    for right, wrong in zip(made[::2], made[1::2], strict=True):
        which = int(right["which"][0])
        assert which % 2 == 0 and int(wrong["which"][0]) == which + 1
        row, number = divmod(which // 2, len(NAMES))
        output = task_named(NAMES[number]).steps[0].output
        one, two = prompt(right, output), prompt(wrong, output)
        np.testing.assert_array_equal(one.make.content, two.make.content)
        assert [(f.modality, f.state) for f in one.given] == [(f.modality, f.state) for f in two.given]
        for mine, other in zip(one.given, two.given, strict=True):
            assert np.isin(mine.content, RECORDS[row][mine.modality]).all()
            seen.add((mine.modality, bool(np.array_equal(mine.content, other.content))))
    # Inputs and the output's past are another clip's.
    assert {name for name, same in seen if not same} >= {"speech", "image", "semantics", "pose"}


def test_the_past_is_the_other_clips_and_the_present_its_own():
    step = task_named("past-pose-to-pose").steps[0]
    one, two = RECORDS[0], RECORDS[1]
    made = swapped(step, one, two, start=4)["pose"]
    np.testing.assert_array_equal(made[:, :4], two["pose"][:, :4])
    np.testing.assert_array_equal(made[:, 4:], one["pose"][:, 4:])
    assert swapped(step, one, {**two, "pose": two["pose"][:, :3]}, start=4) is None
    speech = swapped(task_named("speech-to-pose").steps[0], one, two, start=0)
    np.testing.assert_array_equal(speech["speech"], two["speech"])
    np.testing.assert_array_equal(speech["pose"], one["pose"])


def test_every_target_is_counted_on_its_side():
    config = language_config(layers=1)
    make = maker()
    layout = HeadLayout.of(VOCABULARY, config)
    nats, tokens = likelihoods(config, random_params(config), RECORDS, make, layout)
    assert nats.shape == tokens.shape == (3, 3, 2) and np.all(tokens > 0)
    np.testing.assert_array_equal(tokens[..., 0], tokens[..., 1])
    assert np.all(tokens[:, 2] == MODALITIES["shape"].num_tokens(37))
    assert np.all(nats > 0) and np.any(nats[..., 0] != nats[..., 1])


def test_gain_is_over_clips_and_needs_both_sides():
    tokens = np.full((4, 2, 2), 10.0)
    nats = np.stack([[[20.0, 30.0 + clip], [50.0, 40.0]] for clip in range(4)])
    found = gain(nats, tokens, [0])
    assert (found.right, found.shuffled) == (2.0, pytest.approx(3.15)) and found.clips == 4 and found.tokens == 40
    assert found.gain == pytest.approx(1.15) and 1.0 <= found.low < found.gain < found.high <= 1.3
    assert gain(nats, tokens, [1]).gain == pytest.approx(-1.0)
    assert gain(nats, tokens, [0, 1]).right == 3.5
    lost = tokens.copy()
    lost[3, 0, 1] = 0
    assert gain(nats, lost, [0]).clips == 3
    assert gain(nats, np.zeros_like(tokens), [0]) is None


def test_the_interval_of_a_mean_narrows_with_the_values():
    rng = np.random.default_rng(0)
    wide, narrow = (interval(rng.normal(size=n)) for n in (10, 1000))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0]) > 0
    assert interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_pairs_are_of_every_task_that_fits():
    every = ExampleMaker(TASKS, np.ones(len(TASKS)), dataclasses.replace(LOADER, length=4096), VOCABULARY, ByteText())
    tasks = {int(one["which"][0]) // 2 % len(TASKS) for one in pairs(RECORDS, every)}
    assert tasks == set(range(len(TASKS)))
