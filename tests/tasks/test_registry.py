import dataclasses

import pytest

from models.errors import InputError
from tasks.modalities import TOKEN_MODALITIES
from tasks.registry import FAMILIES, TASKS, Source, check_registry, task_named


def test_the_registry_is_sound_and_covers_families_and_modalities():
    check_registry()
    assert {task.family for task in TASKS} == set(FAMILIES)
    assert {name for task in TASKS for name in task.outputs} == set(TOKEN_MODALITIES)
    assert {source.modality for task in TASKS for source in task.inputs} == set(TOKEN_MODALITIES)
    assert len({task.name for task in TASKS}) == len(TASKS)


def test_a_chained_task_is_steps_whose_condition_grows():
    task = task_named("speech-image-to-shape-expression-semantics-description")
    assert [step.output for step in task.steps] == ["shape", "expression", "semantics", "description"]
    assert task.steps[0].inputs == (Source("speech"), Source("image"))
    assert task.steps[3].inputs == tuple(Source(n) for n in ("speech", "image", "shape", "expression", "semantics"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "copy"}, "the same as another"),
        ({"inputs": (Source("image", "past"),), "name": "a"}, "no past"),
        ({"inputs": (Source("speech"),), "name": "a"}, "is cross-modal"),
        ({"inputs": (Source("speech", "past"), Source("speech")), "name": "a"}, "given and made"),
        ({"outputs": ("video",), "name": "a"}, "no tokens"),
    ],
)
def test_a_contradiction_is_named(change, message):
    broken = dataclasses.replace(task_named("past-speech-to-speech"), **change)
    with pytest.raises(ValueError, match=message):
        check_registry((*TASKS, broken))


def test_an_unknown_task_lists_the_names():
    with pytest.raises(InputError, match="speech-to-script"):
        task_named("speech-to-smell")
