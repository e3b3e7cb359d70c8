"""The 72 tasks: what is given, what is made, in which order. ``docs/tasks.md`` says by which rule they were chosen.

A task makes its outputs one modality at a time: output j is conditioned on the inputs and on the outputs before it (the
paper's recurrence), so a task with m outputs is m single steps. Families as in the paper's supplement:

- continuation: some input is in the past state, and the output goes on from there;
- cross-modal: one output of the language model from other modalities;
- chained: several, each joining the condition of the next.

Video has no tokens. As an input it is what the paper takes it apart into, a semantic video and a reference image. As an
output it comes last: the decoder makes it from the semantics, the image and whatever text there is, after the language
model's steps, which are all that training sees of such a task.
"""

from dataclasses import dataclass

from models.errors import InputError
from tasks.modalities import MODALITIES, VIDEO_PARTS

FAMILIES = ("continuation", "cross-modal", "chained")


@dataclass(frozen=True)
class Source:
    """An input: a modality and, for time-dependent ones, its state: "past" or "current"; a text is given whole."""

    modality: str
    state: str = "current"

    @property
    def parts(self) -> tuple["Source", ...]:
        """What the language model reads: itself, or what a video is taken apart into. A still picture has no past."""
        if self.modality != "video":
            return (self,)
        return tuple(Source(name, self.state if MODALITIES[name].time_dependent else "current") for name in VIDEO_PARTS)


@dataclass(frozen=True)
class Step:
    """One prediction of one modality from what is known."""

    task: str
    inputs: tuple[Source, ...]
    output: str

    @property
    def needs_past(self) -> bool:
        return any(source.state == "past" for source in self.inputs)

    @property
    def whole_clip(self) -> bool:
        """Whether the step is only right on a whole clip: a script says what is said in all of it."""
        return self.output == "script"


@dataclass(frozen=True)
class Task:
    """A named task. Outputs are made in their order."""

    name: str
    family: str
    inputs: tuple[Source, ...]
    outputs: tuple[str, ...]

    @property
    def read(self) -> tuple[Source, ...]:
        """The inputs as the language model reads them."""
        return tuple(part for source in self.inputs for part in source.parts)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The language model's steps; a video at the end is the decoder's."""
        made = tuple(Source(name) for name in self.outputs if MODALITIES[name].stream)
        return tuple(Step(self.name, self.read + made[:j], source.modality) for j, source in enumerate(made))


def _task(family: str, text: str) -> Task:
    """``_task("cross-modal", "speech + image -> shape")``; "past speech" is a past state; "a > b" is a chain."""
    inputs, outputs = text.split(" -> ")
    sources = []
    for word in inputs.split(" + "):
        *state, modality = word.split()
        sources.append(Source(modality, state[0] if state else "current"))
    made = tuple(outputs.split(" > "))
    short = "-".join(f"past-{s.modality}" if s.state == "past" else s.modality for s in sources)
    return Task(f"{short}-to-{'-'.join(made)}", family, tuple(sources), made)


CONTINUATION = (
    # What has a clock goes on, alone ...
    "past speech -> speech",
    "past expression -> expression",
    "past pose -> pose",
    "past semantics -> semantics",
    "past video -> semantics > video",
    # ... and beside what is said: the script for speech, the speech for what is seen.
    "past speech + script -> speech",
    "past expression + speech -> expression",
    "past pose + speech -> pose",
    "past semantics + speech -> semantics",
    "past video + speech -> semantics > video",
)

CROSS_MODAL = (
    # Understanding: a modality from one below it in the order description, script, speech, animation, semantics, video.
    "script -> description",
    "speech -> description",
    "speech -> script",
    "shape + expression + pose -> description",
    "shape + expression + pose -> script",
    "shape + expression + pose -> speech",
    "semantics -> description",
    "semantics -> script",
    "semantics -> speech",
    "semantics -> shape",
    "semantics -> expression",
    "semantics -> pose",
    "video -> description",
    "video -> script",
    "video -> speech",
    "video -> shape",
    "video -> expression",
    "video -> pose",
    # The image stands outside that order: it says what does not change.
    "image -> description",
    "image -> shape",
    # Generation, one level down.
    "description -> script",
    "script -> speech",
    "speech -> shape",
    "speech -> expression",
    "speech -> pose",
    "shape + expression + pose -> semantics",
    # Generation of what does not change, from text.
    "description -> image",
    "description -> shape",
    # A voice by description, and by face.
    "description -> speech",
    "description + script -> speech",
    "script + image -> speech",
    # The motion of a given face: direct, by a known head, by 3DMM, by everything.
    "speech + image -> semantics",
    "speech + image + shape -> expression",
    "speech + image + shape -> pose",
    "shape + expression + pose + image -> semantics",
    "description + script + speech + image -> semantics",
    # Video: direct from speech, driven by 3DMM, driven by semantics, from everything.
    "speech + image -> semantics > video",
    "shape + expression + pose + image -> semantics > video",
    "semantics + image -> description > video",
    "description + script + speech + image -> semantics > video",
)

CHAINED = (
    # To animation: speech first if it is not given, and the script before it.
    "description -> script > speech > shape > expression > pose",
    "description + script -> speech > shape > expression > pose",
    "script + image -> speech > shape > expression > pose",
    "speech -> shape > expression > pose",
    "speech + image -> shape > expression > pose",
    # To semantics: the same, one further.
    "description -> script > speech > shape > expression > pose > semantics",
    "description + script -> speech > shape > expression > pose > semantics",
    "script + image -> speech > shape > expression > pose > semantics",
    "speech -> shape > expression > pose > semantics",
    "speech + image -> shape > expression > pose > semantics",
    # To all: whatever is not given.
    "description -> script > speech > image > shape > expression > pose > semantics > video",
    "description + script -> speech > image > shape > expression > pose > semantics > video",
    "script + image -> description > speech > shape > expression > pose > semantics > video",
    "speech -> description > script > image > shape > expression > pose > semantics > video",
    "speech + image -> description > script > shape > expression > pose > semantics > video",
    # The paper's chain from speech and image, without and with the video at its end; two that leave levels out.
    "speech + image -> shape > expression > semantics > description",
    "speech + image -> shape > expression > semantics > description > video",
    "description + script -> speech > semantics",
    "description -> script > speech > expression",
    # Understanding everything above, from low to high.
    "shape + expression + pose -> speech > script > description",
    "semantics -> shape > expression > pose > speech > script > description",
    "video -> shape > expression > pose > speech > script > description",
)

TASKS: tuple[Task, ...] = tuple(
    _task(family, text)
    for family, texts in zip(FAMILIES, (CONTINUATION, CROSS_MODAL, CHAINED), strict=True)
    for text in texts
)
BY_NAME = {task.name: task for task in TASKS}


def task_named(name: str) -> Task:
    """Returns a task by its name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in BY_NAME:
        raise InputError(f"no task {name!r}, expected one of {', '.join(BY_NAME)}")
    return BY_NAME[name]


