"""The import rules: which folder may use which, and that importing a module is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("pipelines", "models", "tasks", "infra")
MAY_IMPORT = {
    "models": {"models"},
    "pipelines": {"pipelines", "models"},
    # The loader reads the dataset where its records are defined.
    "tasks": {"tasks", "models", "pipelines.dataset"},
    "infra": set(FOLDERS),
}
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
HEAVY = {"tensorflow", "torch", "apache_beam", "cv2", "mediapipe", "dlib", "face_alignment", "scenedetect", "numba"}


def imports(path: Path, top_level: bool):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_flows_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[folder]
    for name in imports(path, top_level=False):
        if name.split(".")[0] in FOLDERS and "." in name:
            parts = name.split(".")
            assert {parts[0], ".".join(parts[:2])} & allowed, f"{path}: imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = HEAVY | ({"jax", "flax"} if path.relative_to(ROOT).parts[0] == "pipelines" else set())
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & heavy


def test_stages_and_training_know_no_beam():
    for path in [*(ROOT / "pipelines/stages").rglob("*.py"), *(ROOT / "infra/training").rglob("*.py")]:
        names = set(imports(path, top_level=False))
        assert not {n for n in names if n.split(".")[0] == "apache_beam" or n.startswith("pipelines.beam")}, path


def test_the_command_starts_without_heavy_libraries():
    code = (
        "import sys, contextlib, io\n"
        "from infra.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['curate', '--help'])\n"
        f"print(sorted(set(sys.modules) & {HEAVY | {'jax', 'flax'}!r}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_no_file_is_over_500_lines():
    long = {str(path): n for path in MODULES if (n := len(path.read_text().splitlines())) > 500}
    assert not long
