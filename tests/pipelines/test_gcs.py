"""Cloud Storage over real connections that fail: nothing is lost, nothing is written twice, nothing half is seen."""

import hashlib
import os
import random
import subprocess
import sys
import time

import pytest

from models.errors import InputError
from pipelines import gcs, storage
from tests.pipelines import cloud as clouds

ROOT = f"gs://{clouds.BUCKET}/set"


@pytest.fixture(scope="module")
def server():
    with clouds.running_cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(server, monkeypatch):
    """The front with a clean record, and requests that lose patience soon."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.url)
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 60.0)
    monkeypatch.setattr(gcs, "REQUEST_SECONDS", (10.0, 1.0))
    monkeypatch.setattr(gcs, "UPLOAD_CHUNK", 2**18)
    monkeypatch.setattr(server, "silence", 1.5)
    server.faults, server.rate, server.page = [], 0.0, clouds.PAGE
    for record in (server.requests, server.injected, server.halves):
        record.clear()
    server.writes.clear()
    storage.remove_tree(ROOT)
    server.requests.clear()
    return server


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def large(monkeypatch) -> bytes:
    """Bytes that are uploaded in three pieces."""
    monkeypatch.setattr("google.cloud.storage.blob._MAX_MULTIPART_SIZE", 2**17)
    monkeypatch.setattr(gcs, "SINGLE_REQUEST", 2**17)
    return some_bytes(2**19 + 1000)


def test_what_was_written_is_read_in_one_request_each(cloud, tmp_path):
    path = f"{ROOT}/one.bin"
    assert not storage.exists(path)
    storage.write_bytes(path, b"12345")
    storage.write_bytes(path, some_bytes(3000))
    for call, answer in ((storage.exists, True), (storage.size, 3000), (storage.read_bytes, some_bytes(3000))):
        cloud.requests.clear()
        assert call(path) == answer
        assert len(cloud.requests) == 1
    storage.write_bytes(f"{ROOT}/empty", b"")
    assert storage.read_bytes(f"{ROOT}/empty") == b""
    with storage.local_copy(path) as local:
        assert open(local, "rb").read() == some_bytes(3000)
    assert not os.path.exists(local)
    with storage.local_copy(path) as local:
        os.remove(local)
    for call in (storage.read_bytes, storage.size):
        with pytest.raises(FileNotFoundError, match="set/none"):
            call(f"{ROOT}/none")
    with pytest.raises(FileNotFoundError), storage.local_copy(f"{ROOT}/none"):
        pass


@pytest.mark.parametrize("fault", clouds.WRITE_FAULTS)
def test_a_failed_upload_is_repeated_and_written_once(cloud, fault):
    path = f"{ROOT}/one.bin"
    for data in (some_bytes(5000), some_bytes(5000, 1)):
        cloud.faults = [("POST", fault), ("POST", fault)]
        cloud.writes.clear()
        storage.write_bytes(path, data)
        assert cloud.injected[-1] == ("POST", fault)
        cloud.faults = []
        assert storage.read_bytes(path) == data
        assert cloud.writes == {path: 1}


@pytest.mark.parametrize("fault", clouds.WRITE_FAULTS)
def test_a_failed_upload_in_pieces_is_repeated_and_written_once(cloud, monkeypatch, fault):
    data, path = large(monkeypatch), f"{ROOT}/large.bin"
    cloud.faults = [("PUT", fault), ("PUT", fault)]
    storage.write_bytes(path, data)
    assert ("PUT", fault) in cloud.injected
    cloud.faults = []
    assert storage.read_bytes(path) == data
    assert cloud.writes == {path: 1}


def test_an_upload_that_is_done_is_not_sent_again(cloud):
    storage.write_bytes(f"{ROOT}/one.bin", b"same")
    cloud.requests.clear()
    storage.write_bytes(f"{ROOT}/one.bin", b"same")
    assert [line.split()[0] for line in cloud.requests] == ["GET"]


def test_another_writer_is_noticed(cloud, monkeypatch):
    path = f"{ROOT}/one.bin"
    storage.write_bytes(path, b"before")
    stale = gcs.facts(path)
    storage.write_bytes(path, b"by another writer")
    answers = iter([stale])
    original = gcs.facts
    monkeypatch.setattr(gcs, "facts", lambda name: next(answers, None) or original(name))
    with pytest.raises(gcs.StorageError, match="another writer"):
        storage.write_bytes(path, b"mine")
    assert storage.read_bytes(path) == b"by another writer"


@pytest.mark.parametrize("fault", clouds.READ_FAULTS)
def test_a_failed_read_is_repeated_and_whole(cloud, fault):
    path, data = f"{ROOT}/one.bin", some_bytes(200_000)
    storage.write_bytes(path, data)
    cloud.faults = [("media", fault), ("media", fault)]
    assert storage.read_bytes(path) == data
    assert not cloud.faults
    cloud.faults = [("GET", clouds.BEFORE), ("GET", clouds.CUT), ("media", fault), ("media", fault)]
    with storage.local_copy(path) as local:
        assert open(local, "rb").read() == data
    assert not cloud.faults


def test_a_cut_download_goes_on_where_it_was_cut(cloud, monkeypatch):
    path, data = f"{ROOT}/one.bin", some_bytes(100_000)
    storage.write_bytes(path, data)
    starts, original = [], gcs._blob("gs://a/b").__class__.download_to_file

    def watched(blob, file, **options):
        starts.append(options["start"])
        return original(blob, file, **options)

    monkeypatch.setattr("google.cloud.storage.Blob.download_to_file", watched)
    cloud.faults = [("media", clouds.CUT)]
    with storage.local_copy(path) as local:
        assert open(local, "rb").read() == data
    assert starts == [None, 50_000]


def test_an_object_replaced_while_it_is_read_is_refused(cloud, monkeypatch, tmp_path):
    path = f"{ROOT}/one.bin"
    storage.write_bytes(path, b"before")
    stale = gcs.facts(path)
    storage.write_bytes(path, b"after!")
    monkeypatch.setattr(gcs, "facts", lambda name: stale)
    with pytest.raises(gcs.StorageError, match="replaced or removed"):
        gcs.download(path, str(tmp_path / "x"))


def test_a_service_that_stays_away_ends_with_a_clear_error(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 0.5)
    cloud.rate, cloud.dice = 1.0, type("Always", (), {"random": lambda s: 0.0, "choice": lambda s, names: names[0]})()
    try:
        for call in (storage.read_bytes, storage.size, lambda path: storage.write_bytes(path, b"x")):
            with pytest.raises(gcs.StorageError, match=r"set/one.bin: gave up after 0.5 s.*503"):
                call(f"{ROOT}/one.bin")
    finally:
        cloud.dice = random.Random(0)


def test_a_killed_upload_leaves_nothing_to_see(cloud, tmp_path):
    """The process dies while the body is on its way: no object, and the next process writes it."""
    path = f"{ROOT}/big.bin"
    code = f"from pipelines import storage\nstorage.write_bytes('{path}', bytes(8_000_000))"
    cloud.faults = [("POST", clouds.STALL)]
    cloud.released.clear()
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}) as writer:
        deadline = time.monotonic() + 100
        while not cloud.injected and time.monotonic() < deadline:
            time.sleep(0.02)
        writer.kill()
    assert cloud.injected == [("POST", clouds.STALL)]
    cloud.released.set()
    while not cloud.halves and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(cloud.halves) == 1
    assert storage.list_files(f"{ROOT}/*") == []
    storage.write_bytes(path, bytes(8_000_000))
    assert storage.size(path) == 8_000_000 and cloud.writes == {path: 1}


def test_a_copy_is_made_once_though_answers_are_lost(cloud):
    storage.write_bytes(f"{ROOT}/one.bin", b"12345")
    for fault in (clouds.BEFORE, clouds.AFTER):
        cloud.faults = [("POST", fault)]
        storage.copy(f"{ROOT}/one.bin", f"{ROOT}/{fault[4:]}.bin")
        assert storage.read_bytes(f"{ROOT}/{fault[4:]}.bin") == b"12345"
        assert cloud.writes[f"{ROOT}/{fault[4:]}.bin"] == 1 and not cloud.faults
    with pytest.raises(FileNotFoundError):
        storage.copy(f"{ROOT}/none", f"{ROOT}/x")


NAMES = ("a.mp4", "b.mp4", "c.txt", "x/a.mp4", "x/y/a.mp4", "x/y/b[1].mp4", ".hidden.mp4", "x/.h/a.mp4", "xy/a.mp4")
PATTERNS = ("*.mp4", "*", "**/*.mp4", "x/**", "x/*/*.mp4", "?.mp4", "[ab].mp4", "[!a].mp4", "**/b[[]1].mp4", "none/*")


def test_a_listing_is_that_of_a_disk(cloud, tmp_path):
    for name in NAMES:
        storage.write_bytes(tmp_path / name, b"12")
        storage.write_bytes(f"{ROOT}/{name}", b"12")
    for pattern in PATTERNS:
        here = [str(os.path.relpath(path, tmp_path)) for path in storage.list_files(tmp_path / pattern)]
        assert [path[len(ROOT) + 1 :] for path in storage.list_files(f"{ROOT}/{pattern}")] == here, pattern
    assert set(storage.list_sizes(f"{ROOT}/**/*.mp4").values()) == {2}
    assert storage.list_names(f"{ROOT}/x") == storage.list_names(tmp_path / "x") == ["a.mp4"]
    assert storage.list_names(f"{ROOT}/none") == []
    facts = storage.file_facts([f"{ROOT}/x/a.mp4", f"{ROOT}/b.mp4", f"{ROOT}/none"])
    assert {path: fact.size for path, fact in facts.items()} == {f"{ROOT}/x/a.mp4": 2, f"{ROOT}/b.mp4": 2}
    assert len({fact.digest for fact in facts.values()}) == 1 and len({f.version for f in facts.values()}) == 2


def test_a_listing_of_many_pages_is_whole_though_pages_fail(cloud):
    names = [f"{ROOT}/many/{n:03d}" for n in range(23)]
    for name in names:
        storage.write_bytes(name, b"")
    cloud.requests.clear()
    cloud.faults = [("GET", clouds.BEFORE), ("GET", clouds.CUT), ("GET", clouds.SHORT)]
    assert storage.list_files(f"{ROOT}/many/*") == names
    assert len(cloud.requests) == 5 + 3
    cloud.faults = [("DELETE", clouds.BEFORE), ("DELETE", clouds.AFTER)]
    storage.remove_tree(f"{ROOT}/many")
    assert storage.list_files(f"{ROOT}/many/*") == []
    storage.remove(f"{ROOT}/many/000")


def test_a_folder_comes_whole(cloud):
    for name in ("model.json", "deep/weights.bin"):
        storage.write_bytes(f"{ROOT}/model/{name}", name.encode())
    with storage.local_folder(f"{ROOT}/model") as folder:
        assert (folder / "deep/weights.bin").read_bytes() == b"deep/weights.bin"
        assert (folder / "model.json").exists()
    assert not folder.exists()
    with pytest.raises(InputError, match="nothing is there"), storage.local_folder(f"{ROOT}/none"):
        pass


def test_a_reader_refuses_what_is_not_the_manifests(cloud, tmp_path):
    digest = hashlib.sha256(b"12345").hexdigest()
    for path in (f"{ROOT}/one.bin", str(tmp_path / "one.bin")):
        storage.write_bytes(path, b"12345")
        storage.check(path, 5, digest)
        with pytest.raises(InputError, match="one.bin: 5 bytes, but the manifest says 6"):
            storage.check(path, 6, digest)
        with pytest.raises(InputError, match="none.bin: this file is missing"):
            storage.check(path.replace("one", "none"), 5)
    storage.write_bytes(f"{ROOT}/one.bin", b"54321")
    with pytest.raises(InputError, match="one.bin: SHA-256 .* but the manifest says"):
        storage.check(f"{ROOT}/one.bin", 5, digest)
    assert storage.sha256_file(f"{ROOT}/one.bin") == hashlib.sha256(b"54321").hexdigest()


def test_a_missing_bucket_says_how_to_make_it(cloud):
    for call in (lambda path: storage.write_bytes(path, b"x"), lambda path: storage.list_files(f"{path}/*")):
        with pytest.raises(InputError, match="no bucket nowhere; run: gcloud storage buckets create gs://nowhere"):
            call("gs://nowhere/x")


def test_missing_permission_and_credentials_say_what_to_run(cloud, monkeypatch, tmp_path):
    from google.api_core.exceptions import Forbidden

    with (
        pytest.raises(InputError, match="gcloud storage buckets add-iam-policy-binding gs://b "),
        gcs._readable("gs://b/x"),
    ):
        raise Forbidden("caller does not have storage.objects.get access")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="gcloud auth application-default login"):
        storage.read_bytes("gs://corpus/x")


def test_random_faults_lose_nothing(cloud):
    """A tenth of all requests fails in some way; every file arrives, once, and is read back whole."""
    cloud.rate, cloud.silence = 0.1, 0.2
    contents = {f"{ROOT}/r/{n:02d}": some_bytes(n * 997, n) for n in range(30)}
    for path, data in contents.items():
        storage.write_bytes(path, data)
    assert storage.list_files(f"{ROOT}/r/*") == sorted(contents)
    for path, data in contents.items():
        assert storage.read_bytes(path) == data
    assert len(cloud.injected) > 5
    assert {path: cloud.writes[path] for path in contents} == dict.fromkeys(contents, 1)
