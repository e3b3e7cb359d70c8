import hashlib

import pytest

from infra.dataflow.bake import bake, main, missing_in_wheels
from models.errors import InputError


def test_weights_arrive_checked(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    [path] = bake(tmp_path / "in", tmp_path / "out", ["", f"a.pth:{digest}", ""])
    assert path.read_bytes() == b"weights"
    for wrong, says in (
        (f"a.pth:{'0' * 64}", "SHA-256 is"),
        (f"b.pth:{digest}", "no such file"),
        ("a.pth", "expected FILE:SHA256"),
        (f"../in/a.pth:{digest}", "name of a file"),
    ):
        with pytest.raises(InputError, match=says):
            bake(tmp_path / "in", tmp_path / "out", [wrong])
    assert main(["--from", str(tmp_path / "in"), "--to", str(tmp_path / "out"), f"a.pth:{'0' * 64}"]) == 2
    assert "SHA-256" in capsys.readouterr().err


def test_what_wheels_bring_is_there(monkeypatch):
    assert missing_in_wheels() == []
    monkeypatch.setattr("infra.dataflow.bake.IN_WHEELS", {"silero_vad": "data/none.onnx", "no_such_package": "x"})
    assert missing_in_wheels() == ["silero_vad/data/none.onnx", "no_such_package/x"]
