import dataclasses
from collections import Counter

import pytest

from models.errors import InputError
from tasks.modalities import MODALITIES, TOKEN_MODALITIES
from tasks.registry import BY_NAME, FAMILIES, TASKS, Source, check_registry, task_named

ANIMATION = ("shape", "expression", "pose")
# What the paper's description names, by the task that it is here.
NAMED = {
    "speech-to-speech continuation": "past-speech-to-speech",
    "description to speech": "description-to-speech",
    "speech and image to semantics": "speech-image-to-semantics",
    "description, script, speech and image to semantic video": "description-script-speech-image-to-semantics",
    "the same, and the video": "description-script-speech-image-to-semantics-video",
    "image and text to speech": "script-image-to-speech",
    "text to all": "description-to-script-speech-image-shape-expression-pose-semantics-video",
    "text to all, with script": "description-script-to-speech-image-shape-expression-pose-semantics-video",
    "speech to all": "speech-to-description-script-image-shape-expression-pose-semantics-video",
    "speech to video, direct": "speech-image-to-semantics-video",
    "speech to video, full chain": "speech-image-to-shape-expression-semantics-description-video",
    "video driven by 3DMM": "shape-expression-pose-image-to-semantics-video",
    "video driven by semantics": "semantics-image-to-description-video",
    "script edited, voice kept": "past-speech-script-to-speech",
} | {
    f"{below} to {above}": f"{'-'.join(ANIMATION) if below == '3DMM' else below}-to-{above}"
    for below in ("video", "semantics", "3DMM")
    for above in ("description", "script", "speech", *(() if below == "3DMM" else ANIMATION))
}
# The names of before there were 72: weights and logs of earlier runs use them.
FIRST = (
    "past-speech-to-speech",
    "past-semantics-to-semantics",
    "past-expression-to-expression",
    "past-pose-to-pose",
    "past-semantics-speech-to-semantics",
    "speech-to-script",
    "description-to-speech",
    "description-script-to-speech",
    "script-image-to-speech",
    "description-to-image",
    "semantics-to-pose",
    "semantics-to-description",
    "image-to-shape",
    "speech-image-to-semantics",
    "speech-image-shape-to-expression",
    "shape-expression-pose-image-to-semantics",
    "speech-image-to-shape-expression-semantics-description",
    "speech-image-to-shape-expression-pose",
    "description-script-to-speech-semantics",
    "description-to-script-speech-expression",
)


def test_there_are_72_sound_tasks_in_the_papers_three_families():
    check_registry()
    assert len(TASKS) == len(BY_NAME) == 72
    assert Counter(task.family for task in TASKS) == dict(zip(FAMILIES, (10, 40, 22), strict=True))


def test_every_modality_is_made_by_some_task_and_read_by_some():
    assert {name for task in TASKS for name in task.outputs} == set(MODALITIES)
    assert {source.modality for task in TASKS for source in task.inputs} == set(MODALITIES)
    assert {step.output for task in TASKS for step in task.steps} == set(TOKEN_MODALITIES)
    assert {s.modality for task in TASKS for step in task.steps for s in step.inputs} == set(TOKEN_MODALITIES)


@pytest.mark.parametrize("named", NAMED)
def test_the_tasks_that_the_paper_names_are_there(named):
    assert NAMED[named] in BY_NAME


def test_the_first_names_stay():
    assert set(FIRST) <= set(BY_NAME)


def arrow(inputs, outputs) -> str:
    return f"{' + '.join(inputs)} -> {' > '.join(outputs)}"


