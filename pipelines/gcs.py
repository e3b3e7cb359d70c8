"""Google Cloud Storage, one object at a time: requests are repeated until they succeed, and bytes are checked.

Every request is repeated while its failure may pass (429, 5xx, a lost connection, a timeout, damaged bytes), with
growing pauses, for RETRY_SECONDS without progress. What does not pass says what to do: no credentials, no permission,
no bucket.

An object is written under a generation precondition, with its checksum in the request. So the service refuses a body
that was cut or damaged, a repeated upload cannot write twice, and one whose answer was lost finds its own bytes there.
The object's SHA-256 travels in its metadata, so that a reader can compare it with a manifest without reading the bytes.
"""

import base64
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from models.errors import InputError

RETRY_SECONDS = 600.0  # of failures without progress, then a request gives up
REQUEST_SECONDS = (10.0, 60.0)  # to connect; between two bytes
UPLOAD_CHUNK = 32 * 2**20  # bytes of a large upload that are sent, and repeated, at a time; a multiple of 256 KiB
SINGLE_REQUEST = 8 * 2**20  # uploads up to this size are one request (the client library's rule)
PASSING = (408, 429, 500, 502, 503, 504)


class StorageError(OSError):
    """Storage could not be reached in time, or changed underneath; the message names the object and the cause."""


class _Damaged(Exception):
    """Bytes arrived that are not the object's."""


@dataclass(frozen=True)
class ObjectFacts:
    """What the service says of an object, or what a local file would be as one. ``sha256`` is None if not stored."""

    size: int
    crc32c: str
    sha256: str | None
    generation: int = 0

    def same_bytes(self, other: "ObjectFacts") -> bool:
        if self.sha256 and other.sha256:
            return self.size == other.size and self.sha256 == other.sha256
        return self.size == other.size and self.crc32c == other.crc32c


def split(path: str) -> tuple[str, str]:
    """gs://bucket/a/b -> bucket, a/b"""
    bucket, _, name = path[len("gs://") :].partition("/")
    if not bucket or not name:
        raise InputError(f"{path}: expected gs://BUCKET/NAME")
    return bucket, name


# --- The client ---


def _client():
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        # The C++ reader of ArrayRecord finds the emulator by a name of its own.
        os.environ["CLOUD_STORAGE_EMULATOR_ENDPOINT"] = emulator
    return _client_for(emulator, os.getpid())


@functools.lru_cache(maxsize=2)
def _client_for(emulator: str | None, process: int):
    """A client of this process: connections must not be shared with a process that was forked from it."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if emulator:
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    credentials, project = google.auth.default(scopes=("https://www.googleapis.com/auth/devstorage.read_write",))
    # Objects are addressed by bucket; the project's name is never sent.
    return storage.Client(project=project or "unused", credentials=credentials)


def _blob(path: str, generation: int | None = None):
    bucket, name = split(path)
    return _client().bucket(bucket).blob(name, generation=generation)


# --- Failures ---


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed when it is sent again."""
    import requests.exceptions
    import urllib3.exceptions
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    if isinstance(error, GoogleAPICallError):
        # A body that was damaged on its way is refused as a bad request that names the checksum.
        return error.code in PASSING or (error.code == 400 and "crc32c" in str(error).lower())
    if isinstance(error, InvalidResponse):
        return error.response.status_code in PASSING
    passing = (
        _Damaged,
        ConnectionError,
        TimeoutError,
        DataCorruption,
        TransportError,
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.Timeout,
        requests.exceptions.JSONDecodeError,
        urllib3.exceptions.ProtocolError,
        urllib3.exceptions.TimeoutError,
    )
    return isinstance(error, passing)


def _retry(may_pass: Callable[[BaseException], bool] = _may_pass, seconds: float | None = None):
    from google.api_core.retry import Retry

    return Retry(
        predicate=may_pass,
        initial=min(0.5, RETRY_SECONDS / 50),
        maximum=30.0,
        multiplier=2.0,
        timeout=RETRY_SECONDS if seconds is None else seconds,
    )


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns what the client library raises into errors that say what to do."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
    from google.auth.exceptions import DefaultCredentialsError, RefreshError

    bucket = path[len("gs://") :].partition("/")[0]
    try:
        yield
    except (DefaultCredentialsError, RefreshError, Unauthorized) as error:
        raise InputError(
            f"{path}: no valid Google Cloud credentials ({_line(error)}); "
            "run: gcloud auth application-default login (on a virtual machine: give it a service account)"
        ) from error
    except Forbidden as error:
        raise InputError(
            f"{path}: not permitted ({_line(error)}); run: gcloud storage buckets add-iam-policy-binding gs://{bucket} "
            "--member=MEMBER --role=roles/storage.objectUser"
        ) from error
    except NotFound as error:
        if "specified bucket does not exist" in str(error):
            raise _no_bucket(path) from error
        raise FileNotFoundError(path) from error
    except RetryError as error:
        raise StorageError(
            f"{path}: gave up after {RETRY_SECONDS:g} s; the last failure: {_line(error.cause)}"
        ) from error
    except GoogleAPICallError as error:
        raise StorageError(f"{path}: {_line(error)}") from error