def check_registry(tasks: tuple[Task, ...] = TASKS) -> None:
    """Raises ValueError where the registry contradicts itself: duplicates, unknown names, states that do not exist.

    Two tasks are the same if they read the same and make the same in the same order, the video included: a task that
    stops at the semantics is another one than that which goes on to the video.
    """
    seen = {}
    for task in tasks:
        key = (frozenset(task.read), task.outputs)
        if key in seen or task.name in seen.values():
            raise ValueError(f"{task.name}: the same as {seen.get(key, 'another task')}")
        seen[key] = task.name
        if task.family not in FAMILIES:
            raise ValueError(f"{task.name}: unknown family {task.family}")
        for name in (*(source.modality for source in task.inputs), *task.outputs):
            if name not in MODALITIES:
                raise ValueError(f"{task.name}: no modality {name}")
        past = any(source.state == "past" for source in task.inputs)
        expected = "continuation" if past else "chained" if len(task.steps) > 1 else "cross-modal"
        if task.family != expected:
            raise ValueError(f"{task.name}: is {expected}, not {task.family}")
        for source in task.inputs:
            m = MODALITIES[source.modality]
            if source.state == "past" and (m.is_text or not m.time_dependent):
                raise ValueError(f"{task.name}: {source.modality} has no past")
        known = [s.modality for s in task.read if s.state == "current"] + list(task.outputs)
        if len(set(known)) != len(known):
            raise ValueError(f"{task.name}: a modality is given and made, or made twice")
        if "video" in task.outputs:
            if task.outputs[-1] != "video" or not task.steps:
                raise ValueError(f"{task.name}: video comes last, after a step of the language model")
            for need in VIDEO_PARTS:
                if need not in known:
                    raise ValueError(f"{task.name}: a video is made from {' and '.join(VIDEO_PARTS)}; no {need}")
