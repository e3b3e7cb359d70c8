"""Finished sources of an earlier layout: kept where they are until the shards of the new layout are written.

When files are added to the input, shards get other sources. What is published is then set aside (a second name for
each file, below ``_state/curate/kept/``) with a table of where each source is in it, ``kept/places.parquet``, and the
new shards are put together from that: only a source that is new or made differently is decoded.
"""

import functools
import io
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from models.errors import InputError
from pipelines import storage
from pipelines.curate_tables import TABLES, read_table, table_name
from pipelines.dataset import ShardReader
from pipelines.ledger import Ledger
from pipelines.parts import open_part
from pipelines.state import STATE, safe_name, state_path
from pipelines.stored_sources import Stored, from_part, from_tables


@dataclass(frozen=True)
class Place:
    """Where a source is: in a shard below ``folder`` (relative to the dataset), its clips from row ``first`` on; or, if
    ``shard`` is empty, in a part in that folder. ``key``: safe_name of the source's key.
    """

    source: str
    key: str
    folder: str
    shard: str = ""
    first: int = 0
    clips: int = 0


def _kept(root: str, job: str, *names: str) -> str:
    return state_path(root, job, "kept", *names)


def set_aside(root: str, job: str, label: str, wanted: Mapping[str, str], only_failed: bool, retry: bool) -> None:
    """Sets aside every published shard and part of ``label``, so that its shards can be made anew.

    Args:
        wanted: source -> its key; what has another key is not kept.
        only_failed: leave shards and parts alone in which nothing failed.
        retry: do not keep sources that failed.
    """
    names = {source: safe_name(key) for source, key in wanted.items()}
    places = {place.source: place for place in read_places(root, job) if names.get(place.source) == place.key}
    folder = f"{STATE}/{job}/kept/{uuid.uuid4().hex}"
    dropped = []
    for name in storage.list_names(state_path(root, job, label)):
        marker = json.loads(storage.read_bytes(state_path(root, job, label, name)))
        items = marker["summary"].get("items", [])
        if only_failed and not any(item["failed"] for item in items):
            continue
        dropped.append(name)
        found, first = [], 0
        for item in items:
            if names.get(item["source"]) == item["key"] and not (retry and item["failed"]):
                shard = name.removesuffix(".json")
                found.append(Place(item["source"], item["key"], folder, shard, first, item["clips"]))
            first += item["clips"]
        if found and _copy_all(root, folder, marker["files"]):
            places.update((place.source, place) for place in found)
    parts = _sort_parts(root, job, label, names, wanted, only_failed, retry)
    places.update((place.source, place) for place in parts)
    if retry:
        places = {source: place for source, place in places.items() if not _place_failed(root, place, wanted[source])}
    _write_places(root, job, list(places.values()))
    ledger = Ledger.read(root, job)
    ledger.forget(label, [int(name.split("-of-")[0]) for name in dropped])
    ledger.write()
    for name in dropped:
        storage.remove(state_path(root, job, label, name))


def _copy_all(root: str, folder: str, files: list[dict]) -> bool:
    """Whether all files are there with their size; they are then in ``folder`` too."""
    facts = storage.file_facts(storage.join(root, info["path"]) for info in files)
    if [fact.size for fact in facts.values()] != [info["size"] for info in files]:
        return False
    for info in files:
        storage.copy(storage.join(root, info["path"]), storage.join(root, folder, info["path"]))
    return True


def _sort_parts(root, job, label, names, wanted, only_failed: bool, retry: bool) -> list[Place]:
    """Moves the wanted parts of unfinished shards to ``kept/parts`` and removes the others."""
    sources = {name: source for source, name in names.items()}
    out = []
    for path in storage.list_files(state_path(root, job, "parts", label, "*", "*")):
        name = path.rpartition("/")[2]
        source = sources.get(name)
        failed = retry and source is not None and _part_failed(path, wanted[source])
        if source is not None and not failed:
            if only_failed:
                continue
            storage.copy(path, _kept(root, job, "parts", name))
            out.append(Place(source, name, f"{STATE}/{job}/kept/parts"))
        storage.remove(path)
    return out


def _part_failed(path: str, key: str) -> bool:
    with open_part(path, key) as part:
        stored = from_part(part) if part is not None else None
        return stored is None or stored.failed


def _place_failed(root: str, place: Place, key: str) -> bool:
    with open_place(root, place, key) as stored:
        return stored is None or stored.failed


def read_places(root: str, job: str) -> list[Place]:
    return list(places_by_source(_kept(root, job, "places.parquet")).values())


@functools.lru_cache(maxsize=1)
def places_by_source(path: str) -> dict[str, Place]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(path))).to_pylist()
    except (FileNotFoundError, pyarrow.ArrowException):
        return {}
    return {row["source"]: Place(**row) for row in rows}


def _write_places(root: str, job: str, places: list[Place]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    number = {"first", "clips"}
    schema = pa.schema([(n, pa.int64() if n in number else pa.string()) for n in Place.__dataclass_fields__])
    with storage.atomic_file(_kept(root, job, "places.parquet")) as temporary:
        pyarrow.parquet.write_table(pa.Table.from_pylist([asdict(p) for p in places], schema=schema), temporary)
    places_by_source.cache_clear()


def find_place(root: str, job: str, source: str, key: str) -> Place | None:
    """Where a source with this key was set aside, if it was."""
    place = places_by_source(_kept(root, job, "places.parquet")).get(source)
    return place if place is not None and place.key == safe_name(key) else None


@contextmanager
def open_place(root: str, place: Place, key: str) -> Iterator[Stored | None]:
    """Yields what is stored there, or None if it is damaged."""
    folder = storage.join(root, place.folder)
    if not place.shard:
        with open_part(storage.join(folder, place.key), key) as part:
            yield from_part(part) if part is not None else None
        return
    yield _from_shard(folder, place)


def _from_shard(folder: str, place: Place) -> Stored | None:
    import pyarrow

    try:
        tables = {name: _shard_table(storage.join(folder, table_name(name, place.shard))) for name in TABLES}
        clips = ShardReader(storage.join(folder, f"clips/clips-{place.shard}.array_record"))
        if len(clips) < place.first + place.clips:
            return None
        return from_tables(place.source, clips, place.first, place.clips, tables)
    except (InputError, OSError, IndexError, KeyError, pyarrow.ArrowException):
        return None


def drop_place(root: str, place: Place) -> None:
    """Forgets a place whose records turned out to be damaged, with all else in its file."""
    name = f"clips/clips-{place.shard}.array_record" if place.shard else place.key
    storage.remove(storage.join(root, place.folder, name))


@functools.lru_cache(maxsize=len(TABLES))
def _shard_table(path: str) -> list[dict]:
    return read_table(path)
