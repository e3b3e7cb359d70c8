"""Records as bytes: what is written is read again, the same bytes each time, and other readers understand them."""

import numpy as np
import pytest

from pipelines.records import decode_record, encode_record

RECORD = {
    "clip_id": "c1",
    "error": "",
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
    "text": "héllo",
    "raw": b"\x00\xff",
    "count": -3,
    "score": 0.5,
}


def same(a, b):
    assert set(a) == set(b)
    for name, value in a.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == b[name].dtype and value.shape == b[name].shape
            assert np.array_equal(value, b[name], equal_nan=value.dtype.kind == "f")
        else:
            assert type(value) is type(b[name]) and value == b[name]


def test_record_round_trip():
    same(RECORD, decode_record(encode_record(RECORD)))


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, np.inf, -0.0]),
        np.array([True, False]),
        np.array(7, np.uint8),
        np.zeros((2, 0, 3), np.int64),
        np.arange(4, dtype=">u4"),
        np.arange(12).reshape(3, 4).T,
        np.arange(10)[::-2],
        np.array(["a", "été"]),
        np.array(["2026-01-01"], "M8[s]"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_any_layout_come_back(array):
    same({"x": array}, decode_record(encode_record({"x": array})))


def test_numbers_of_numpy_are_numbers():
    found = decode_record(encode_record({"a": np.int64(2**62), "b": np.float32(0.25), "c": True, "d": -(2**63)}))
    same(found, {"a": 2**62, "b": 0.25, "c": 1, "d": -(2**63)})


def test_floats_are_kept_as_float32():
    assert decode_record(encode_record({"x": 0.1})) == {"x": float(np.float32(0.1))}


def test_record_bytes_do_not_depend_on_field_order():
    assert encode_record(RECORD) == encode_record(dict(reversed(RECORD.items())))


def test_arrays_are_views_that_nobody_can_write():
    array = decode_record(encode_record(RECORD))["array"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_record_is_a_tf_train_example():
    tf = pytest.importorskip("tensorflow")
    feature = tf.train.Example.FromString(encode_record(RECORD)).features.feature
    assert feature["count"].int64_list.value[0] == -3
    assert list(feature["array/shape"].int64_list.value) == [2, 3]
    parsed = tf.io.parse_single_example(encode_record(RECORD), {"array": tf.io.FixedLenFeature([], tf.string)})
    assert np.array_equal(np.frombuffer(parsed["array"].numpy(), np.int16).reshape(2, 3), RECORD["array"])


@pytest.mark.parametrize(
    "value",
    [[1, 2], None, np.array([{}, None]), np.zeros(2, [("a", "i4"), ("b", "f4")])],
    ids=["list", "none", "objects", "fields"],
)
def test_a_value_that_bytes_cannot_hold_names_its_field(value):
    with pytest.raises(TypeError, match="field x"):
        encode_record({"x": value})
