"""The documents say what is: every command in them is one that the program takes, every file they point to is there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from infra.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/dataflow.md", "docs/tasks.md", "docs/training.md")


def commands(text: str) -> list[list[str]]:
    """Returns the words after ``archon`` of every command line in a text; shell variables stand for a word."""
    text = text.replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*(?:\.venv/bin/)?archon\s+(.*)", line)
        if match:
            words = re.sub(r"\$\([^)]*\)", "value", match[1].split("#")[0])
            found.append(shlex.split(words.replace("$m", "speech")))
    return found


def code_blocks(document: str) -> str:
    return "\n".join(re.findall(r"```\w*\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_are_taken(document):
    found = commands(code_blocks(document))
    assert found or document != "README.md"
    for words in found:
        assert build_parser(words[0]).parse_args(words).command == words[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_are_taken(name):
    parser = build_parser(name)._subparsers._group_actions[0].choices[name]
    examples = commands(parser.epilog or "")
    assert examples, f"archon {name} --help shows no example"
    for words in examples:
        assert build_parser(name).parse_args(words).command == name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_and_files_are_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"\]\(([^):#]+)\)", text):
        assert (ROOT / path).exists(), path


def test_image_builds_of_the_documents_fit_their_definitions():
    """-f names a file that is there, --build-arg an argument that it has; modules that are run exist."""
    text = code_blocks("docs/dataflow.md").replace("\\\n", " ")
    builds = [line for line in text.splitlines() if line.startswith("docker build")]
    assert len(builds) >= 3
    for line in builds:
        definition = (ROOT / re.search(r"-f (\S+)", line)[1]).read_text(encoding="utf-8")
        for name in re.findall(r"--build-arg (\w+)=", line):
            assert re.search(rf"^ARG {name}\b", definition, re.M), name
        for name in re.findall(r"--build-context (\w+)=", line):
            assert f"AS {name}" in definition
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.import_module(module).main
    assert "metadata-file=infra/dataflow/metadata.json" in text and (ROOT / "infra/dataflow/metadata.json").exists()


def test_every_command_module_says_what_it_does():
    for name, (module, _) in COMMANDS.items():
        assert importlib.import_module(module).__doc__, name
