"""Which of many clips share a moment: keys that bring likely pairs together, and the comparison that decides.

Works on the codes of pipelines/stages/fingerprints.py. A clip's words give keys, each with the step at which it stands;
clips that share a key are a candidate pair with a known shift between them. Only candidates are compared, each at its
shift, so the work grows with the number of clips and not with its square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.stages.fingerprints import BITS

MIN_WORDS = 20  # a second of moments that both clips tell something of
MIN_COVER = 0.5  # of the shorter clip, which the two must share
NEIGHBOURS = 16  # a clip is compared with so many others of its key at most
WITNESS = 8  # steps, 0.4 s: far enough to be another sound
WITNESS_BITS = 10  # of 32 that may differ: one in a hundred words is as near by chance, nearly all of a copy are
UNKNOWN = np.float32(np.nan)
KEY = np.dtype([("key", "<u4"), ("witness", "<u4"), ("row", "<u4"), ("step", "<u2")])


@dataclass(frozen=True)
class Limits:
    """Two clips are duplicates by picture if their motion differs in at most ``picture_distance`` of the bits and their
    mean pictures in at most ``appearance_distance`` of 64, and by sound if ``sound_similarity`` of the bits agree.
    """

    picture_distance: float = 0.2
    appearance_distance: int = 16
    sound_similarity: float = 0.75


@dataclass(frozen=True, eq=False)
class Codes:
    """The fingerprints of N clips: words padded with 0, uint32 (N, W), and how many there are, int32 (N,)."""

    appearance: np.ndarray  # uint64 (N,)
    motion: np.ndarray
    motion_count: np.ndarray
    sound: np.ndarray
    sound_count: np.ndarray


def make_codes(appearance: Sequence[int], motion: Sequence[np.ndarray], sound: Sequence[np.ndarray]) -> Codes:
    def padded(rows):
        counts = np.array([len(row) for row in rows], np.int32)
        out = np.zeros((len(rows), max([1, *counts.tolist()])), np.uint32)
        for row, words in zip(out, rows, strict=True):
            row[: len(words)] = words
        return out, counts

    return Codes(np.array(appearance, np.uint64), *padded(motion), *padded(sound))


def clip_keys(motion: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Returns the keys of one clip's uint32 codes, an array of KEY (``row`` is 0): two of 28 bits a word, each once.

    A key leaves out four bits of the word, one the last four and one the first, so a wrong bit there does no harm. The
    two highest bits say which code and which four. The witness is the word WITNESS steps on (0: none).
    """
    out = []
    for family, code in enumerate((motion, motion, sound, sound)):
        at = np.flatnonzero(code[: 1 << 16])
        found, first = np.unique(code[at] & 0x0FFFFFFF if family % 2 == 0 else code[at] >> 4, return_index=True)
        keys = np.zeros(len(found), KEY)
        keys["key"], keys["step"] = found.astype(np.uint32) | np.uint32(family << 28), at[first]
        keys["witness"] = np.append(code, np.zeros(WITNESS, np.uint32))[at[first] + WITNESS]
        out.append(keys)
    return np.concatenate(out)


