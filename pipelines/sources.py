"""The sources of `archon curate`: which files the inputs name, which have the same bytes, and what is remembered of it.

``_state/curate/sources.parquet``, one row a source in the order of the shards: path, size, version, digest,
duplicate_of. A restart compares a listing with it and hashes nothing again. Workers read it too: an element of the
pipeline is then a shard's number and no list of files.
"""

import functools
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import InputError
from pipelines import storage
from pipelines.state import state_path

LISTS = (".txt", ".lst", ".list")
_FIELDS = ("path", "size", "version", "digest", "duplicate_of")


@dataclass(frozen=True)
class Source:
    """A file to curate. ``size`` is -1 if there is none; ``version`` and ``digest`` are those of storage.FileFacts,
    ``digest`` (here also "sha256:...") only where it was needed to tell files of one size apart.
    """

    path: str
    size: int = -1
    version: str = ""
    digest: str = ""
    duplicate_of: str | None = None

    def identity(self) -> str:
        """A text that changes when the file, its name, or what it is a duplicate of changes."""
        return f"{self.path}\n{self.size}\n{self.version}\n{self.duplicate_of or ''}"


def find_sources(inputs: Sequence[str]) -> list[str]:
    """Returns the sources that the inputs name, sorted, each once. InputError if an input names none."""
    found: set[str] = set()
    for item in inputs:
        if item.lower().endswith(LISTS):
            if not storage.exists(item):
                raise InputError(f"--input {item}: no such file; expected a list of videos, one a line")
            lines = storage.read_bytes(item).decode("utf-8", errors="strict").splitlines()
            paths = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        elif not storage.is_remote(item) and not any(mark in item for mark in "*?["):
            paths = storage.list_files(item) or storage.list_files(storage.join(item, "*"))
        else:
            paths = storage.list_files(item) or ([item] if storage.is_remote(item) and storage.exists(item) else [])
        if not paths:
            raise InputError(f"--input {item}: no files; expected videos, a pattern, a folder or a list of videos")
        # A name that is no text cannot be written down; under this name the file is not found, which is accounted for.
        found.update(path.encode("utf-8", "backslashreplace").decode() for path in paths)
    return sorted(found)


def describe_sources(paths: Sequence[str], known: Sequence[Source] = ()) -> list[Source]:
    """Looks at every file and says of each whether an earlier one has the same bytes.

    Only files of equal size are read, and not those that ``known`` has a digest of; on Cloud Storage none is read.
    """
    facts = storage.file_facts(paths)
    remembered = {(source.path, source.size, source.version): source.digest for source in known if source.digest}
    counts = Counter(fact.size for fact in facts.values())
    first: dict[tuple, str] = {}
    out = []
    for path in paths:
        fact = facts.get(path)
        if fact is None:
            out.append(Source(path))  # the probe will say what is wrong with it
            continue
        digest, original = fact.digest, path
        if fact.size > 0 and counts[fact.size] > 1:
            digest = digest or remembered.get((path, fact.size, fact.version)) or _hash(path)
            original = first.setdefault((fact.size, digest), path) if digest else path
        out.append(Source(path, fact.size, fact.version, digest, original if original != path else None))
    return out


def _hash(path: str) -> str:
    try:
        with storage.local_copy(path) as local:
            return f"sha256:{storage.sha256_file(local)}"
    except OSError:
        return ""  # unreadable: the probe will say so


def table_path(root: str, job: str) -> str:
    return state_path(root, job, "sources.parquet")


def read_sources(root: str, job: str, first: int = 0, count: int | None = None) -> list[Source]:
    """Reads the table or some rows of it; none if there is no table or it is damaged."""
    table = _table(table_path(root, job))
    return [] if table is None else [Source(**row) for row in table.slice(first, count).to_pylist()]


@functools.lru_cache(maxsize=1)
def _table(path: str):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(path)), columns=list(_FIELDS))
    except (FileNotFoundError, pyarrow.ArrowException):
        return None


def write_sources(root: str, job: str, sources: Sequence[Source]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    text = pa.string()
    schema = pa.schema([(name, pa.int64() if name == "size" else text) for name in _FIELDS])
    columns = [[getattr(source, name) for source in sources] for name in _FIELDS]
    with storage.atomic_file(table_path(root, job)) as temporary:
        pyarrow.parquet.write_table(pa.table(columns, schema=schema), temporary)
    _table.cache_clear()
