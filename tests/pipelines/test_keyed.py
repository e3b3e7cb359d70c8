"""Whatever order a batch completes in and whatever fails: every label is that of its key."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.keyed import Keyed, WrongKey, one_by_one, run_keyed


def label(key: str) -> dict:
    return {"x": {"label": f"label of {key}"}}


def items(count: int) -> list[Keyed]:
    return [Keyed(f"clip{i}", {"clip_id": f"clip{i}"}, {}) for i in range(count)]


PLAN = st.lists(
    st.sampled_from(["good", "good", "good", "answers", "raises", "twice", "left out", "lost once"]), max_size=24
)


@settings(max_examples=150, deadline=None)
@given(PLAN, st.randoms(use_true_random=False), st.booleans())
def test_every_label_is_that_of_its_key(plan, rng, lazily):
    """Random sizes, completion orders and failures: answered or raised errors, doubled and missing answers."""
    kinds = {f"clip{i}": kind for i, kind in enumerate(plan)}
    calls = dict.fromkeys(kinds, 0)

    def batch(elements):
        assert len(elements) <= len(plan)
        order = rng.sample(elements, len(elements))
        answers = []
        for element in order:
            key, kind = element.key, kinds[element.key]
            calls[key] += 1
            if kind == "raises":
                if lazily:
                    yield from answers
                raise ValueError(key)
            if kind == "left out" or (kind == "lost once" and len(elements) > 1):
                continue
            answers += [(key, KeyError(key) if kind == "answers" else label(key))] * (2 if kind == "twice" else 1)
        yield from answers

    outcomes = run_keyed(batch, items(len(plan)))
    assert set(outcomes) == set(kinds)
    for key, kind in kinds.items():
        expected = {"answers": KeyError, "raises": ValueError, "twice": WrongKey, "left out": WrongKey}.get(kind)
        if expected is None:
            assert outcomes[key] == label(key)
        else:
            assert type(outcomes[key]) is expected and key in str(outcomes[key])


def test_an_answer_for_an_unknown_key_spoils_the_call_and_not_the_elements():
    def shifted(elements):
        # Off by one when there are several: the mistake that gives captions to the wrong videos.
        keys = [element.key for element in elements]
        moved = [*keys[1:], "clip-of-another-batch"] if len(keys) > 1 else keys
        return [(key, label(element.key)) for key, element in zip(moved, elements, strict=True)]

    assert run_keyed(shifted, items(5)) == {f"clip{i}": label(f"clip{i}") for i in range(5)}
    stranger = run_keyed(lambda elements: [("other", label("other"))], items(2))
    assert all(isinstance(outcome, WrongKey) and "'other'" in str(outcome) for outcome in stranger.values())


def test_what_a_batch_had_answered_before_it_raised_is_not_asked_for_again():
    asked = []

    def paid(elements):
        for element in elements:
            asked.append(element.key)
            if element.key == "clip5":
                raise TimeoutError(element.key)
            yield element.key, label(element.key)

    outcomes = run_keyed(paid, items(8))
    assert sorted(key for key in asked if key != "clip5") == sorted(f"clip{i}" for i in range(8) if i != 5)
    assert [key for key, outcome in outcomes.items() if isinstance(outcome, TimeoutError)] == ["clip5"]


def test_one_poisoned_element_of_eight_loses_one():
    def all_or_nothing(elements):
        if any(element.key == "clip3" for element in elements):
            raise RuntimeError("poison")
        return [(element.key, label(element.key)) for element in random.Random(1).sample(elements, len(elements))]

    outcomes = run_keyed(all_or_nothing, items(8))
    assert [key for key, outcome in sorted(outcomes.items()) if isinstance(outcome, Exception)] == ["clip3"]
    assert all(outcomes[key] == label(key) for key in outcomes if key != "clip3")


def test_single_elements_and_wrong_use():
    def only_even(item):
        if int(item.key[4:]) % 2:
            raise ValueError(item.key)
        return label(item.key)

    outcomes = run_keyed(one_by_one(only_even), items(4))
    assert [isinstance(outcomes[f"clip{i}"], ValueError) for i in range(4)] == [False, True, False, True]
    assert run_keyed(one_by_one(only_even), []) == {}
    with pytest.raises(ValueError, match="same key"):
        run_keyed(one_by_one(only_even), [*items(1), *items(1)])
    with pytest.raises(KeyboardInterrupt):
        run_keyed(lambda elements: (_ for _ in ()).throw(KeyboardInterrupt), items(2))
