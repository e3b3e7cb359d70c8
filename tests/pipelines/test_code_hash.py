"""The hash follows what can run, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import code_hash as hashing
from pipelines.code_hash import closure, code_hash

TREE = {
    "toy/__init__.py": "",
    "toy/make.py": '''
"""Makes things."""
import numpy as np
from toy import helpers, whole
from toy.passing import passed
from toy.settings import Settings

FACTOR = 3


def make(x: Settings):
    """Doc."""
    from toy.late import late

    return late(helpers.used(x) * FACTOR) + passed()


def other(x):
    return np.abs(x)


def by_module(x):
    return dict(tool=whole)


def by_process(run):
    return run("import os; from toy.origin import passed; passed()")
''',
    "toy/helpers.py": "BASE = 1\n\n\ndef used(x):\n    return x + BASE\n\n\ndef unused(x):\n    return x\n",
    "toy/late.py": "import os\n\nclass Late:\n    one = 1\n\n\ndef late(x):\n    return Late()\n",
    "toy/passing.py": "from toy.origin import passed\n",
    "toy/origin.py": "def passed():\n    return 7\n",
    "toy/settings.py": "class Settings:\n    size = 1\n",
    "toy/whole.py": "def a():\n    return 1\n",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hashing, "OWN", ("toy",))
    hashing.forget()

    def change(name: str, old: str, new: str) -> None:
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
        hashing.forget()

    yield change
    hashing.forget()


def test_it_is_made_of_what_the_root_uses(tree):
    assert set(closure(("toy.make.make",)).definitions) == {
        "toy.make:make",
        "toy.make:FACTOR",
        "toy.helpers:used",
        "toy.helpers:BASE",
        "toy.late:Late",
        "toy.late:late",
        "toy.origin:passed",
    }
    assert closure(("toy.make.other",)).packages == {"numpy"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("toy/make.py", "FACTOR = 3", "FACTOR = 4"),
        ("toy/make.py", "helpers.used(x) *", "helpers.used(x) +"),
        ("toy/helpers.py", "x + BASE", "x - BASE"),
        ("toy/helpers.py", "BASE = 1", "BASE = 2"),
        ("toy/late.py", "one = 1", "one = 2"),
        ("toy/late.py", "import os\n", "import os\n\nos.environ['A'] = 'b'\n"),
        ("toy/origin.py", "return 7", "return 8"),
        ("toy/__init__.py", "", "print('imported')\n"),
    ],
)
def test_code_that_runs_counts(tree, name, old, new):
    before = code_hash(["toy.make.make"])
    tree(name, old, new)
    assert code_hash(["toy.make.make"]) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("toy/make.py", '"""Doc."""', '"""Another text."""'),
        ("toy/make.py", "FACTOR = 3", "FACTOR = (\n    3  # a comment\n)"),
        ("toy/make.py", "return np.abs(x)", "return -x"),
        ("toy/helpers.py", "    return x\n", "    return 2 * x\n"),
        ("toy/settings.py", "size = 1", "size = 2"),
        ("toy/whole.py", "return 1", "return 2"),
    ],
)
def test_nothing_else_counts(tree, name, old, new):
    before = code_hash(["toy.make.make"])
    tree(name, old, new)
    assert code_hash(["toy.make.make"]) == before


def test_what_the_caller_hands_in_is_a_root_and_a_module_as_a_value_counts_as_a_whole(tree):
    before = code_hash(["toy.make.make", "toy.settings.Settings"]), code_hash(["toy.make.by_module"])
    tree("toy/settings.py", "size = 1", "size = 2")
    tree("toy/whole.py", "return 1", "return 2")
    after = code_hash(["toy.make.make", "toy.settings.Settings"]), code_hash(["toy.make.by_module"])
    assert before[0] != after[0] and before[1] != after[1]


def test_code_for_another_process_counts(tree):
    assert set(closure(("toy.make.by_process",)).definitions) == {"toy.make:by_process", "toy.origin:passed"}


def test_versions_of_named_packages_count(tree, monkeypatch):
    plain = code_hash(["toy.make.make"])
    before = code_hash(["toy.make.make"], ["numpy"])
    monkeypatch.setattr(hashing, "package_version", lambda name: "other")
    assert len({plain, before, code_hash(["toy.make.make"], ["numpy"])}) == 3
    assert code_hash(["toy.make.make"]) == plain


def test_a_name_that_is_not_there_is_an_error(tree):
    with pytest.raises(LookupError, match="toy.gone"):
        code_hash(["toy.gone.thing"])
    tree("toy/helpers.py", "def used", "def renamed")
    with pytest.raises(LookupError, match="'used'"):
        code_hash(["toy.make.make"])


def test_an_installed_package_has_the_hash_of_its_checkout(tmp_path):
    """From another working directory the same files are found through the import system."""
    root = Path(__file__).resolve().parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pipelines.code_hash import code_hash\n"
        "print(code_hash(['pipelines.stages.speech.normalise']), 'onnxruntime' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [code_hash(["pipelines.stages.speech.normalise"]), "False"]