def _line(error: BaseException | None) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _no_bucket(path: str) -> InputError:
    bucket = path[len("gs://") :].partition("/")[0]
    return InputError(
        f"{path}: there is no bucket {bucket}; run: gcloud storage buckets create gs://{bucket} --location=REGION"
    )


def _bucket_exists(bucket: str) -> bool:
    """Asks by listing, which needs no right that reading objects does not need."""
    from google.api_core.exceptions import NotFound

    try:
        next(iter(_client().list_blobs(bucket, max_results=1, retry=_retry(), timeout=REQUEST_SECONDS)), None)
    except NotFound:
        return False
    return True


# --- Reading ---


def facts(path: str) -> ObjectFacts | None:
    """Returns what the service says of an object, in one request; None if there is no such object."""
    from google.api_core.exceptions import NotFound

    with _readable(path):
        blob = _blob(path)
        try:
            blob.reload(retry=_retry(), timeout=REQUEST_SECONDS)
        except NotFound as error:
            if "specified bucket does not exist" in str(error):
                raise
            return None
        return ObjectFacts(blob.size, blob.crc32c, (blob.metadata or {}).get("sha256"), blob.generation)


def read(path: str) -> bytes:
    """Returns an object's bytes, checked, in one request; FileNotFoundError if there is no such object."""

    def attempt() -> bytes:
        blob, buffer = _blob(path), BytesIO()
        blob.download_to_file(buffer, raw_download=True, checksum=None, retry=None, timeout=REQUEST_SECONDS)
        data = buffer.getvalue()
        if blob.crc32c is None:
            raise _Damaged(f"{len(data)} bytes came without a checksum")
        if _crc32c(data) != blob.crc32c:
            raise _Damaged(f"the {len(data)} bytes that came are not the object's: CRC32C differs")
        return data

    with _readable(path):
        return _retry()(attempt)()


def download(path: str, local: str) -> None:
    """Writes an object to a local file. A broken transfer goes on where it broke; size and CRC32C are checked.

    Raises:
        FileNotFoundError: no such object.
        StorageError: no progress for RETRY_SECONDS, or the object was replaced meanwhile.
    """
    from google.api_core.exceptions import NotFound, RetryError

    known = facts(path)
    if known is None:
        raise FileNotFoundError(path)
    with open(local, "w+b") as file:

        def attempt() -> None:
            start = file.seek(0, os.SEEK_END)
            if start < known.size:
                blob = _blob(path, known.generation)
                blob.download_to_file(
                    file, start=start or None, raw_download=True, checksum=None, retry=None, timeout=REQUEST_SECONDS
                )
            length = file.seek(0, os.SEEK_END)
            if length < known.size:
                raise _Damaged(f"{length} of {known.size} bytes came")
            if _file_facts(file).crc32c != known.crc32c:
                file.truncate(0)
                raise _Damaged(f"the {length} bytes that came are not the object's: CRC32C differs")

        with _readable(path):
            while True:
                before = file.seek(0, os.SEEK_END)
                try:
                    _retry()(attempt)()
                    return
                except NotFound as error:
                    raise StorageError(f"{path}: replaced or removed while it was being read") from error
                except RetryError:
                    if file.seek(0, os.SEEK_END) <= before:
                        raise


@dataclass(frozen=True)
class Listed:
    """What a listing says of an object; ``digest`` is "md5:..." or "crc32c:..." in base64, empty if it has neither."""

    name: str
    size: int
    generation: int
    digest: str


