import pickle

import numpy as np
import pytest

from models.errors import InputError
from pipelines.dataset import (
    Dataset,
    ShardInfo,
    ShardReader,
    decode_record,
    encode_record,
    error_record,
    heldout_sources,
    read_shard,
    shard_name,
    update_manifest,
    write_shard,
)

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
            assert value.dtype == b[name].dtype and np.array_equal(value, b[name])
        else:
            assert type(value) is type(b[name]) and value == b[name]


def test_record_round_trip():
    same(RECORD, decode_record(encode_record(RECORD)))


def test_record_bytes_do_not_depend_on_field_order():
    assert encode_record(RECORD) == encode_record(dict(reversed(RECORD.items())))


def test_record_is_a_tf_train_example():
    tf = pytest.importorskip("tensorflow")
    feature = tf.train.Example.FromString(encode_record(RECORD)).features.feature
    assert feature["count"].int64_list.value[0] == -3
    assert list(feature["array/shape"].int64_list.value) == [2, 3]
    parsed = tf.io.parse_single_example(encode_record(RECORD), {"array": tf.io.FixedLenFeature([], tf.string)})
    assert np.array_equal(np.frombuffer(parsed["array"].numpy(), np.int16).reshape(2, 3), RECORD["array"])


def test_unknown_type_names_the_field():
    with pytest.raises(TypeError, match="field x"):
        encode_record({"x": [1, 2]})


def make_dataset(root, shards=(3, 2)):
    infos = []
    for index, count in enumerate(shards):
        rows = [{"clip_id": f"{index}-{i}", "error": "", "source_sha256": f"{index}{i}" * 8} for i in range(count)]
        infos.append(write_shard(root, shard_name("clips", index, len(shards)), rows))
    update_manifest(root, {"clips": (infos, {"backend": "test"})})
    return Dataset(root)


def test_column_joins_shards_in_order_and_can_be_pickled(tmp_path):
    column = pickle.loads(pickle.dumps(make_dataset(tmp_path).column("clips")))
    assert [row["clip_id"] for row in column] == ["0-0", "0-1", "0-2", "1-0", "1-1"]
    with pytest.raises(IndexError):
        column[5]


def test_same_records_same_bytes(tmp_path):
    one = write_shard(tmp_path / "a", "x", [RECORD])
    two = write_shard(tmp_path / "b", "x", [RECORD])
    assert one == two
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_failed_writer_leaves_nothing(tmp_path):
    def rows():
        yield RECORD
        raise RuntimeError("worker died")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path, "x", rows())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [10, 5_000, 70_000, 131_000])
def test_a_truncated_shard_is_named(tmp_path, cut):
    rows = [{"clip_id": str(i), "error": "", "a": np.random.default_rng(i).bytes(9_000)} for i in range(20)]
    info = write_shard(tmp_path, "x", rows)
    path = tmp_path / "x"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=str(path)):
        len(ShardReader(path))
    with pytest.raises(InputError, match="manifest says"):
        ShardReader(path, info)[0]


def test_missing_shard_column_and_manifest_are_named(tmp_path):
    dataset = make_dataset(tmp_path)
    (tmp_path / "clips" / "clips-00001-of-00002.array_record").unlink()
    with pytest.raises(InputError, match="clips-00001-of-00002.*missing"):
        dataset.column("clips")[4]
    with pytest.raises(InputError, match="no column 'pose'"):
        dataset.column("pose")
    with pytest.raises(InputError, match="manifest.json"):
        Dataset(tmp_path / "nowhere").manifest()


def test_heldout_is_by_source():
    sources = [f"{i % 12:02d}" for i in range(40)]
    assert heldout_sources(sources) == {"00", "01"}
    assert heldout_sources(["a", "a"]) == set()
    assert len(heldout_sources([f"{i:05d}" for i in range(5_000)])) == 200


def test_split_covers_every_row_once(tmp_path):
    dataset = make_dataset(tmp_path)
    train, held = dataset.split("train"), dataset.split("heldout")
    assert sorted(train + held) == list(range(5)) and held == [0]


def test_good_rows_leave_out_errors(tmp_path):
    make_dataset(tmp_path)
    rows = [[error_record(f"0-{i}", "fit: ValueError: x" if i == 1 else "") for i in range(3)]]
    rows.append([error_record("1-0", "")] * 2)
    infos = [write_shard(tmp_path, shard_name("pose", i, 2), rows[i]) for i in range(2)]
    update_manifest(tmp_path, {"pose": (infos, {})})
    assert Dataset(tmp_path).good_rows("clips", "pose") == [0, 2, 3, 4]


def test_manifest_keeps_other_columns_and_facts(tmp_path):
    make_dataset(tmp_path)
    update_manifest(tmp_path, {"image": ([ShardInfo("image/x", 5, 1, "0")], {"backend": "b"})}, sources=7)
    manifest = Dataset(tmp_path).manifest()
    assert set(manifest["columns"]) == {"clips", "image"} and manifest["sources"] == 7
    assert manifest["columns"]["clips"]["count"] == 5


def test_read_shard_iterates(tmp_path):
    write_shard(tmp_path, "x", [RECORD, RECORD])
    assert [row["count"] for row in read_shard(tmp_path / "x")] == [-3, -3]
