"""Models on disk: what is written is read back, and every damage is named."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from models.errors import InputError
from models.io import dataclass_from_dict, fill, flatten, load_model, save_model, unflatten


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    pairs: tuple[tuple[int, int], ...] = ((1, 2), (3, 4))


@dataclass(frozen=True)
class Config:
    width: int
    inner: Inner = field(default_factory=Inner)


PARAMS = {
    "a": {0: {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, 1: {"kernel": np.ones(2)}},
    "b": np.int32(7),
}


def test_round_trip_with_nested_config(tmp_path):
    digest = save_model(tmp_path, "speech", Config(3), PARAMS, {"note": "x"})
    kind, config, params, meta = load_model(tmp_path)
    assert kind == "speech" and meta.weights_sha256 == digest and meta.extra == {"note": "x"}
    assert dataclass_from_dict(Config, config) == Config(3)
    restored = fill(PARAMS, params)
    assert flatten(restored).keys() == flatten(PARAMS).keys()
    for name, leaf in flatten(PARAMS).items():
        np.testing.assert_array_equal(flatten(restored)[name], leaf)


def test_same_arrays_are_the_same_bytes(tmp_path):
    digests = {save_model(tmp_path / str(i), "x", {}, PARAMS) for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0/model.npz").read_bytes() == (tmp_path / "1/model.npz").read_bytes()


def test_damage_is_named(tmp_path):
    with pytest.raises(InputError, match="model.json: no such file"):
        load_model(tmp_path)
    save_model(tmp_path, "x", {}, PARAMS)
    data = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "model.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not an npz"):
        load_model(tmp_path)
    save_model(tmp_path / "other", "x", {}, {"a": PARAMS["a"]})
    (tmp_path / "model.npz").write_bytes((tmp_path / "other/model.npz").read_bytes())
    with pytest.raises(InputError, match="array 'b' is missing"):
        load_model(tmp_path)
    changed = {**PARAMS, "b": np.int32(8)}
    save_model(tmp_path / "changed", "x", {}, changed)
    (tmp_path / "model.npz").write_bytes((tmp_path / "changed/model.npz").read_bytes())
    with pytest.raises(InputError, match="sha256"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"kind": "x"}))
    with pytest.raises(InputError, match="not a model description"):
        load_model(tmp_path)


def test_fill_names_the_array():
    with pytest.raises(InputError, match="'b' is missing"):
        fill({"a": np.ones(2), "b": np.ones(1)}, {"a": np.ones(2)})
    with pytest.raises(InputError, match="'a' has shape"):
        fill({"a": np.ones(2)}, {"a": np.ones(3)})
    with pytest.raises(InputError, match="'c' is not part"):
        fill({"a": np.ones(2)}, {"a": np.ones(2), "c": np.ones(1)})


def test_unknown_config_field():
    with pytest.raises(InputError, match="'depth'"):
        dataclass_from_dict(Config, {"width": 1, "depth": 2})
    with pytest.raises(InputError, match="width"):
        dataclass_from_dict(Config, {})


def test_unflatten_inverts_flatten():
    assert unflatten(flatten({"a": {"b": 1, "c": {"d": 2}}})) == {"a": {"b": 1, "c": {"d": 2}}}