def listing(bucket: str, prefix: str, deep: bool = True) -> Iterator[Listed]:
    """Yields a bucket's objects with a prefix, in name order, a page of them at a time.

    Without ``deep`` only those that have no further slash in their name.
    """
    from google.api_core.exceptions import NotFound

    path = f"gs://{bucket}/{prefix}"
    with _readable(path):
        blobs = _client().list_blobs(
            bucket,
            prefix=prefix,
            delimiter=None if deep else "/",
            fields="items(name,size,generation,md5Hash,crc32c),nextPageToken",
            retry=_retry(),
            timeout=REQUEST_SECONDS,
        )
        try:
            for blob in blobs:
                md5, crc = blob.md5_hash, blob.crc32c
                digest = f"md5:{md5}" if md5 else f"crc32c:{crc}" if crc else ""
                yield Listed(blob.name, blob.size, blob.generation, digest)
        except NotFound:
            raise _no_bucket(path) from None


# --- Writing ---


def upload(local: str, path: str) -> None:
    """Makes a local file's bytes the object ``path``: whole or not at all, and once however often it is repeated.

    Raises:
        InputError: no credentials, no permission, no bucket.
        StorageError: no success in RETRY_SECONDS, or another writer changed the object meanwhile.
    """
    from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed

    with open(local, "rb") as file:
        wanted = _file_facts(file)
    before = facts(path)
    if before is not None and before.same_bytes(wanted):
        return
    generation = before.generation if before is not None else 0

    def attempt() -> None:
        blob = _blob(path)
        blob.metadata = {"sha256": wanted.sha256}
        blob.chunk_size = UPLOAD_CHUNK
        small = wanted.size <= SINGLE_REQUEST
        try:
            blob.upload_from_filename(
                local,
                content_type="application/octet-stream",
                if_generation_match=generation,
                # The service compares; the library's own comparison afterwards would delete without a precondition.
                checksum="crc32c" if small else None,
                crc32c_checksum_value=wanted.crc32c,
                retry=_retry(seconds=RETRY_SECONDS / 10),
                timeout=REQUEST_SECONDS,
            )
        except Exception as error:
            now = facts(path)
            if now is not None and now.same_bytes(wanted):
                return  # an earlier attempt did it; only its answer was lost
            if isinstance(error, PreconditionFailed):
                raise StorageError(
                    f"{path}: another writer changed it during the upload; is another job writing the same dataset?"
                ) from error
            if isinstance(error, NotFound) and not _bucket_exists(split(path)[0]):
                raise _no_bucket(path) from error
            raise

    def may_pass(error: BaseException) -> bool:
        from google.api_core.exceptions import RetryError

        # An upload in pieces whose session was lost, or is not where we thought it is, begins anew.
        in_pieces = wanted.size > SINGLE_REQUEST
        session_lost = in_pieces and isinstance(error, GoogleAPICallError) and error.code in (400, 404, 410)
        return _may_pass(error) or session_lost or isinstance(error, RetryError)

    with _readable(path):
        _retry(may_pass)(attempt)()


def copy(source: str, target: str) -> None:
    """Makes an object's bytes also the object ``target``, within the service; once, like ``upload``."""
    from google.api_core.exceptions import PreconditionFailed

    wanted, before = facts(source), facts(target)
    if wanted is None:
        raise FileNotFoundError(source)
    if before is not None and before.same_bytes(wanted):
        return
    with _readable(target):
        blob, (bucket, name) = _blob(source), split(target)
        try:
            blob.bucket.copy_blob(
                blob,
                _client().bucket(bucket),
                name,
                source_generation=wanted.generation,
                if_generation_match=before.generation if before is not None else 0,
                retry=_retry(),
                timeout=REQUEST_SECONDS,
            )
        except PreconditionFailed as error:
            now = facts(target)
            if now is None or not now.same_bytes(wanted):
                raise StorageError(f"{target}: another writer changed it during the copy") from error


def delete(path: str) -> None:
    """Removes an object; it need not be there."""
    from google.api_core.exceptions import NotFound

    with _readable(path):
        try:
            _blob(path).delete(retry=_retry(), timeout=REQUEST_SECONDS)
        except NotFound as error:
            if "specified bucket does not exist" in str(error):
                raise


def _crc32c(data: bytes) -> str:
    import google_crc32c

    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def _file_facts(file) -> ObjectFacts:
    """Returns size and checksums of an open file, read in pieces."""
    import google_crc32c

    crc, sha, size = google_crc32c.Checksum(), hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(2**20):
        crc.update(piece)
        sha.update(piece)
        size += len(piece)
    return ObjectFacts(size, base64.b64encode(crc.digest()).decode(), sha.hexdigest())
