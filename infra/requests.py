"""What `archon generate` is asked for: one request by its arguments, or many by a file."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from infra.given import parse_given
from models.errors import InputError
from models.sampling import Sampling
from pipelines import storage
from tasks.chains import parse_chain
from tasks.modalities import VIDEO_PARTS


@dataclass(frozen=True)
class GenerateConfig:
    """What to make from what.

    Attributes:
        given: (kind, file or text) pairs; kinds are ``infra.given.KINDS``.
        want: the modality to make.
        chain: "thinking", "direct" or modalities joined by ">".
        models: directory of the trained models' directories.
        output: directory to write to.
        seed: of the sampling.
        frames: length; needed without speech, and cuts the speech that is given.
        clip: DATASET:ID, whose speech and reference image are given.
        sampling: how the language model's tokens are drawn.
    """

    given: tuple[tuple[str, str], ...]
    want: str
    models: str
    output: str
    chain: str = "thinking"
    seed: int = 0
    frames: int | None = None
    clip: str | None = None
    sampling: Sampling = Sampling()


def chain_of(config: GenerateConfig) -> tuple[str, ...]:
    kinds = [kind for kind, _ in config.given] + (["speech", "image"] if config.clip else [])
    if len(set(kinds)) < len(kinds):
        raise InputError(f"--clip {config.clip}: its speech and image are given, so --given cannot give them too")
    if not kinds:
        raise InputError("--given: nothing is given; expected KIND=FILE")
    if "video" in kinds:
        kinds += VIDEO_PARTS
        twice = [kind for kind in VIDEO_PARTS if kinds.count(kind) > 1]
        if twice:
            raise InputError(f"--given video: a video gives {' and '.join(VIDEO_PARTS)}; {twice[0]} is given twice")
    return parse_chain(config.chain, config.want, kinds)


def read_requests(path: str, common: GenerateConfig) -> list[GenerateConfig]:
    """Reads ``--requests``: what a line does not say is as in ``common``.

    Raises:
        InputError: names the file, the line and what was expected.
    """
    fields = {"given": dict, "want": str, "chain": str, "output": str, "seed": int, "frames": int, "clip": str}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--requests {path}: expected a text file of JSON lines ({error})") from None
    configs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"--requests {path}: line {number}: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise InputError(f"--requests {path}: line {number}: expected an object")
        for name, value in values.items():
            kind = fields.get(name)
            if kind is None or not isinstance(value, kind) or isinstance(value, bool):
                expected = f"a field of type {kind.__name__}" if kind else f"one of {', '.join(fields)}"
                raise InputError(f"--requests {path}: line {number}: {name}: {value!r}, expected {expected}")
        given = parse_given([f"{kind}={value}" for kind, value in values.pop("given", {}).items()])
        output = storage.join(common.output, f"{len(configs):03d}")
        configs.append(dataclasses.replace(common, **{"output": output, "given": given} | values))
        if not configs[-1].want:
            raise InputError(f"--requests {path}: line {number}: no want, and no --want; expected what to make")
    if not configs:
        raise InputError(f"--requests {path}: no requests in it")
    outputs = [config.output for config in configs]
    for output in outputs:
        if outputs.count(output) > 1:
            raise InputError(f"--requests {path}: output {output} is that of two requests")
    return configs
