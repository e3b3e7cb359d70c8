"""Which job trains what: a table of names to the modules that build them, imported only when asked for."""

import dataclasses
import importlib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    from infra.training.loop import Job

# name -> "module:function"; a builder has the signature of ``build_job`` without its name.
JOBS = {
    "speech": "infra.training.tokenizer_jobs:build_speech",
    "image": "infra.training.tokenizer_jobs:build_image",
    "semantic": "infra.training.tokenizer_jobs:build_semantic",
    "shape": "infra.training.tokenizer_jobs:build_shape",
    "expression": "infra.training.tokenizer_jobs:build_expression",
    "pose": "infra.training.tokenizer_jobs:build_pose",
    "segmenter": "infra.training.segmenter_job:build",
    "language": "infra.training.language_job:build",
    "decoder": "infra.training.decoder_job:build",
}
TEXT = "text"  # SentencePiece is fitted in one go, not by the loop: see ``infra.training.tokenizer_jobs.train_text``
LANGUAGE = "language"  # takes a mixture of tasks
SEGMENTER = "segmenter"  # takes labelled pictures of several kinds, not only a dataset
TOKENIZERS = ("text", "speech", "image", "semantic", "shape", "expression", "pose")
PRESETS = ("tiny", "embedded", "paper")


@dataclass(frozen=True)
class Part:
    """One of the jobs that a name stands for, trained one after the other in folders of the work directory.

    Attributes:
        name: of the part and of its folder.
        config: what ``make``'s job is configured by.
        make: (work directory of the whole, steps) -> the job; it may read what the parts before it left there.
    """

    name: str
    config: Any
    make: Callable[[Path, int], "Job"]


def build_job(
    name: str,
    *,
    preset: str = "tiny",
    dataset: Path | None = None,
    tokenizers: Path | None = None,
    overrides: dict[str, str] | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> "Job | tuple[Part, ...]":
    """Builds the named job, or the parts that it consists of.

    Args:
        name: a key of ``JOBS``.
        preset: "tiny", "paper" ..., from ``infra/presets``.
        dataset: the dataset's directory.
        tokenizers: the directory that holds the trained tokenizers' directories.
        overrides: config fields as text, dotted for nested ones: {"model.width": "64"}.
        steps: overrides the preset's number of steps.
        seed: of the data order.

    Raises:
        InputError: an unknown name, preset or field.
    """
    if name not in JOBS:
        raise InputError(f"train: unknown job {name!r}, expected one of {', '.join(JOBS)}")
    module, function = JOBS[name].split(":")
    build = getattr(importlib.import_module(module), function)
    return build(
        preset=preset,
        dataset=None if dataset is None else Path(dataset),
        tokenizers=None if tokenizers is None else Path(tokenizers),
        overrides=dict(overrides or {}),
        steps=steps,
        seed=seed,
    )


def preset_config(module: types.ModuleType | str, preset: str, overrides: dict[str, str] | None = None) -> Any:
    """Returns a preset's config (the module's ``TINY``, ``PAPER`` ...) with overrides applied.

    Args:
        module: a module of ``infra.presets`` or its name ("infra.presets.speech").
        preset: "tiny", "paper".
        overrides: field -> text; parsed by the field's type; "a.b" reaches into a nested dataclass.
    """
    if isinstance(module, str):
        module = importlib.import_module(module)
    config = getattr(module, preset.upper(), None)
    if config is None:
        have = sorted(n.lower() for n in vars(module) if n.isupper() and dataclasses.is_dataclass(getattr(module, n)))
        raise InputError(f"{module.__name__}: no preset {preset!r}, expected one of {', '.join(have)}")
    return _override(config, {tuple(name.split(".")): text for name, text in (overrides or {}).items()}, "")


def parse_overrides(pairs: list[str]) -> dict[str, str]:
    """Splits ``["key=value", ...]``."""
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set {pair!r}: expected key=value")
        parsed[key.strip()] = value.strip()
    return parsed


def _override(config: Any, overrides: dict[tuple[str, ...], str], prefix: str) -> Any:
    """Applies all overrides of one dataclass at once: a config checks that its fields fit each other."""
    hints = typing.get_type_hints(type(config))
    fields = [f.name for f in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    for name in dict.fromkeys(path[0] for path in overrides):
        full = prefix + name
        if name not in fields:
            raise InputError(f"--set {full}: {type(config).__name__} has no field {name!r}, only {', '.join(fields)}")
        inner = {path[1:]: text for path, text in overrides.items() if path[0] == name}
        if () in inner:
            try:
                changes[name] = parse_value(hints[name], inner[()])
            except ValueError as error:
                raise InputError(f"--set {full}={inner[()]}: expected {hints[name]}: {error}") from error
        elif not dataclasses.is_dataclass(getattr(config, name)):
            raise InputError(f"--set {full}: {name!r} has no fields of its own")
        else:
            changes[name] = _override(getattr(config, name), inner, f"{full}.")
    return dataclasses.replace(config, **changes)


def parse_value(kind: Any, text: str) -> Any:
    """Reads text as bool, int, float, str, a tuple of these ("4,4,5,8") or an optional one ("none").

    Raises:
        ValueError: it does not read.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null") and type(None) in arguments:
            return None
        kinds = [a for a in arguments if a is not type(None)]
        return parse_value(kinds[0], text)
    if origin is tuple:
        parts = [p for p in text.strip("()[] ").split(",") if p.strip()]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(parse_value(arguments[0], p.strip()) for p in parts)
        return tuple(parse_value(a, p.strip()) for a, p in zip(arguments, parts, strict=True))
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ValueError(f"{text!r} is not true or false")
        return words[text.lower()]
    if kind in (int, float, str):
        return kind(text)
    raise ValueError(f"a field of type {kind} cannot be given as text")
