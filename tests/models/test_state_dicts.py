"""Weight files without their frameworks: what torch and safetensors wrote is read back, nothing in them is run."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from models.errors import InputError
from models.state_dicts import read_state_dict


def test_torch_checkpoints_of_many_kinds(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "half": base.half(),
        "brain": base.bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
    }
    torch.save(tensors, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert read[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(read[name].astype(np.float32), value.detach().float().numpy(), err_msg=name)


def test_a_module_s_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "w.pth")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["weight"], layer.weight.detach().numpy())


def safetensors(path, header: dict, body: bytes):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_safetensors(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3, dtype=np.float16)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [3], "data_offsets": [24, 30]},
    }
    safetensors(tmp_path / "w.safetensors", header, a.tobytes() + b.tobytes())
    read = read_state_dict(tmp_path / "w.safetensors")
    assert list(read) == ["a", "b"]
    np.testing.assert_array_equal(read["a"], a)
    np.testing.assert_array_equal(read["b"], b)
    safetensors(tmp_path / "short.safetensors", header, a.tobytes())
    with pytest.raises(InputError, match="tensor 'b'"):
        read_state_dict(tmp_path / "short.safetensors")


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("w.pth", "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({"weight": Harm()}))
    with pytest.raises(InputError, match="mkdir"):
        read_state_dict("w.pth")
    assert not os.path.exists("harm")


def test_what_is_no_state_dict_is_said(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="No such file"):
        read_state_dict(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello, I am a text")
    with pytest.raises(InputError, match="neither"):
        read_state_dict(tmp_path / "text.pth")
    torch.save({"teacher": {"w": torch.zeros(2)}, "step": 3}, tmp_path / "nested.pth")
    with pytest.raises(InputError, match="'teacher' is dict"):
        read_state_dict(tmp_path / "nested.pth")
    torch.save({"w": torch.zeros(100)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut.pth"):
        read_state_dict(tmp_path / "cut.pth")
