"""Pairs and groups of clips, on files of codes as the job's first step leaves them."""

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from models.errors import InputError
from pipelines.manifest import ShardInfo
from pipelines.near_duplicates import PAIR, Clips, codes_of, each_once, grouped, take_clips, verify
from pipelines.stages.matching import Limits
from tests.pipelines.test_duplicates import clip, noisy, words

LIMITS = Limits()
MOTION, SOUND = words(80, 1), words(80, 2)
BY_MOTION, BY_SOUND = 0, 1


def blocks(root, *parts) -> Clips:
    """Clips of one file of codes each part."""
    infos = []
    for index, rows in enumerate(parts):
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(root / f"codes-{index}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        infos.append(ShardInfo(f"codes-{index}.arrow", len(rows), 1, "0" * 64))
    return Clips(str(root), infos)


def pairs_of(*rows) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 4)


def found(*rows) -> np.ndarray:
    """Pairs that were compared: first, second, shift, distance, similarity."""
    out = np.zeros(len(rows), PAIR)
    for row, (first, second, shift, distance, similarity) in zip(out, rows, strict=True):
        row["first"], row["second"], row["shift"] = first, second, shift
        row["distance"], row["similarity"] = distance, similarity
        row["picture"], row["sound"] = distance <= 0.2, similarity >= 0.75
    return out


def unlike(name, seed, **more):
    return clip(name, words(80, seed), words(80, seed + 1), **more)


def test_clips_are_numbered_through_all_blocks(tmp_path):
    parts = [[unlike(f"{part}{k}", 10 * part + k) for k in range(count)] for part, count in enumerate((2, 1, 3))]
    with blocks(tmp_path, *parts) as clips:
        names = clips.take(np.array([0, 1, 2, 4, 5]))["clip_id"].to_pylist()
        assert names == ["00", "01", "10", "21", "22"]
        taken = take_clips(clips, np.array([4, 1, 4]))
    assert taken.rows.tolist() == [1, 4] and taken.at(np.array([4, 1])).tolist() == [1, 0]
    assert taken.codes.motion[1].tolist() == words(80, 21).tolist()


def test_candidates_are_judged_by_their_codes_and_numbers_stay(tmp_path):
    """Row 1 is a copy of row 3, ten steps later; row 0 shares nothing with it."""
    first = [unlike("a", 10), clip("b", noisy(MOTION, 1)[10:], noisy(SOUND, 1)[10:])]
    second = [unlike("c", 20), clip("d", MOTION, SOUND)]
    with blocks(tmp_path, first, second) as clips:
        pairs = verify(clips, pairs_of((0, 3, 0, BY_SOUND), (1, 3, -10, BY_SOUND), (1, 3, 25, BY_SOUND)), LIMITS)
        [pair] = pairs
        assert (pair["first"], pair["second"], pair["shift"]) == (1, 3, -10) and pair["picture"] and pair["sound"]
        assert pair["distance"] == pytest.approx(0.05, abs=0.03) and pair["similarity"] == pytest.approx(0.95, abs=0.03)
        # What only one of the two codes tells is a duplicate by that code, and by it alone.
        strict = Limits(picture_distance=0.001)
        [pair] = verify(clips, pairs_of((1, 3, -10, BY_SOUND)), strict)
        assert not pair["picture"] and pair["sound"]
        assert len(verify(clips, pairs_of((1, 3, -10, BY_SOUND)), Limits(0.001, 16, 0.999))) == 0


@pytest.mark.parametrize(("start", "same"), [(0, True), (119, True), (120, False)])
def test_clips_of_one_source_are_duplicates_only_where_they_overlap(start, same, tmp_path):
    rows = [clip("a", MOTION, SOUND, source="s.mp4"), clip("b", MOTION, SOUND, source="s.mp4", start=start)]
    with blocks(tmp_path, rows) as clips:
        assert len(verify(clips, pairs_of((0, 1, 0, BY_MOTION)), LIMITS)) == same


