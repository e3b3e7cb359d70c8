"""Files of a dataset, on a local disk or on Google Cloud Storage: every path in Archon may be a local path or ``gs://bucket/name``.

Writes are all-or-nothing. Locally a file is written under a temporary name and renamed; on Cloud Storage an object
only becomes visible once its upload is complete, and a generation precondition makes a retried upload safe.
"""

import contextlib
import fnmatch
import functools
import glob
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError

TEMPORARY_MARK = ".tmp-"


def is_remote(path: str | os.PathLike) -> bool:
    return str(path).startswith("gs://")


def join(root: str | os.PathLike, *parts: str) -> str:
    return "/".join([str(root).rstrip("/"), *parts])


@functools.lru_cache(maxsize=1)
def _client():
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        from google.auth.credentials import AnonymousCredentials

        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    return storage.Client()


def _blob(path: str):
    bucket, _, name = path[len("gs://") :].partition("/")
    if not bucket or not name:
        raise InputError(f"{path}: expected gs://BUCKET/NAME")
    return _client().bucket(bucket).blob(name)


def exists(path: str | os.PathLike) -> bool:
    if is_remote(path):
        return _blob(str(path)).exists()
    return os.path.exists(path)


def size(path: str | os.PathLike) -> int:
    """Returns the size in bytes; FileNotFoundError if there is no such file."""
    if is_remote(path):
        blob = _blob(str(path))
        if not blob.exists():
            raise FileNotFoundError(str(path))
        blob.reload()
        return blob.size
    return os.path.getsize(path)


def read_bytes(path: str | os.PathLike) -> bytes:
    if is_remote(path):
        blob = _blob(str(path))
        if not blob.exists():
            raise FileNotFoundError(str(path))
        return blob.download_as_bytes()
    return Path(path).read_bytes()


def list_files(pattern: str | os.PathLike) -> list[str]:
    """Returns the files that match a glob pattern, sorted."""
    pattern = str(pattern)
    if not is_remote(pattern):
        return sorted(path for path in glob.glob(os.path.expanduser(pattern)) if os.path.isfile(path))
    bucket, _, name = pattern[len("gs://") :].partition("/")
    prefix = name[: min((name.index(mark) for mark in "*?[" if mark in name), default=len(name))]
    blobs = _client().list_blobs(bucket, prefix=prefix)
    # fnmatch lets * cross a slash; a glob does not.
    return sorted(
        f"gs://{bucket}/{blob.name}"
        for blob in blobs
        if blob.name.count("/") == name.count("/") and fnmatch.fnmatchcase(blob.name, name)
    )


