import argparse
import json
import math
import sys
import types

import pytest

from infra import cli, measure_command


@pytest.fixture
def probe(monkeypatch):
    """A measure named `probe` with one argument and one target."""
    module = types.ModuleType("probe_measure")
    module.TARGETS = {"error": ("<=", 0.5)}
    module.register = lambda parser: parser.add_argument("--n", type=float, default=1)
    module.measure = lambda args: {"error": args.n, "clips": 3}
    monkeypatch.setitem(sys.modules, "probe_measure", module)
    monkeypatch.setitem(measure_command.MEASURES, "probe", ("probe_measure", "for tests"))


@pytest.mark.parametrize("argv", [["measure", "probe", "--json"], ["measure", "--json", "probe"]])
def test_figures_are_the_json_on_the_last_line(probe, capsys, argv):
    assert cli.main(argv) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["figures"] == {"error": 1, "clips": 3}
    assert summary["targets"] == {"error": "<= 0.5"}


def test_the_table_says_which_targets_are_met(probe, capsys):
    assert cli.main(["measure", "probe", "--n", "0.25"]) == 0
    assert "| error | 0.25 | <= 0.5 | yes |" in capsys.readouterr().out
    lines = measure_command.table({"error": math.nan, "clips": 3}, {"error": ("<=", 0.5)})
    assert lines[2:] == ["| error | nan | <= 0.5 | NO |", "| clips | 3 |  |  |"]


def test_an_unknown_measure_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["measure", "nothing"])
    assert stop.value.code == 2


def test_every_measure_declares_its_arguments_and_targets():
    for module, about in measure_command.MEASURES.values():
        measure = __import__(module, fromlist=["measure"])
        measure.register(argparse.ArgumentParser())
        assert about and all(sign in (">=", "<=") for sign, _ in measure.TARGETS.values())
