"""Duplicates among the clips of a dataset: pairs that are compared, and groups of which the best is kept.

What `archon duplicates` (pipelines/duplicates.py) does with candidates, on files of codes that lie on disk.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from pipelines import storage
from pipelines.manifest import ShardInfo
from pipelines.stages import matching
from pipelines.stages.fingerprints import from_hex, read_picture_hash
from pipelines.stages.matching import Codes, Limits

PAIRS_AT_ONCE = 20_000
# Two clips by number, the steps between them, and what their comparison gave (NaN: nothing to tell).
PAIR = np.dtype(
    [("first", "<u4"), ("second", "<u4"), ("shift", "<i4")]
    + [("distance", "<f4"), ("similarity", "<f4"), ("picture", "?"), ("sound", "?")]
)


# --- Clips of all blocks, by number ---


class Clips:
    """Rows of every block's file of codes, numbered through. Files are mapped, and read where rows are taken."""

    def __init__(self, root: str, files: Sequence[ShardInfo]):
        self.root, self.files = root, list(files)
        self.starts = np.cumsum([0, *(info.count for info in files)])
        self._tables, self._open = {}, ExitStack()

    def __enter__(self) -> "Clips":
        return self

    def __exit__(self, *error) -> None:
        self._tables.clear()
        self._open.close()

    def take(self, rows: np.ndarray):
        """Returns an Arrow table of the rows (sorted, each once), in that order."""
        import pyarrow as pa

        block = np.searchsorted(self.starts, rows, side="right") - 1
        pieces = [self._table(int(b)).take(rows[block == b] - self.starts[b]) for b in np.unique(block)]
        return pa.concat_tables(pieces)

    def _table(self, block: int):
        import pyarrow as pa
        import pyarrow.ipc

        if block not in self._tables:
            path = self._open.enter_context(storage.local_copy(storage.join(self.root, self.files[block].path)))
            self._tables[block] = pa.ipc.open_file(self._open.enter_context(pa.memory_map(path))).read_all()
        return self._tables[block]


