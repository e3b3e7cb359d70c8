"""The tasks: what is given, what is made, in which order.

A task makes its outputs one modality at a time: output j is conditioned on the inputs and on the outputs before it (the
paper's recurrence), so a task with m outputs is m single steps. Families as in the paper's supplement:

- continuation: some input is in the past state (of time-dependent modalities) and the output continues it;
- cross-modal: one output from other modalities;
- chained: several outputs, each joining the condition of the next.
"""

from dataclasses import dataclass

from models.errors import InputError
from tasks.modalities import MODALITIES

FAMILIES = ("continuation", "cross-modal", "chained")


@dataclass(frozen=True)
class Source:
    """An input: a modality and, for time-dependent ones, its state: "past" or "current"; a text is given whole."""

    modality: str
    state: str = "current"


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
    def steps(self) -> tuple[Step, ...]:
        made = tuple(Source(name) for name in self.outputs)
        return tuple(Step(self.name, self.inputs + made[:j], output) for j, output in enumerate(self.outputs))


def _task(family: str, inputs: str, outputs: str) -> Task:
    """``_task("cross-modal", "speech+image", "shape")``; "past speech" is a past state; "a>b" is a chain."""
    sources = []
    for word in inputs.split("+"):
        *state, modality = word.split()
        sources.append(Source(modality, state[0] if state else "current"))
    made = tuple(outputs.split(">"))
    short = "-".join(f"past-{s.modality}" if s.state == "past" else s.modality for s in sources)
    return Task(f"{short}-to-{'-'.join(made)}", family, tuple(sources), made)


TASKS: tuple[Task, ...] = (
    # Continuation: the past of the output goes on, alone or beside what drives it.
    _task("continuation", "past speech", "speech"),
    _task("continuation", "past semantics", "semantics"),
    _task("continuation", "past expression", "expression"),
    _task("continuation", "past pose", "pose"),
    _task("continuation", "past semantics+speech", "semantics"),
    # Cross-modal: one modality from others.
    _task("cross-modal", "speech", "script"),
    _task("cross-modal", "description", "speech"),
    _task("cross-modal", "description+script", "speech"),
    _task("cross-modal", "script+image", "speech"),
    _task("cross-modal", "description", "image"),
    _task("cross-modal", "semantics", "pose"),
    _task("cross-modal", "semantics", "description"),
    _task("cross-modal", "image", "shape"),
    _task("cross-modal", "speech+image", "semantics"),
    _task("cross-modal", "speech+image+shape", "expression"),
    _task("cross-modal", "shape+expression+pose+image", "semantics"),
    # Chained: each output joins the condition of the next.
    _task("chained", "speech+image", "shape>expression>semantics>description"),
    _task("chained", "speech+image", "shape>expression>pose"),
    _task("chained", "description+script", "speech>semantics"),
    _task("chained", "description", "script>speech>expression"),
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
    """Raises ValueError where the registry contradicts itself: duplicates, unknown names, states that do not exist."""
    seen = {}
    for task in tasks:
        key = (frozenset(task.inputs), task.outputs)
        if key in seen or task.name in seen.values():
            raise ValueError(f"{task.name}: the same as another task")
        seen[key] = task.name
        if task.family not in FAMILIES:
            raise ValueError(f"{task.name}: unknown family {task.family}")
        past = any(source.state == "past" for source in task.inputs)
        expected = "chained" if len(task.outputs) > 1 else "continuation" if past else "cross-modal"
        if task.family != expected:
            raise ValueError(f"{task.name}: is {expected}, not {task.family}")
        for source in task.inputs:
            if source.state == "past" and not MODALITIES[source.modality].time_dependent:
                raise ValueError(f"{task.name}: {source.modality} has no past")
        known = [s.modality for s in task.inputs if s.state == "current"] + list(task.outputs)
        if len(set(known)) != len(known):
            raise ValueError(f"{task.name}: a modality is given and made, or made twice")
        for name in known:
            if not MODALITIES[name].stream:
                raise ValueError(f"{task.name}: {name} has no tokens")
