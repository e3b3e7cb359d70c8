"""Files of a dataset, on a local disk or on Google Cloud Storage: every path in Archon may be a local path or ``gs://bucket/name``.

Writes are all-or-nothing. Locally a file is written under a temporary name and renamed; on Cloud Storage an object
only becomes visible once its upload is complete (pipelines/gcs.py).
"""

import contextlib
import functools
import glob
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from models.errors import InputError
from pipelines import gcs
from pipelines.gcs import StorageError as StorageError

TEMPORARY_MARK = ".tmp-"

Item, Answer = TypeVar("Item"), TypeVar("Answer")


def is_remote(path: str | os.PathLike) -> bool:
    return str(path).startswith("gs://")


def map_requests(root: str | os.PathLike, function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """[function(item) for item in items], with 8 on their way at a time if they are requests about a remote root."""
    if not is_remote(root):
        return [function(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


def join(root: str | os.PathLike, *parts: str) -> str:
    return "/".join([str(root).rstrip("/"), *parts])


# --- Reading ---


def exists(path: str | os.PathLike) -> bool:
    if is_remote(path):
        return gcs.facts(str(path)) is not None
    return os.path.exists(path)


def size(path: str | os.PathLike) -> int:
    """Returns the size in bytes; FileNotFoundError if there is no such file."""
    if not is_remote(path):
        return os.path.getsize(path)
    facts = gcs.facts(str(path))
    if facts is None:
        raise FileNotFoundError(str(path))
    return facts.size


def check(path: str | os.PathLike, size: int, sha256: str | None = None) -> None:
    """Raises InputError that names the file if it is missing or not the one that a manifest lists.

    One request for an object, and no read: the object's hash is compared if it was stored with it. A local file's
    hash is not computed here; ``sha256_file`` does that.
    """
    if is_remote(path):
        facts = gcs.facts(str(path))
        there, digest = (None, None) if facts is None else (facts.size, facts.sha256)
    else:
        there, digest = (os.path.getsize(path) if os.path.exists(path) else None), None
    if there is None:
        raise InputError(f"{path}: this file is missing; expected {size} bytes")
    if there != size:
        raise InputError(f"{path}: {there} bytes, but the manifest says {size}: truncated or replaced")
    if digest and sha256 and digest != sha256:
        raise InputError(f"{path}: SHA-256 {digest[:12]}..., but the manifest says {sha256[:12]}...: replaced")


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns a file's bytes; FileNotFoundError if there is no such file."""
    return gcs.read(str(path)) if is_remote(path) else Path(path).read_bytes()


def list_files(pattern: str | os.PathLike) -> list[str]:
    """Returns the files that a glob pattern names, sorted. ``**`` stands for any number of folders."""
    pattern = str(pattern)
    if is_remote(pattern):
        return list(list_sizes(pattern))
    return sorted(p for p in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p))


def list_sizes(pattern: str | os.PathLike) -> dict[str, int]:
    """Returns file -> bytes of the files that a glob pattern names, sorted. Objects' sizes come with their names."""
    pattern = str(pattern)
    if not is_remote(pattern):
        return {path: os.path.getsize(path) for path in list_files(pattern)}
    bucket, name = gcs.split(pattern)
    prefix = name[: min((name.index(mark) for mark in "*?[" if mark in name), default=len(name))]
    matches = _glob_regex(name)
    found = (item for item in gcs.listing(bucket, prefix) if matches.fullmatch(item.name))
    return dict(sorted((f"gs://{bucket}/{item.name}", item.size) for item in found))


def list_names(folder: str | os.PathLike) -> list[str]:
    """Returns the names of the files right in a folder, sorted; none if there is no such folder. One listing."""
    if is_remote(folder):
        bucket, prefix = gcs.split(join(folder, ""))
        return sorted(item.name[len(prefix) :] for item in gcs.listing(bucket, prefix, deep=False))
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


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
    folders: dict[str, set[str]] = {}
    for path in paths:
        if is_remote(path):
            folders.setdefault(path.rpartition("/")[0], set()).add(path)
            continue
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)
            out[path] = FileFacts(status.st_size, str(status.st_mtime_ns))
    for folder, wanted in folders.items():
        bucket, _, prefix = join(folder, "")[len("gs://") :].partition("/")
        for item in gcs.listing(bucket, prefix, deep=False):
            path = f"gs://{bucket}/{item.name}"
            if path in wanted:
                out[path] = FileFacts(item.size, str(item.generation), item.digest)
    return out


@functools.lru_cache(maxsize=64)
def _glob_regex(pattern: str) -> re.Pattern:
    """A glob as Python's own on a disk: * and ? stay within a folder, hidden names are not matched by them."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:(?!\\.)[^/]+/)*")
            continue
        text = "(?!\\.)" if part[:1] in ("*", "?", "[") else ""
        for token in re.findall(r"\[!?\]?[^\]]*\]|.", part, re.S):
            if token in ("*", "?"):
                text += "[^/]*" if token == "*" else "[^/]"
            elif token.startswith("[") and len(token) > 2:
                inside = re.sub(r"([\\[&~|])", r"\\\1", token[1:-1])
                text += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
            else:
                text += re.escape(token)
        parts.append(text + "/")
    regex = "".join(parts)
    return re.compile(regex + "(?!\\.)[^/]+" if pattern.endswith("**") else regex.removesuffix("/"))


@contextmanager
def local_copy(path: str | os.PathLike) -> Iterator[str]:
    """Yields a local name of the file: itself if it is local, else a temporary download that was checked."""
    if not is_remote(path):
        yield str(path)
        return
    temporary = _scratch_file(os.path.splitext(str(path))[1])
    try:
        gcs.download(str(path), temporary)
        yield temporary
    finally:
        # What was read is read: that the copy is gone already must not make a failure of it.
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextmanager
def local_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a local name of a folder: itself if it is local, else a temporary download of all that is in it.

    InputError if nothing is.
    """
    if not is_remote(path):
        yield Path(path)
        return
    bucket, prefix = gcs.split(join(path, ""))
    with tempfile.TemporaryDirectory(prefix="archon-") as folder:
        names = [item.name for item in gcs.listing(bucket, prefix) if not item.name.endswith("/")]
        if not names:
            raise InputError(f"{path}: nothing is there; expected a folder")
        for name in names:
            target = Path(folder, name[len(prefix) :])
            if not target.resolve().is_relative_to(Path(folder).resolve()):
                raise InputError(f"gs://{bucket}/{name}: its name leaves the folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            gcs.download(f"gs://{bucket}/{name}", str(target))
        yield Path(folder)


def sha256_file(path: str | os.PathLike) -> str:
    """Returns the hex SHA-256 of a file's bytes, read in pieces; an object is downloaded for it."""
    with local_copy(path) as local, open(local, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Writing ---


def publish(local: str | os.PathLike, path: str | os.PathLike) -> None:
    """Moves a finished local file to its final place, at once or not at all. The local file is gone afterwards."""
    if is_remote(path):
        gcs.upload(str(local), str(path))
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
        temporary = _scratch_file()
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


def remove(path: str | os.PathLike) -> None:
    """Removes a file; it need not be there."""
    if is_remote(path):
        gcs.delete(str(path))
    else:
        Path(path).unlink(missing_ok=True)


def remove_tree(folder: str | os.PathLike) -> None:
    """Removes everything below a folder, and the folder; one that is not there is no error."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    bucket, prefix = gcs.split(join(folder, ""))
    names = [f"gs://{bucket}/{item.name}" for item in gcs.listing(bucket, prefix)]
    map_requests(folder, gcs.delete, names)


def copy(source: str, target: str) -> None:
    """Makes ``target`` the same file as ``source``, which may be replaced or removed afterwards.

    Locally that is a second name for it where the disk can do this: nothing is read.
    """
    if is_remote(target):
        gcs.copy(source, target)
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


def _scratch_file(suffix: str = "") -> str:
    handle, name = tempfile.mkstemp(prefix="archon-", suffix=suffix)
    os.close(handle)
    return name


def remove_temporary_files(root: str | os.PathLike) -> int:
    """Removes what a killed job left half-written below a local folder; returns how many files that were."""
    if is_remote(root) or not os.path.isdir(root):
        return 0
    left = [path for path in Path(root).rglob(f"*{TEMPORARY_MARK}*") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
