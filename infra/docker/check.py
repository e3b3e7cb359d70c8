"""Checks image definitions as far as this can be done without building them: python -m infra.docker.check

What is copied exists and is not ignored, images are pinned, downloads are checked, what pip installs is a part of
setup.py and pinned, system packages leave no lists, the entry point is there, and nothing runs as root without a
reason in the file ("# root: ...").
"""

import fnmatch
import json
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
# Installed by themselves, before the constraints count.
_BUILD_TOOLS = {"setuptools", "wheel"}


@dataclass(frozen=True)
class Instruction:
    """``line``: number in the file; ``flags``: like --from=beam; ``words``: the rest, as written."""

    line: int
    name: str
    flags: tuple[str, ...]
    text: str

    def words(self) -> list[str]:
        if self.text.startswith("["):
            return json.loads(self.text)
        return shlex.split(self.text)

    def flag(self, name: str) -> str | None:
        return next((flag.partition("=")[2] for flag in self.flags if flag.startswith(f"--{name}=")), None)


@dataclass(frozen=True)
class Package:
    """What setup.py and the constraints say: extra -> requirement names, scripts, name -> pinned version."""

    extras: dict[str, set[str]]
    core: set[str]
    scripts: set[str]
    pinned: dict[str, str]


def plain(name: str) -> str:
    """The name of a requirement as an index compares it: "Foo_bar[x]>=1" -> foo-bar"""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def read_package(root: Path = ROOT) -> Package:
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(root / "setup.py"))
    given = setup.call_args.kwargs
    pinned = dict(line.split("==") for line in (root / "infra/constraints.txt").read_text().split("\n") if "==" in line)
    return Package(
        {extra: {plain(name) for name in names} for extra, names in given["extras_require"].items()},
        {plain(name) for name in given["install_requires"]},
        {script.partition("=")[0].strip() for script in given["entry_points"]["console_scripts"]},
        {plain(name): version for name, version in pinned.items() if not name.startswith("#")},
    )


def parse(text: str) -> list[Instruction]:
    out, start, joined = [], 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") or (not line.strip() and not joined):
            continue
        start = start if joined else number
        joined += line.rstrip().removesuffix("\\") + " "
        if line.rstrip().endswith("\\"):
            continue
        name, _, rest = joined.strip().partition(" ")
        words, flags = rest.strip(), []
        while words.startswith("--"):
            flag, _, words = words.partition(" ")
            flags.append(flag)
            words = words.strip()
        out.append(Instruction(start, name.upper(), tuple(flags), words))
        joined = ""
    return out


def check(path: Path, root: Path = ROOT, package: Package | None = None) -> list[str]:
    """Returns what is wrong with an image definition, as "file:line: what"."""
    package, text = package or read_package(root), path.read_text(encoding="utf-8")
    problems: list[str] = []
    stages: set[str] = set()
    arguments: dict[str, str | None] = {}
    copied: list[str] = []
    user = "root"
    for item in parse(text):

        def wrong(what: str, line: int = item.line) -> None:
            problems.append(f"{path.name}:{line}: {what}")

        if item.name == "ARG":
            name, given, value = item.text.partition("=")
            arguments[name] = value if given else None
        elif item.name == "FROM":
            words, user, copied = item.text.split(), "root", []
            if not _pinned(words[0], stages, arguments):
                wrong(f"image {words[0]} has no tag or digest, or the tag latest")
            if len(words) == 3:
                stages.add(words[2])
        elif item.name == "ADD":
            if re.search(r"https?://|git@", item.text) and not item.flag("checksum"):
                wrong("a download without a checksum")
        elif item.name == "COPY":
            *sources, target = item.words()
            copied.append(target)
            origin = item.flag("from")
            if origin is not None:
                if not _pinned(origin, stages, arguments):
                    wrong(f"--from={origin}: no such stage, and no pinned image")
                continue
            for source in sources:
                if not list(root.glob(source)):
                    wrong(f"COPY {source}: no such file")
                elif _ignored(source, root):
                    wrong(f"COPY {source}: .dockerignore leaves it out")
        elif item.name == "RUN":
            mounts = [part for flag in item.flags if flag.startswith("--mount=") for part in flag[8:].split(",")]
            for mount in mounts:
                if mount.startswith("from=") and not _pinned(mount[5:], stages, arguments):
                    wrong(f"{mount}: no such stage, and no pinned image")
            for problem in _check_run(item.text, root, package):
                wrong(problem)
        elif item.name == "USER":
            user = item.text
        elif item.name == "ENTRYPOINT":
            if not item.text.startswith("["):
                wrong("ENTRYPOINT: expected the exec form, a JSON list, so that signals arrive")
                continue
            program = item.words()[0]
            within = any(program == target or program.startswith(f"{target.rstrip('/')}/") for target in copied)
            if not (within or program in package.scripts or program == "make"):
                wrong(f"ENTRYPOINT {program}: nothing puts it into the image")
    if user == "root" and not re.search(r"^# root: \S", text, re.M):
        problems.append(f"{path.name}: runs as root; add USER, or say why: # root: ...")
    return problems