def part_of_key(keys: np.ndarray, parts: int) -> np.ndarray:
    """Spreads keys evenly over ``parts``: int (N,)."""
    mixed = (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return (mixed * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


def candidate_pairs(keys: np.ndarray) -> np.ndarray:
    """KEY (N,) -> int64 (M, 4), each once, sorted: row, a later row, shift, kind (0: by motion, 1: by sound).

    The shift is the step of the first row's word less that of the second's. Each key meets at most NEIGHBOURS of its
    like, so the work is at most N times that; clips that many share hang together through their neighbours. Words that
    are alike by chance have witnesses that are not: those pairs are not among the M.
    """
    keys = keys[np.lexsort((keys["step"], keys["row"], keys["key"]))]
    value, row, step = keys["key"], keys["row"].astype(np.int64), keys["step"].astype(np.int64)
    found = [np.zeros((0, 4), np.int64)]
    for ahead in range(1, min(NEIGHBOURS, len(keys) - 1) + 1):
        at = np.flatnonzero(value[ahead:] == value[:-ahead])
        if len(at) == 0:
            break
        at = at[row[at] != row[at + ahead]]
        a, b = keys["witness"][at], keys["witness"][at + ahead]
        at = at[(a == 0) | (b == 0) | (np.bitwise_count(a ^ b) <= WITNESS_BITS)]
        to, kind = at + ahead, (value[at] >> np.uint32(29)).astype(np.int64)
        found.append(np.stack([row[at], row[to], step[at] - step[to], kind], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def bit_errors(
    first: np.ndarray, first_count: np.ndarray, second: np.ndarray, second_count: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compares uint32 (N, W) words with (N, V) words at shifts (N,): word k of the first with k - shift of the second.

    Returns:
        share of the bits that differ, float32 (N,), NaN below MIN_WORDS; how many words both tell something of;
        how much of the shorter the two have in common, silent words too, float (N,).
    """
    at = np.arange(first.shape[1])[None] - shift[:, None]
    inside = (at >= 0) & (at < second_count[:, None]) & (np.arange(first.shape[1])[None] < first_count[:, None])
    other = np.take_along_axis(second, np.clip(at, 0, second.shape[1] - 1), axis=1)
    told = inside & (first != 0) & (other != 0)
    wrong = np.where(told, np.bitwise_count(first ^ other), 0).sum(axis=1, dtype=np.int64)
    words = told.sum(axis=1)
    share = np.where(words >= MIN_WORDS, wrong / np.maximum(BITS * words, 1), UNKNOWN).astype(np.float32)
    return share, words, inside.sum(axis=1) / np.maximum(np.minimum(first_count, second_count), 1)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the comparison of N pairs found, (N,) each. NaN: too little in common that tells anything."""

    picture_distance: np.ndarray  # share of the motion's bits that differ
    appearance_distance: np.ndarray  # bits of 64
    sound_similarity: np.ndarray  # share of the sound's bits that agree
    picture: np.ndarray  # bool
    sound: np.ndarray  # bool


def compare(codes: Codes, first: np.ndarray, second: np.ndarray, shift: np.ndarray, limits: Limits) -> Verdict:
    """Compares clips ``first`` and ``second`` (rows of the codes) at a shift and at one step to either side."""
    distance = np.full(len(first), np.inf, np.float32)
    unlike = np.full(len(first), np.inf, np.float32)
    for near in (0, -1, 1):
        for best, words, count in (
            (distance, codes.motion, codes.motion_count),
            (unlike, codes.sound, codes.sound_count),
        ):
            share, _, cover = bit_errors(words[first], count[first], words[second], count[second], shift + near)
            np.fmin(best, np.where(cover >= MIN_COVER, share, UNKNOWN), out=best)
    distance[np.isinf(distance)] = UNKNOWN
    unlike[np.isinf(unlike)] = UNKNOWN
    apart = np.bitwise_count(codes.appearance[first] ^ codes.appearance[second]).astype(np.int64)
    return Verdict(
        distance,
        apart,
        1 - unlike,
        (distance <= limits.picture_distance) & (apart <= limits.appearance_distance),
        1 - unlike >= limits.sound_similarity,
    )


def likely(codes: Codes, pairs: np.ndarray) -> np.ndarray:
    """bool (M,): whether a candidate (as candidate_pairs gives it) agrees in the code that brought it, at its shift.

    Cheap against ``compare``; it sends away nearly all clips that share a word by chance.
    """
    keep = np.zeros(len(pairs), bool)
    for kind, words, count in ((0, codes.motion, codes.motion_count), (1, codes.sound, codes.sound_count)):
        at = np.flatnonzero(pairs[:, 3] == kind)
        if len(at):
            first, second, shift = pairs[at, :3].T
            share, _, _ = bit_errors(words[first], count[first], words[second], count[second], shift)
            keep[at] = share <= 0.33
    return keep


def best_shift(codes: Codes, first: int, second: int) -> int:
    """The shift at which two clips agree best, by sound or by motion, of all shifts."""
    best, found = 1.0, 0
    for words, count in ((codes.motion, codes.motion_count), (codes.sound, codes.sound_count)):
        shifts = np.arange(-int(count[second]) + MIN_WORDS, int(count[first]) - MIN_WORDS + 1)
        if len(shifts) == 0:
            continue
        rows = np.zeros(len(shifts), int)
        share, _, cover = bit_errors(
            words[[first]][rows], count[[first]][rows], words[[second]][rows], count[[second]][rows], shifts
        )
        share = np.where(np.isnan(share) | (cover < MIN_COVER), 1.0, share)
        if share.min() < best:
            best, found = float(share.min()), int(shifts[share.argmin()])
    return found


def join_groups(pairs: np.ndarray) -> list[list[int]]:
    """Union-find: int (M, 2) -> the groups of rows that hang together, each sorted, in order of their first row."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in pairs.tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for row in sorted(parent):
        groups.setdefault(root(row), []).append(row)
    return [groups[key] for key in sorted(groups)]