def publish(local: str | os.PathLike, path: str | os.PathLike) -> None:
    """Moves a finished local file to its final place, at once or not at all. The local file is gone afterwards."""
    if is_remote(path):
        blob = _blob(str(path))
        generation = 0
        if blob.exists():
            blob.reload()
            generation = blob.generation
        blob.upload_from_filename(str(local), if_generation_match=generation)
        os.remove(local)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if os.stat(local).st_dev == os.stat(Path(path).parent).st_dev:
        os.replace(local, path)
        return
    beside = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex}"
    shutil.move(str(local), beside)
    os.replace(beside, path)


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[str]:
    """Yields a local temporary name to write to; publishes it as ``path`` if the block ends well, removes it if not."""
    if is_remote(path):
        handle, temporary = tempfile.mkstemp(prefix="archon-")
        os.close(handle)
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex}"
    try:
        yield temporary
        publish(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(data)


@contextmanager
def local_copy(path: str | os.PathLike) -> Iterator[str]:
    """Yields a local name of the file: itself if it is local, else a temporary download."""
    if not is_remote(path):
        yield str(path)
        return
    handle, temporary = tempfile.mkstemp(prefix="archon-", suffix=os.path.splitext(str(path))[1])
    os.close(handle)
    try:
        blob = _blob(str(path))
        if not blob.exists():
            raise FileNotFoundError(str(path))
        blob.download_to_filename(temporary)
        yield temporary
    finally:
        os.remove(temporary)


def sha256_file(path: str | os.PathLike) -> str:
    """Returns the hex SHA-256 of a local file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary_files(root: str | os.PathLike) -> int:
    """Removes what a killed job left half-written below a local folder; returns how many files that were."""
    if is_remote(root) or not os.path.isdir(root):
        return 0
    left = [path for path in Path(root).rglob(f"*{TEMPORARY_MARK}*") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def list_names(folder: str | os.PathLike) -> list[str]:
    """Returns the names of the files right in a folder, sorted; none if there is no such folder. One listing."""
    if is_remote(folder):
        bucket, _, name = str(folder)[len("gs://") :].rstrip("/").partition("/")
        blobs = _client().list_blobs(bucket, prefix=f"{name}/", delimiter="/")
        return sorted(blob.name.rpartition("/")[2] for blob in blobs)
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove(path: str | os.PathLike) -> None:
    """Removes a file; one that is not there is no error."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound):
        _blob(str(path)).delete()


def remove_tree(folder: str | os.PathLike) -> None:
    """Removes everything below a folder, and the folder; one that is not there is no error."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    bucket, _, name = str(folder)[len("gs://") :].rstrip("/").partition("/")
    for blob in list(_client().list_blobs(bucket, prefix=f"{name}/")):
        remove(f"gs://{bucket}/{blob.name}")


@dataclass(frozen=True)
class FileFacts:
    """What a listing tells of a file. ``version`` changes when the file is replaced (mtime in ns, or generation);
    ``digest`` is a hash of the content where the listing has one ("md5:..." or "crc32c:..."), else empty.
    """

    size: int
    version: str
    digest: str = ""


def file_facts(paths: Iterable[str]) -> dict[str, FileFacts]:
    """Returns path -> facts for the files that exist. Objects on Cloud Storage are listed folder by folder."""
    out: dict[str, FileFacts] = {}
    folders: dict[str, list[str]] = {}
    for path in paths:
        if is_remote(path):
            folders.setdefault(path.rpartition("/")[0], []).append(path)
            continue
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)
            out[path] = FileFacts(status.st_size, str(status.st_mtime_ns))
    for folder, names in folders.items():
        bucket, _, prefix = folder[len("gs://") :].partition("/")
        wanted = set(names)
        blobs = _client().list_blobs(bucket, prefix=f"{prefix}/" if prefix else None, delimiter="/")
        for blob in blobs:
            path = f"gs://{bucket}/{blob.name}"
            if path in wanted:
                digest = f"md5:{blob.md5_hash}" if blob.md5_hash else f"crc32c:{blob.crc32c}" if blob.crc32c else ""
                out[path] = FileFacts(blob.size, str(blob.generation), digest)
    return out


def copy(source: str, target: str) -> None:
    """Makes ``target`` the same file as ``source``, which may be replaced or removed afterwards.

    Locally that is a second name for it where the disk can do this: nothing is read.
    """
    if is_remote(target):
        blob = _blob(source)
        blob.bucket.copy_blob(blob, _client().bucket(_blob(target).bucket.name), _blob(target).name)
        return
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{target}{TEMPORARY_MARK}{uuid.uuid4().hex}"
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    # A rename onto a second name of the same file does nothing.
    Path(temporary).unlink(missing_ok=True)


def facts_of(path: str | os.PathLike) -> FileFacts:
    """What ``file_facts`` tells, of one file, without listing its folder. FileNotFoundError if there is none."""
    if not is_remote(path):
        status = os.stat(path)
        return FileFacts(status.st_size, str(status.st_mtime_ns))
    blob = _blob(str(path))
    if not blob.exists():
        raise FileNotFoundError(str(path))
    blob.reload()
    return FileFacts(blob.size, str(blob.generation))
