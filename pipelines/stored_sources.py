"""What one source gave, as it is stored: in a part of an unfinished shard, or among others in a published shard.

Stored scores are enough to decide again with other thresholds (``decided``), so a source is only decoded again if the
thresholds would now keep a segment whose clip was not stored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.signals import VIDEO_FPS
from pipelines.curate_tables import source_schema
from pipelines.records import Record
from pipelines.stages import filters
from pipelines.stages.curation import Filtered, SourceResult, reject_row, whole_source_row
from pipelines.stages.filters import SCORES, FilterThresholds

_ROWS = "rows"


@dataclass(frozen=True)
class Stored:
    """``clips``: the records of the kept clips, read when they are asked for. ``rejects`` and ``quality``: rows of the
    tables. ``facts``: the source's row of the sources table.
    """

    clips: Sequence[Record]
    rejects: list[dict]
    quality: list[dict]
    facts: dict

    @property
    def failed(self) -> bool:
        """Whether the source, or a segment of it, failed: what --retry-failed does again."""
        return any(row["kind"] == "failed" for row in self.rejects)


def rows_record(source: str, result: SourceResult) -> Record:
    """A source's rows as the record that follows its clips in a part."""
    rows = {"rejects": result.rejects, "quality": result.quality, "facts": result.facts, "seconds": result.seconds}
    return {_ROWS: json.dumps({"source": source, **rows}), "clip_id": ""}


def from_part(part: Sequence[Record]) -> Stored | None:
    """Reads what curate wrote as a part: clip records, then the record with the rows."""
    if not len(part):
        return None
    last = part[len(part) - 1]
    if _ROWS not in last:
        return None
    rows = json.loads(last[_ROWS])
    facts = {name: None for name in source_schema().names}
    facts.update({name: value for name, value in rows["facts"].items() if name in facts})
    facts.update(source=rows["source"], seconds=rows["facts"].get("seconds", rows["seconds"]))
    return Stored(_Slice(part, 0, len(part) - 1), rows["rejects"], rows["quality"], facts)


class _Slice(Sequence):
    def __init__(self, records: Sequence[Record], first: int, count: int):
        self._records, self._first, self._count = records, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._records[self._first + index]


def from_tables(source: str, clips: Sequence[Record], first: int, count: int, tables: dict[str, list[dict]]) -> Stored:
    """Picks one source out of a published shard: ``count`` clip records from ``first`` on, and its rows."""
    rows = {name: [row for row in table if row["source"] == source] for name, table in tables.items()}
    quality = [
        {name: (_again(value) if name in SCORES else value) for name, value in row.items()} for row in rows["quality"]
    ]
    return Stored(_Slice(clips, first, count), rows["rejects"], quality, rows["sources"][0])


def _again(value: float | None) -> float | None:
    return None if value is None else filters.stored_score(value)


def decided(stored: Stored, limits: FilterThresholds) -> tuple[Stored, set[str]] | None:
    """Decides on every measured segment with these thresholds.

    Returns:
        the rows as the whole job would have made them with the thresholds, and the ids of the clips that are kept; or
        None if a segment would be kept whose clip is not stored, so that the source has to be decoded again.
    """
    source = stored.facts["source"]
    segments = [row for row in stored.rejects if row["clip_id"] is not None]
    whole = [row for row in stored.rejects if row["clip_id"] is None]
    otherwise = {row["clip_id"]: row for row in segments if (row["stage"], row["kind"]) != ("filters", "filtered")}
    rejects, quality, kept = list(otherwise.values()), [], {}
    had = {row["clip_id"] for row in stored.quality if row["kept"]}
    for row in stored.quality:
        identity = row["clip_id"]
        if identity in otherwise:
            quality.append({**row, "kept": False})
            continue
        missed = filters.decide({name: row[name] for name in SCORES}, limits)
        if not missed and identity not in had:
            return None
        quality.append({**row, "kept": not missed})
        if missed:
            error = Filtered("filters", missed[0][0], "; ".join(detail for _, detail in missed))
            span = row["start_frame"], row["end_frame"]
            rejects.append(reject_row(source, "filters", "filtered", error.reason, str(error), span, identity))
        else:
            kept[identity] = row["end_frame"] - row["start_frame"]
    rejects.sort(key=lambda row: (row["start_frame"], row["end_frame"]))
    if not kept:
        # Without segments the source itself was dropped, for a reason that no threshold here changes.
        rejects += [whole_source_row(source, rejects)] if rejects else whole
    last = None if kept else rejects[-1]
    facts = {
        **stored.facts,
        "status": "kept" if kept else last["kind"],
        "stage": None if kept else last["stage"],
        "reason": None if kept else last["reason"],
        "clips": len(kept),
        "kept_seconds": sum(kept.values()) / VIDEO_FPS,
    }
    return replace(stored, rejects=rejects, quality=quality, facts=facts), set(kept)