def test_a_pair_found_twice_is_one_and_another_shift_another():
    pairs = found((2, 3, 5, 0.1, 0.9), (0, 1, 7, 0.1, 0.9), (2, 3, 5, 0.1, 0.9), (2, 3, -5, 0.2, 0.8), (0, 3, 0, 0, 1))
    once = each_once(pairs)
    assert once[["first", "second", "shift"]].tolist() == [(0, 1, 7), (0, 3, 0), (2, 3, -5), (2, 3, 5)]
    assert len(each_once(pairs[:0])) == 0


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([{"seconds": 4.0, "face": 300.0}, {"seconds": 5.0, "face": 100.0}], "b"),
        ([{"face": 100.0}, {"face": 101.0}], "b"),
        ([{}, {}], "a"),
    ],
    ids=["longer", "larger face", "smaller name"],
)
def test_the_best_of_a_group_stays(rows, best, tmp_path):
    made = [clip(name, MOTION, SOUND, **facts) for name, facts in zip("ab", rows, strict=True)]
    with blocks(tmp_path, made) as clips:
        kept, gone = grouped(clips, found((0, 1, 0, 0.1, 0.9)), LIMITS)
    assert kept["clip_id"] == gone["duplicate_of"] == best and kept["duplicate_of"] is None
    assert {kept["group"], gone["group"]} == {"a"} and kept["kind"] is None


def test_of_several_shifts_the_one_that_agrees_best_is_told(tmp_path):
    nothing = float("nan")
    rows = [clip("a", MOTION, SOUND, seconds=5.0), clip("b", MOTION, SOUND)]
    pairs = found((0, 1, 1, 0.15, 0.8), (0, 1, 2, nothing, 1.0), (0, 1, 3, 0.05, 0.9), (0, 1, 4, 0.06, 0.76))
    with blocks(tmp_path, rows) as clips:
        _, gone = grouped(clips, pairs, LIMITS)
        assert (gone["picture_distance"], gone["sound_similarity"], gone["kind"]) == (0.05, 0.9, "both")
        _, gone = grouped(clips, pairs[1:2], LIMITS)
        assert (gone["picture_distance"], gone["sound_similarity"], gone["kind"]) == (None, 1.0, "sound")


def test_groups_are_told_by_name_the_kept_first(tmp_path):
    rows = [clip("d", MOTION, SOUND), unlike("b", 10), clip("c", MOTION, SOUND, seconds=9.0), unlike("a", 10)]
    with blocks(tmp_path, rows) as clips:
        out = grouped(clips, found((0, 2, 0, 0.0, 1.0), (1, 3, 0, 0.0, 1.0)), LIMITS)
        assert grouped(clips, found(), LIMITS) == []
    assert [(row["clip_id"], row["group"], row["duplicate_of"]) for row in out] == [
        ("a", "a", None),
        ("b", "a", "a"),
        ("c", "c", None),
        ("d", "c", "c"),
    ]


def test_whoever_goes_is_a_duplicate_of_one_that_stays(tmp_path):
    """a is like b and b like c; a and c are compared too: only what is like the best goes with it."""
    rows = [clip("a", MOTION, SOUND, seconds=9.0), clip("b", MOTION, SOUND), unlike("c", 10)]
    pairs = found((0, 1, 0, 0.0, 1.0), (1, 2, 0, 0.0, 1.0))
    with blocks(tmp_path, rows) as clips:
        assert {row["clip_id"]: row["duplicate_of"] for row in grouped(clips, pairs, LIMITS)} == {
            "a": None,
            "b": "a",
            "c": None,
        }
        # Of like codes, it is found to be one although no key brought it together with the best.
        rows[2] = clip("c", noisy(MOTION, 3), noisy(SOUND, 3))
    (tmp_path / "other").mkdir()
    with blocks(tmp_path / "other", rows) as clips:
        assert [row["duplicate_of"] for row in grouped(clips, pairs, LIMITS)] == [None, "a", "a"]


@pytest.mark.parametrize("change", [{"picture_hash": "not a hash"}, {"sound_hash": "abc"}, {"sound_hash": "0" * 7}])
def test_a_fingerprint_that_is_none_is_named_with_its_clip(change):
    rows = [unlike("fine", 10), unlike("torn", 20) | change]
    with pytest.raises(InputError, match="clip torn: picture_hash or sound_hash: not a fingerprint"):
        list(codes_of(pa.Table.from_pylist(rows)))
