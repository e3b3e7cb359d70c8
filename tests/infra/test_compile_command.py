"""The step compiled for TPUs that are not there. A shrunk slice is compiled, the paper's own is lowered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra import compile_command
from infra.cli import main
from models.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def compile_step(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: libtpu is loaded with the settings that the command makes before JAX starts."""
    command = [sys.executable, "-m", "infra.cli", "compile", "language", *arguments, "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.tpu_compiler
def test_a_shrunk_step_is_compiled_for_four_chips():
    small = {
        "rows": 4,
        "layers": 2,
        "width": 256,
        "hidden": 512,
        "heads": 4,
        "length": 1024,
        "wide": 256,
        "image_width": 256,
    }
    settings = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    done = compile_step("--topology", "v6e:2x2", "--mesh", "fsdp=2,tensor=2", *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["chips"] == 4 and summary["mesh"] == {"fsdp": 2, "tensor": 2}
    # Two tables of 260 thousand rows of 256 float32, with two moments each, split over four chips: 0.37 GiB and more.
    assert 0.3 < summary["peak_gib_per_chip"] < 4 and summary["hbm_gib_per_chip"] == 31.25
    assert summary["state_gib_per_chip"] < summary["peak_gib_per_chip"] + 0.5
    assert summary["collectives"]["all-reduce"] >= 1 and summary["compile_seconds"] > 0
    assert "an estimate, not measured" in done.stdout


@pytest.mark.slow
@pytest.mark.tpu_compiler
def test_the_papers_step_lowers_for_its_256_chips():
    done = compile_step("--preset", "paper", "--topology", "v6e:16x16", "--lower-only")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["chips"] == 256 and summary["tokens_per_step"] == 256 * 8192 and summary["vocabulary"] == 546_944
    assert summary["head_flops_share"] <= 0.10 < 0.42 < summary["full_softmax_flops_share"]
    assert summary["estimated_step_seconds"] == pytest.approx(
        summary["flops_per_step"] / 256 / (918e12 * summary["utilisation"])
    )


def test_collectives_are_counted():
    text = """
  %a = f32[8]{0} all-reduce(f32[8]{0} %x), replica_groups={}
  %b = (f32[8]{0}, f32[32]{0}) all-gather-start(f32[8]{0} %a), dimensions={0}
  %c = f32[32]{0} all-gather-done((f32[8]{0}, f32[32]{0}) %b)
  ROOT %d = f32[8]{0} reduce-scatter(f32[32]{0} %c), dimensions={0}
"""
    assert compile_command.collectives(text) == {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1}


@pytest.mark.parametrize("topology", ["v6e-256", "v9:2x2", "v6e", "v6e:16by16"])
def test_an_unknown_slice_is_named(topology):
    with pytest.raises(InputError, match="--topology"):
        compile_command.topology_mesh(topology, None)


def test_a_wrong_utilisation_is_refused(capsys):
    assert main(["compile", "language", "--utilisation", "0"]) == 2
    assert "--utilisation 0" in capsys.readouterr().err
