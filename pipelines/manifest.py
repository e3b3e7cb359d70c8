"""The manifest of a dataset: which shards each column has, with size, hash and count, and what made them.

A manifest comes with the data, perhaps from elsewhere, so it is read as input that may be wrong or hostile: everything
in it is checked before anything is done with it, and a shard's path can only be a plain file name in its column's
folder, so no manifest makes a reader or a job touch a file outside the dataset.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from models.errors import InputError
from pipelines import storage

MANIFEST = "manifest.json"
SCORES = "scores"  # the folder of the columns' tables of scores
DUPLICATES = "duplicates"  # the folder of the table of `archon duplicates`, and what the manifest says of it
SCHEMA_VERSION = 2
# 6,000 hours in shards of a hundred clips make a manifest of about 200 MB.
MAX_MANIFEST_BYTES = 1 << 30
MAX_SHARDS = 1_000_000
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one shard; ``path`` is relative to the dataset: COLUMN/NAME."""

    path: str
    count: int
    size: int
    sha256: str


def read_manifest(root: str, columns: Collection[str]) -> dict:
    """Reads and checks ``root/manifest.json``; ``columns`` are the names that a column may have.

    Returns:
        {"schema_version": int, "columns": {name: {"producer": dict, "count": int, "shards": [...]}}}, and any other
        facts of the dataset. A column may also have "scores": the files of its table of scores, listed as shards are.

    Raises:
        InputError: there is none, or it is not what it should be; names the file and the field.
    """
    path = storage.join(root, MANIFEST)
    try:
        size = storage.size(path)
        if size > MAX_MANIFEST_BYTES:
            raise InputError(f"{path}: {size} bytes, expected at most {MAX_MANIFEST_BYTES}")
        data = storage.read_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a dataset made by `archon curate`") from None
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    check_manifest(manifest, columns, path)
    return manifest


def check_manifest(manifest, columns: Collection[str], path: str) -> None:
    """Raises InputError, with the file and the field, unless this is a manifest."""
    _check(path, "the whole", manifest, dict)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: field schema_version is {_short(manifest.get('schema_version'))}, expected {SCHEMA_VERSION}: "
            "made by another version of archon; make the dataset again"
        )
    for name, column in _check(path, "columns", manifest.get("columns"), dict).items():
        if name not in columns:
            raise InputError(f"{path}: field columns has {_short(name)}, expected some of {', '.join(columns)}")
        where = f"columns.{name}"
        _check(path, where, column, dict)
        _check(path, f"{where}.producer", column.get("producer"), dict)
        count = _number(path, f"{where}.count", column.get("count"))
        _check_files(path, name, f"{where}.shards", column.get("shards"), count)
        if "scores" in column:
            _check_files(path, SCORES, f"{where}.scores", column["scores"], count)
    if DUPLICATES in manifest:
        table = _check(path, DUPLICATES, manifest[DUPLICATES], dict)
        _check(path, f"{DUPLICATES}.made_from", table.get("made_from"), str)
        count = _number(path, f"{DUPLICATES}.count", table.get("count"))
        _check_files(path, DUPLICATES, f"{DUPLICATES}.files", table.get("files"), count)


def _check_files(path: str, folder: str, where: str, files, count: int) -> None:
    if len(_check(path, where, files, list)) > MAX_SHARDS:
        raise InputError(f"{path}: field {where} has {len(files)} entries, expected at most {MAX_SHARDS}")
    seen: set[str] = set()
    for index, file in enumerate(files):
        _check_shard(path, folder, f"{where}[{index}]", file)
        if file["path"] in seen:
            raise InputError(f"{path}: field {where}[{index}].path is there twice: {_short(file['path'])}")
        seen.add(file["path"])
    if count != sum(file["count"] for file in files):
        raise InputError(f"{path}: field {where.rpartition('.')[0]}.count is {count}, but {where} have another sum")


def score_infos(manifest: Mapping, column: str) -> list[ShardInfo]:
    """The files of a column's table of scores, in the order of its shards; none if it has no such table."""
    return [ShardInfo(**file) for file in manifest["columns"].get(column, {}).get("scores", ())]


def shard_infos(manifest: Mapping, column: str) -> list[ShardInfo]:
    """The shards of one column of a checked manifest, in order."""
    return [ShardInfo(**{key: shard[key] for key in ShardInfo.__dataclass_fields__}) for shard in
            manifest["columns"][column]["shards"]]  # fmt: skip


# --- The table of duplicates ---


def clips_mark(manifest: Mapping) -> str:
    """Which clips there are, as a hash: another one when a shard of them is."""
    shards = manifest["columns"].get("clips", {}).get("shards", ())
    return hashlib.sha256("\n".join(shard["sha256"] for shard in shards).encode()).hexdigest()[:16]


def duplicate_infos(manifest: Mapping) -> list[ShardInfo] | None:
    """The files of the table of duplicates; None if there is none, or it is of other clips than those of now."""
    table = manifest.get(DUPLICATES)
    if table is None or table["made_from"] != clips_mark(manifest):
        return None
    return [ShardInfo(**file) for file in table["files"]]


def stale_duplicates(root: str, manifest: Mapping) -> list[str]:
    """The files among the tables of duplicates that are not of the clips of now, or that nothing says it of."""
    current = {info.path for info in duplicate_infos(manifest) or ()}
    found = storage.list_files(storage.join(root, DUPLICATES, "*.parquet"))
    return [path for path in found if f"{DUPLICATES}/{path.rpartition('/')[2]}" not in current]


def _check_shard(path: str, column: str, where: str, shard) -> None:
    _check(path, where, shard, dict)
    folder, _, name = _check(path, f"{where}.path", shard.get("path"), str).partition("/")
    if folder != column or not _FILE_NAME.fullmatch(name):
        raise InputError(
            f"{path}: field {where}.path is {_short(shard['path'])}, expected {column}/ and a plain file name: a shard "
            "lies in its column's folder"
        )
    _number(path, f"{where}.count", shard.get("count"))
    _number(path, f"{where}.size", shard.get("size"))
    if not _SHA256.fullmatch(_check(path, f"{where}.sha256", shard.get("sha256"), str)):
        raise InputError(f"{path}: field {where}.sha256 is {_short(shard['sha256'])}, expected 64 hex digits")
    if set(shard) != set(ShardInfo.__dataclass_fields__):
        raise InputError(f"{path}: field {where} has {_short(sorted(shard))}, expected path, count, size and sha256")


def _check(path: str, field: str, value, kind: type):
    if not isinstance(value, kind):
        expected = {dict: "an object", list: "a list", str: "a text"}[kind]
        raise InputError(f"{path}: field {field} is {_short(value)}, expected {expected}")
    return value


def _number(path: str, field: str, value) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 50:
        raise InputError(f"{path}: field {field} is {_short(value)}, expected a whole number of at least 0")
    return value


def _short(value) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}..."
