import json
import os
import subprocess
import sys
import types

import pytest

from infra import cli
from models.errors import InputError


@pytest.fixture
def command(monkeypatch):
    """A command module named `probe` whose behaviour a test sets."""
    module = types.ModuleType("probe_command")
    module.register = lambda parser: parser.add_argument("--n", type=int, default=1)
    module.run = lambda args: {"n": args.n}
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_command", "for tests"))
    return module


def test_json_is_the_last_line(command, capsys):
    assert cli.main(["probe", "--n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"n": 3}


@pytest.mark.parametrize(("error", "status"), [(InputError("a.mp4: field x"), 2), (RuntimeError("broke"), 1)])
def test_exit_status(command, capsys, error, status):
    def run(args):
        raise error

    command.run = run
    assert cli.main(["probe"]) == status
    assert str(error) in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from infra.cli import main; sys.exit(main(['tasks', '--show', 'speech-to-script']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_compiled_programs_are_kept_for_the_next_process(command, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen = []
    command.run = lambda args: seen.append(os.environ["JAX_COMPILATION_CACHE_DIR"])
    cli.main(["probe"])
    assert seen[0].startswith(str(tmp_path / "archon"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    cli.main(["probe"])
    assert seen[1] == "mine"


def test_bad_usage_is_2(command):
    for argv in (["probe", "--nope"], ["nothing"], []):
        with pytest.raises(SystemExit) as stop:
            cli.main(argv)
        assert stop.value.code == 2


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"archon {name}" in out.split("options:")[-1]