@dataclass(frozen=True, eq=False)
class Taken:
    """Some clips: their codes and what says whether two are apart in one source."""

    rows: np.ndarray  # sorted
    codes: Codes
    source: np.ndarray  # int: equal where the source is
    start: np.ndarray
    end: np.ndarray

    def at(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)

    def apart(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether two clips (places in this table) are of one source and do not overlap: then never duplicates."""
        same = self.source[first] == self.source[second]
        return same & ((self.end[first] <= self.start[second]) | (self.end[second] <= self.start[first]))


def take_clips(clips: Clips, rows: np.ndarray) -> Taken:
    rows = np.unique(rows)
    table = clips.take(rows)
    codes = matching.make_codes(*zip(*codes_of(table), strict=True))
    source = table["source"].combine_chunks().dictionary_encode().indices.to_numpy()
    return Taken(rows, codes, source, table["start_frame"].to_numpy(), table["end_frame"].to_numpy())


def codes_of(table) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
    """Yields appearance, motion words and sound words of each row."""
    columns = (table[name].to_pylist() for name in ("clip_id", "picture_hash", "sound_hash"))
    for clip, picture, sound in zip(*columns, strict=True):
        try:
            yield (*read_picture_hash(picture), from_hex(sound))
        except ValueError as error:
            raise InputError(f"clip {clip}: picture_hash or sound_hash: not a fingerprint ({error})") from error


# --- Pairs ---


def verify(clips: Clips, pairs: np.ndarray, limits: Limits) -> np.ndarray:
    """Candidates (as candidate_pairs gives them) -> those that are duplicates, as an array of PAIR."""
    taken = take_clips(clips, pairs[:, :2].ravel())
    inside = np.column_stack([taken.at(pairs[:, 0]), taken.at(pairs[:, 1]), pairs[:, 2:]])
    inside = inside[~taken.apart(inside[:, 0], inside[:, 1])]
    inside = inside[matching.likely(taken.codes, inside)]
    out = _judged(taken, *inside[:, :3].T, limits)
    return out[out["picture"] | out["sound"]]


def _judged(taken: Taken, first: np.ndarray, second: np.ndarray, shift: np.ndarray, limits: Limits) -> np.ndarray:
    """Compares clips (places in ``taken``) at their shifts: an array of PAIR, duplicates or not."""
    verdict = matching.compare(taken.codes, first, second, shift, limits)
    out = np.zeros(len(first), PAIR)
    out["first"], out["second"], out["shift"] = taken.rows[first], taken.rows[second], shift
    out["distance"], out["similarity"] = verdict.picture_distance, verdict.sound_similarity
    out["picture"], out["sound"] = verdict.picture, verdict.sound
    return out


def each_once(pairs: np.ndarray) -> np.ndarray:
    """PAIR (N,) -> sorted by clips and shift, each of those once (what else is in a pair follows from them)."""
    pairs = pairs[np.lexsort((pairs["shift"], pairs["second"], pairs["first"]))]
    names = ["first", "second", "shift"]
    again = np.zeros(len(pairs), bool)
    if len(pairs):
        again[1:] = pairs[names][1:] == pairs[names][:-1]
    return pairs[~again]


# --- Groups ---


def grouped(clips: Clips, pairs: np.ndarray, limits: Limits) -> list[dict]:
    """Returns the rows of the table: every clip that has a duplicate, group by group.

    In a group the best clip is kept: the longest, then the one with the largest face, then the smallest clip_id. Those
    that are its duplicates go. What is left (a clip that only shares a stretch with one of those that went) is judged
    again in the same way, so that every clip which goes has its own duplicate among those that stay.
    """
    known: dict[tuple[int, int], np.void] = {}
    for pair in pairs:  # sorted: of several shifts between two clips the one that agrees best is kept
        key = int(pair["first"]), int(pair["second"])
        if key not in known or _error(pair) < _error(known[key]):
            known[key] = pair
    rows = []
    for group in matching.join_groups(np.array(list(known), np.int64).reshape(-1, 2)):
        table = clips.take(np.array(group)).select(["clip_id", "seconds", "face_size"]).to_pylist()
        facts = dict(zip(group, table, strict=True))
        left = sorted(group, key=lambda r: (-facts[r]["seconds"], -facts[r]["face_size"], facts[r]["clip_id"]))
        name, members = min(fact["clip_id"] for fact in table), []
        while left:
            best, others = left[0], left[1:]
            matches = _matches(clips, best, others, known, limits)
            members.append(_row(facts, name, best))
            for row in others:
                if row in matches:
                    members.append(_row(facts, name, row, best, matches[row]))
            left = [row for row in others if row not in matches]
        rows.append(sorted(members, key=lambda row: (row["duplicate_of"] is not None, row["clip_id"])))
    return [row for members in sorted(rows, key=lambda members: members[0]["group"]) for row in members]


def _error(pair: np.void) -> float:
    return float(np.nansum([pair["distance"], 1 - pair["similarity"]]) + np.isnan(pair["distance"]))


def _matches(clips: Clips, best: int, others: Sequence[int], known: dict, limits: Limits) -> dict[int, np.void]:
    """Which of the others are duplicates of ``best``.

    Those that no key brought together with it are compared now, at the shift that fits best.
    """
    found = {row: known[pair] for row in others if (pair := (min(best, row), max(best, row))) in known}
    unseen = [row for row in others if row not in found]
    for first in range(0, len(unseen), PAIRS_AT_ONCE):
        batch = np.array(unseen[first : first + PAIRS_AT_ONCE])
        taken = take_clips(clips, np.array([best, *batch]))
        here, there = taken.at(np.full(len(batch), best)), taken.at(batch)
        free = ~taken.apart(here, there)
        batch, here, there = batch[free], here[free], there[free]
        shifts = np.array([matching.best_shift(taken.codes, *at) for at in zip(here, there, strict=True)], np.int64)
        found |= dict(zip(batch.tolist(), _judged(taken, here, there, shifts, limits), strict=True))
    return {row: pair for row, pair in found.items() if pair["picture"] or pair["sound"]}


def _row(facts: dict, group: str, row: int, best: int | None = None, pair: np.void | None = None) -> dict:
    def number(value) -> float | None:
        return None if np.isnan(value) else round(float(value), 4)

    out = {"clip_id": facts[row]["clip_id"], "group": group, "duplicate_of": None}
    out |= {"picture_distance": None, "sound_similarity": None, "kind": None}
    if pair is not None:
        kind = "both" if pair["picture"] and pair["sound"] else "picture" if pair["picture"] else "sound"
        out |= {"duplicate_of": facts[best]["clip_id"], "kind": kind}
        out |= {"picture_distance": number(pair["distance"]), "sound_similarity": number(pair["similarity"])}
    return out