def _pinned(image: str, stages: set[str], arguments: dict[str, str | None]) -> bool:
    if image in stages or image == "scratch":
        return True
    for name in re.findall(r"\$\{?(\w+)\}?", image):
        if name not in arguments:
            return False
        if arguments[name] is None:
            return True  # whoever builds names the image
        image = re.sub(rf"\$\{{?{name}\}}?", arguments[name], image)
    last = image.rsplit("/", 1)[-1]
    return "@sha256:" in image or (":" in last and not last.endswith((":latest", ":")))


def _ignored(source: str, root: Path) -> bool:
    file = root / ".dockerignore"
    parts = Path(source).parts
    names = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for line in file.read_text().splitlines() if file.exists() else ():
        pattern = line.strip().rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        keep, pattern = pattern.startswith("!"), pattern.lstrip("!").removeprefix("**/")
        anywhere = line.strip().lstrip("!").startswith("**/")
        tried = [*names, *parts] if anywhere else names
        if any(fnmatch.fnmatchcase(name, pattern) for name in tried):
            out = not keep
    return out


def _check_run(text: str, root: Path, package: Package) -> list[str]:
    problems = []
    if re.search(r"\b(curl|wget)\b", text) and "sha256sum" not in text:
        problems.append("a download without a checksum")
    if "apt-get install" in text:
        if "--no-install-recommends" not in text or "rm -rf /var/lib/apt/lists" not in text:
            problems.append("apt-get install: expected --no-install-recommends and no package lists left")
        if "apt-get update" not in text:
            problems.append("apt-get install: expected apt-get update in the same RUN")
    for module in re.findall(r"python -m ([\w.]+)", text):
        if not (root / (module.replace(".", "/") + ".py")).exists():
            problems.append(f"python -m {module}: no such module here")
    for command in re.findall(r"pip install ((?:(?!&&|;).)*)", text):
        problems += _check_pip(shlex.split(re.sub(r"\$\{\w+:\+[^}]*\}", "", command)), package)
    return problems


def _check_pip(words: list[str], package: Package) -> list[str]:
    problems, constrained = [], "-c" in words
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or before in ("-c", "--index-url"):
            continue
        if word.startswith("."):
            names: set[str] = set(package.core)
            for extra in re.findall(r"[\w-]+", word[1:]):
                if extra not in package.extras:
                    problems.append(f"pip install {word}: setup.py has no extra {extra}")
                names |= package.extras.get(extra, set())
            if not constrained:
                problems.append(f"pip install {word}: expected -c infra/constraints.txt")
            loose = sorted(names - package.pinned.keys())
            if loose:
                problems.append(f"pip install {word}: constraints.txt does not pin {', '.join(loose)}")
        elif plain(word) in _BUILD_TOOLS or "==" in word:
            continue
        elif not (constrained and plain(word) in package.pinned):
            problems.append(f"pip install {word}: not pinned")
    return problems


def definitions(root: Path = ROOT) -> list[Path]:
    return sorted(path for folder in ("docker", "dataflow") for path in (root / "infra" / folder).glob("*Dockerfile"))


def main() -> int:
    package = read_package()
    problems = [problem for path in definitions() for problem in check(path, package=package)]
    print(*(problems or [f"{len(definitions())} image definitions: nothing wrong that can be seen without building"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