def by_the_rule() -> set[str]:
    """The tasks again, from the sentences of docs/tasks.md."""
    made = set()
    for name, said in (("speech", "script"), *((n, "speech") for n in ("expression", "pose", "semantics", "video"))):
        outputs = ("semantics", "video") if name == "video" else (name,)
        made |= {arrow([f"past {name}"], outputs), arrow([f"past {name}", said], outputs)}
    order = (("description",), ("script",), ("speech",), ANIMATION, ("semantics",), ("video",))
    for place, below in enumerate(order):
        made |= {arrow(below, [name]) for above in order[:place] for name in above}
    made -= {arrow(["video"], ["semantics"])}  # a part of it
    for above, below in zip(order[:4], order[1:5], strict=True):
        made |= {arrow(above, [name]) for name in below}
    made |= {arrow(["image"], [name]) for name in ("description", "shape")}
    made |= {arrow(["description"], [name]) for name in ("image", "shape")}
    made |= {arrow(given, ["speech"]) for given in (["description"], ["description", "script"], ["script", "image"])}
    everything = ("description", "script", "speech", "image")
    for given in (("speech", "image"), (*ANIMATION, "image"), everything):
        made |= {arrow(given, ["semantics"]), arrow(given, ["semantics", "video"])}
    made |= {arrow(("speech", "image", "shape"), [name]) for name in ("expression", "pose")}
    made |= {arrow(("semantics", "image"), ("description", "video"))}
    starts = (("description",), ("description", "script"), ("script", "image"), ("speech",), ("speech", "image"))
    whole = (*everything, *ANIMATION, "semantics", "video")
    for given in starts:
        said = [] if "speech" in given else ["speech"] if "script" in given else ["script", "speech"]
        made |= {arrow(given, (*said, *ANIMATION)), arrow(given, (*said, *ANIMATION, "semantics"))}
        made |= {arrow(given, [name for name in whole if name not in given])}
    thinking = ("shape", "expression", "semantics", "description")
    made |= {arrow(("speech", "image"), thinking), arrow(("speech", "image"), (*thinking, "video"))}
    made |= {arrow(("description", "script"), ("speech", "semantics"))}
    made |= {arrow(("description",), ("script", "speech", "expression"))}
    heard = ("speech", "script", "description")
    made |= {arrow(ANIMATION, heard)} | {arrow([n], (*ANIMATION, *heard)) for n in ("semantics", "video")}
    return made


def test_the_registry_is_what_its_rule_says():
    declared = {
        arrow([s.modality if s.state == "current" else f"past {s.modality}" for s in task.inputs], task.outputs)
        for task in TASKS
    }
    assert declared == by_the_rule()


def test_a_chained_task_is_steps_whose_condition_grows():
    task = task_named("speech-image-to-shape-expression-semantics-description")
    assert [step.output for step in task.steps] == ["shape", "expression", "semantics", "description"]
    assert task.steps[0].inputs == (Source("speech"), Source("image"))
    assert task.steps[3].inputs == tuple(Source(n) for n in ("speech", "image", "shape", "expression", "semantics"))
    for task in TASKS:
        for before, step in zip(task.steps, task.steps[1:], strict=False):
            assert step.inputs == (*before.inputs, Source(before.output))


def test_a_video_is_read_as_semantics_and_image_and_made_after_the_models_steps():
    assert task_named("video-to-script").steps[0].inputs == (Source("semantics"), Source("image"))
    goes_on = task_named("past-video-speech-to-semantics-video")
    assert goes_on.steps[0].inputs == (Source("semantics", "past"), Source("image"), Source("speech"))
    assert [step.output for step in goes_on.steps] == ["semantics"]
    to_all = task_named(NAMED["speech to all"])
    assert [step.output for step in to_all.steps] == list(to_all.outputs[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "copy"}, "the same as past-speech-to-speech"),
        ({"inputs": (Source("image", "past"),), "name": "a"}, "no past"),
        ({"inputs": (Source("script", "past"),), "name": "a"}, "no past"),
        ({"inputs": (Source("smell"),), "name": "a"}, "no modality smell"),
        ({"inputs": (Source("speech"),), "name": "a"}, "is cross-modal"),
        ({"inputs": (Source("speech", "past"), Source("speech")), "name": "a"}, "given and made"),
        ({"inputs": (Source("speech", "past"), Source("video"), Source("image")), "name": "a"}, "given and made"),
        ({"outputs": ("speech", "video"), "name": "a"}, "no semantics"),
        ({"outputs": ("video", "speech"), "name": "a"}, "video comes last"),
        (
            {"inputs": (Source("video"),), "outputs": ("video",), "family": "cross-modal", "name": "a"},
            "video comes last",
        ),
        (
            # The two parts of a video are the video.
            {
                "inputs": (Source("image"), Source("semantics")),
                "outputs": ("description",),
                "family": "cross-modal",
                "name": "a",
            },
            "the same as video-to-description",
        ),
    ],
)
def test_a_contradiction_is_named(change, message):
    broken = dataclasses.replace(task_named("past-speech-to-speech"), **change)
    with pytest.raises(ValueError, match=message):
        check_registry((*TASKS, broken))


def test_an_unknown_task_lists_the_names():
    with pytest.raises(InputError, match="speech-to-script"):
        task_named("speech-to-smell")
