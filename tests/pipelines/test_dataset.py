import pickle
from dataclasses import replace

import numpy as np
import pytest

from models.errors import InputError
from pipelines import storage
from pipelines.dataset import (
    Dataset,
    ShardInfo,
    ShardReader,
    check_shard,
    heldout_sources,
    read_shard,
    shard_name,
    update_manifest,
    write_shard,
)
from tests.pipelines.rows import row
from tests.pipelines.test_records import RECORD


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
    rows = [[row(f"0-{i}", "pose", "fit: ValueError: x" if i == 1 else "") for i in range(3)]]
    rows.append([row("1-0", "pose")] * 2)
    infos = [write_shard(tmp_path, shard_name("pose", i, 2), rows[i]) for i in range(2)]
    update_manifest(tmp_path, {"pose": (infos, {})})
    assert Dataset(tmp_path).good_rows("clips", "pose") == [0, 2, 3, 4]


def test_manifest_keeps_other_columns_and_facts(tmp_path):
    make_dataset(tmp_path)
    update_manifest(tmp_path, {"image": ([ShardInfo("image/x", 5, 1, "0" * 64)], {"backend": "b"})}, sources=7)
    manifest = Dataset(tmp_path).manifest()
    assert set(manifest["columns"]) == {"clips", "image"} and manifest["sources"] == 7
    assert manifest["columns"]["clips"]["count"] == 5


def test_read_shard_iterates(tmp_path):
    write_shard(tmp_path, "x", [RECORD, RECORD])
    assert [row["count"] for row in read_shard(tmp_path / "x")] == [-3, -3]


# --- Shards against the manifest ---


def test_a_shard_cut_at_any_byte_is_refused_with_its_name(tmp_path):
    """With the manifest by its size; without it as well, or the records that are left are the right ones."""
    rows = [row(str(i), a=np.random.default_rng(i).bytes(3_000)) for i in range(12)]
    info = write_shard(tmp_path, "clips/x", rows)
    path = tmp_path / "clips" / "x"
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    cuts = {0, 1, len(whole) - 1, *rng.integers(0, len(whole), 150).tolist()}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        for use in (lambda: ShardReader(path, info)[0], lambda: check_shard(tmp_path, info, full=False)):
            with pytest.raises(InputError, match="clips/x: .*the manifest says"):
                use()
        with pytest.raises(InputError, match="clips/x"):
            [ShardReader(path)[k] for k in range(len(rows))]


def test_a_changed_byte_is_found_by_the_hash(tmp_path):
    info = write_shard(tmp_path, "clips/x", [row(str(i), a=np.random.default_rng(i).bytes(3_000)) for i in range(12)])
    check_shard(tmp_path, info)
    path = tmp_path / "clips" / "x"
    whole = bytearray(path.read_bytes())
    for at in np.random.default_rng(5).integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="clips/x"):
            check_shard(tmp_path, info)


def test_a_hash_is_computed_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    info = write_shard(tmp_path, "clips/x", [row("1")])
    hashed = []
    plain = storage.sha256_file
    monkeypatch.setattr(storage, "sha256_file", lambda path: hashed.append(path) or plain(path))
    check_shard(tmp_path, info)
    check_shard(tmp_path, info)
    assert len(hashed) == 1
    path = tmp_path / "clips" / "x"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="clips/x"):
        check_shard(tmp_path, info)
    assert len(hashed) == 2


def test_another_number_of_records_and_an_empty_record_are_refused(tmp_path):
    from array_record.python import array_record_module

    info = write_shard(tmp_path, "clips/x", [row("1"), row("2")])
    with pytest.raises(InputError, match="clips/x: 2 records, but the manifest says 3"):
        ShardReader(tmp_path / "clips" / "x", replace(info, count=3))[0]
    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "empty"), "group_size:1")
    writer.write(b"")
    writer.close()
    with pytest.raises(InputError, match="record 0 is empty"):
        ShardReader(tmp_path / "empty")[0]


def test_what_is_read_back_must_be_what_was_written(tmp_path, monkeypatch):
    """A disk that turns a bit after the file was written: nothing is published."""
    from pipelines.dataset import ShardWriter

    close = ShardWriter.close

    def damage(writer):
        close(writer)
        with open(writer.path, "r+b") as file:
            at = file.read().index(noise[:50])
            file.seek(at)
            file.write(b"other bytes")

    noise = np.random.default_rng(0).bytes(5_000)  # not compressed, so it can be found in the file
    monkeypatch.setattr(ShardWriter, "close", damage)
    with pytest.raises(OSError, match="x: record 0"):
        write_shard(tmp_path, "x", [row("1", a=noise)])
    assert not list(tmp_path.iterdir())


def test_verify_names_the_bad_shard(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.verify(full=True)
    path = tmp_path / shard_name("clips", 1, 2)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match="clips-00001-of-00002"):
        dataset.verify()
