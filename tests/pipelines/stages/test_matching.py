import numpy as np
import pytest

from pipelines.stages import matching
from pipelines.stages.matching import Limits, bit_errors, candidate_pairs, clip_keys, compare, join_groups, make_codes


def words(count, seed):
    return np.random.default_rng(seed).integers(1, 1 << 32, count, dtype=np.uint32)


def flipped(code, share, seed):
    """The code with a share of its bits wrong."""
    wrong = np.random.default_rng(seed).random((len(code), 32)) < share
    return code ^ (wrong @ (1 << np.arange(32, dtype=np.uint64))).astype(np.uint32)


def test_bits_that_differ_are_counted_at_a_shift():
    first = words(40, 0)
    second = np.append(words(3, 1), first[:37])  # three words later
    second[10] ^= 0b111
    second[20] = 0  # silent: says nothing
    count = np.array([40])
    share, told, cover = bit_errors(first[None], count, second[None], count, np.array([-3]))
    assert told == [36] and share[0] == pytest.approx(3 / (36 * 32)) and cover[0] == pytest.approx(37 / 40)
    share, told, _ = bit_errors(first[None], count, second[None], count, np.array([30]))
    assert told == [10] and np.isnan(share[0])  # too little in common


def keys_of(*codes):
    """Keys of sound codes, row after row."""
    out = [clip_keys(np.zeros(0, np.uint32), code) for code in codes]
    for row, keys in enumerate(out):
        keys["row"] = row
    return np.concatenate(out)


def test_keys_meet_in_spite_of_a_wrong_bit_and_say_the_shift():
    code = words(40, 0)
    other = code[5:] ^ np.uint32(1)  # the first bit of each word is wrong: the key without it meets
    assert candidate_pairs(keys_of(code, other)).tolist() == [[0, 1, 5, 1]]
    found = clip_keys(code, np.zeros(0, np.uint32))
    assert len(found) == 80 and set(found["key"] >> 28) == {0, 1}


def test_a_word_that_two_share_by_chance_makes_no_pair():
    first, second = words(40, 0), words(40, 1)
    second[7] = first[20]
    assert len(candidate_pairs(keys_of(first, second))) == 0
    second[7 + matching.WITNESS] = first[20 + matching.WITNESS]  # but two in place do
    assert candidate_pairs(keys_of(first, second)).tolist() == [[0, 1, 13, 1]]


def test_a_key_that_all_share_costs_no_square():
    keys = np.zeros(3000, matching.KEY)
    keys["row"] = np.arange(3000)
    pairs = candidate_pairs(keys)
    assert len(pairs) <= 3000 * matching.NEIGHBOURS
    assert len(join_groups(pairs[:, :2])) == 1  # and still they hang together


def test_the_work_does_not_depend_on_the_order_of_the_keys():
    random = np.random.default_rng(4)
    keys = np.zeros(900, matching.KEY)
    keys["key"], keys["row"], keys["step"] = (
        random.integers(0, 50, 900),
        np.arange(900) // 3,
        random.integers(0, 90, 900),
    )
    pairs = candidate_pairs(keys)
    np.testing.assert_array_equal(pairs, candidate_pairs(random.permutation(keys)))
    assert len(pairs) > 1000


def test_limits_decide():
    motion, sound = words(60, 0), words(60, 1)
    codes = make_codes(
        [0b1111, 0b1110, 0, 0b1111],
        [motion, flipped(motion, 0.1, 2), motion, words(60, 3)],
        [sound, words(60, 5), flipped(sound, 0.1, 6), sound[:12]],
    )
    verdict = compare(codes, np.zeros(3, int), np.arange(1, 4), np.zeros(3, int), Limits(appearance_distance=2))
    assert verdict.appearance_distance.tolist() == [1, 4, 0]
    assert verdict.picture.tolist() == [True, False, False]
    assert verdict.sound.tolist() == [False, True, False] and np.isnan(verdict.sound_similarity[2])
    assert verdict.picture_distance[0] == pytest.approx(0.1, abs=0.03)
    assert compare(codes, np.array([0]), np.array([1]), np.array([0]), Limits(picture_distance=0.05)).picture == [False]


def test_groups_hang_together_through_others():
    assert join_groups(np.array([[5, 9], [2, 5], [7, 8]])) == [[2, 5, 9], [7, 8]]
    assert join_groups(np.zeros((0, 2), int)) == []


@pytest.mark.slow
def test_planted_pairs_among_many_are_found_without_comparing_all():
    """100,000 clips of random codes, 500 of them copies of others with a tenth of the bits wrong, a second later."""
    count, copies, length = 100_000, 500, 60
    random = np.random.default_rng(11)
    codes = random.integers(1, 1 << 32, (count, length), dtype=np.uint32)
    originals = random.permutation(count - copies)[:copies]
    for k, row in enumerate(originals):
        codes[count - copies + k, :40] = flipped(codes[row, 20:], 0.1, k)
    none = np.zeros(0, np.uint32)
    pairs = candidate_pairs(keys_of(*codes))
    # Words meet by chance as often as 28 bits say, and one in fifty such has a witness or none; all pairs would be
    # 5,000,000,000.
    chance = 2 * (count * length) ** 2 / 2 / 2**28
    assert len(pairs) < chance / 2 < count
    every = make_codes(np.zeros(count, np.uint64), [none] * count, list(codes))
    good = pairs[matching.likely(every, pairs)]
    verdict = compare(every, *good[:, :3].T, Limits())
    kept = {tuple(pair) for pair in good[verdict.sound, :2].tolist()}
    planted = {(int(row), count - copies + k) for k, row in enumerate(originals)}
    assert kept <= planted and len(kept) >= 0.9 * copies
