import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoding import decode, draw, most_likely, nucleus
from models.language_model import hidden_states
from tests.language import VOCABULARY, all_rows, language_config
from tests.token_records import random_params

CONFIG = language_config()


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def greedy_by_full_forward(config, params, prefix, ranges, clock=None):
    run = jax.jit(functools.partial(hidden_states, config))
    tokens = np.zeros(64, np.int64)
    tokens[: len(prefix)] = prefix
    table = np.asarray(all_rows(params))
    out = []
    for i, r in enumerate(ranges):
        n = len(prefix) + i
        bounds = np.maximum(np.arange(64), len(prefix) - 1)
        segments = (np.arange(64) < n).astype(np.int32)
        x = run(params, tokens[None], np.arange(64)[None], segments[None], bounds[None], clock=clock)[0, n - 1]
        out.append(int(np.argmax(table[r.start : r.start + r.size] @ np.asarray(x))))
        tokens[n] = r.start + out[-1]
    return out


def run_decode(
    params, prefixes, ranges, *, stop=-1, seeds=(0,), temperature=0.0, top_k=0, top_p=1.0, guidance=1.0, guided=False,
    config=CONFIG, clock=None,
):  # fmt: skip
    """One prefix for all rows, or one each; guided: those with conditions, then those without."""
    prefixes = [prefixes] if isinstance(prefixes[0], int) else prefixes
    heads = np.zeros((2, 64), np.int32)
    heads[:, : len(ranges)] = np.array([CONFIG.head_range(r.start, r.size) for r in ranges]).T
    padded = np.zeros((len(prefixes), 64), np.int32)
    for row, prefix in enumerate(prefixes):
        padded[row, : len(prefix)] = prefix
    out, written = decode(
        config, params, padded, np.array([len(prefix) for prefix in prefixes], np.int32), heads[0], heads[1],
        np.int32(len(ranges)), np.int32(stop), jnp.stack([jax.random.key(seed) for seed in seeds]),
        np.float32(temperature), np.int32(top_k), np.float32(top_p), np.float32(guidance), clock=clock, guided=guided,
    )  # fmt: skip
    return np.asarray(out), np.asarray(written)


def test_decoding_with_the_cache_equals_the_full_forward(params):
    text, image = VOCABULARY.stream_ranges("text")[0], VOCABULARY.stream_ranges("image")[0]
    ranges = [*VOCABULARY.stream_ranges("speech"), *VOCABULARY.stream_ranges("expression")[:3], text, image, image]
    ranges += [*VOCABULARY.stream_ranges("semantics")] * 3
    prefix = [11, 12, 13, VOCABULARY.ranges[1].start + 7, 14]
    out, written = run_decode(params, prefix, ranges)
    assert out[0, : len(ranges)].tolist() == greedy_by_full_forward(CONFIG, params, prefix, ranges)
    assert written.tolist() == [len(ranges)]
    timed, clock = language_config(clock=True), np.random.default_rng(0).integers(40, size=(1, 64), dtype=np.int32)
    out, _ = run_decode(params, prefix, ranges, config=timed, clock=clock)
    written = out[0, : len(ranges)].tolist()
    assert written == greedy_by_full_forward(timed, params, prefix, ranges, clock)
    assert written != greedy_by_full_forward(timed, params, prefix, ranges, clock[:, ::-1])
    with pytest.raises(ValueError, match="clock=True in the model, False in the rows"):
        run_decode(params, prefix, ranges, config=timed)


def test_sampled_tokens_stay_in_their_ranges_and_follow_the_seed(params):
    ranges = list(VOCABULARY.ranges)
    draws = [run_decode(params, [5, 6], ranges, seeds=(s,), temperature=3.0)[0][0, : len(ranges)] for s in (0, 0, 1)]
    assert np.all(draws[0] < [r.size for r in ranges]) and np.all(draws[0] >= 0)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 15], [8]]


def some_ranges():
    return [*VOCABULARY.stream_ranges("speech"), *VOCABULARY.stream_ranges("image"), *VOCABULARY.stream_ranges("text")]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_row_of_a_batch_is_what_it_is_alone(params, temperature):
    seeds = (3, 4, 5)
    together, _ = run_decode(params, PROMPTS, some_ranges(), seeds=seeds, temperature=temperature)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True)):
        alone, _ = run_decode(params, prompt, some_ranges(), seeds=(seed,), temperature=temperature)
        np.testing.assert_array_equal(together[row], alone[0])
    assert len({tuple(row) for row in together}) == len(PROMPTS)


def log_softmax_after(params, prefix, r) -> np.ndarray:
    """Log-probabilities of the next id of a range."""
    tokens = np.zeros((1, 64), np.int32)
    tokens[0, : len(prefix)] = prefix
    bounds = np.maximum(np.arange(64), len(prefix) - 1)[None]
    segments = (np.arange(64) < len(prefix)).astype(np.int32)[None]
    x = hidden_states(CONFIG, params, tokens, np.arange(64)[None], segments, bounds)[0, len(prefix) - 1]
    return np.asarray(jax.nn.log_softmax(all_rows(params)[r.start : r.start + r.size] @ x))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 4.0])
def test_guidance_goes_from_what_is_likely_anyway_to_what_the_condition_makes_likely(params, guidance):
    r = VOCABULARY.stream_ranges("speech")[0]
    given, free = PROMPTS[:2], [[20, 21], [20]]
    out, _ = run_decode(params, given + free, [r], seeds=(0, 0), guidance=guidance, guided=True)
    for row in range(2):
        one, two = (log_softmax_after(params, prefix, r) for prefix in (given[row], free[row]))
        assert out[row, 0] == np.argmax(two + guidance * (one - two))


def test_guidance_of_one_is_none(params):
    ranges = some_ranges()
    guided, _ = run_decode(params, [*PROMPTS, *PROMPTS[::-1]], ranges, seeds=(1, 2, 3), temperature=1.0, guided=True)
    plain, _ = run_decode(params, PROMPTS, ranges, seeds=(1, 2, 3), temperature=1.0)
    np.testing.assert_array_equal(guided[:, : len(ranges)], plain[:, : len(ranges)])


def test_top_k_of_one_is_greedy_and_top_k_holds_in_the_draw(params):
    ranges = some_ranges()
    greedy, _ = run_decode(params, PROMPTS, ranges, seeds=(0, 0, 0))
    one, _ = run_decode(params, PROMPTS, ranges, seeds=(7, 8, 9), temperature=2.0, top_k=1)
    np.testing.assert_array_equal(one, greedy)
    r = VOCABULARY.stream_ranges("speech")[0]
    best = set(np.argsort(log_softmax_after(params, [5, 6], r))[-3:].tolist())
    draws = set()
    for n in range(12):
        seeds = range(3 * n, 3 * n + 3)
        draws |= set(run_decode(params, [[5, 6]] * 3, [r], seeds=seeds, temperature=9.0, top_k=3)[0][:, 0].tolist())
    assert draws == best


def test_a_row_stops_at_the_stop_id(params):
    text = [VOCABULARY.stream_ranges("text")[0]] * 20
    free, _ = run_decode(params, [5, 6, 7], text)
    stop = int(free[0, 3])
    out, written = run_decode(params, [5, 6, 7], text, stop=stop)
    first = free[0].tolist().index(stop)
    assert written.tolist() == [first]
    np.testing.assert_array_equal(out[0, :first], free[0, :first])


@pytest.mark.parametrize("size", [3, 512, 1300])
def test_ids_are_drawn_as_often_as_they_are_likely(size):
    logits = np.array(jax.random.normal(jax.random.key(0), (size,)) * 2)
    logits[1], logits[-1] = -np.inf, -np.inf
    drawn = jax.jit(jax.vmap(draw, (0, None)))(jax.random.split(jax.random.key(1), 40_000), logits)
    counts = np.bincount(np.asarray(drawn), minlength=size)
    assert counts.size == size and counts[1] == counts[-1] == 0
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    # Chi-squared over ids that are expected at least five times: mean and deviation of that many degrees of freedom.
    often = p * 40_000 >= 5
    chi = np.sum((counts[often] - 40_000 * p[often]) ** 2 / (40_000 * p[often]))
    assert chi < often.sum() + 5 * np.sqrt(2 * often.sum())


@pytest.mark.parametrize("top_k", [0, 1, 7, 299, 300, 1000])
def test_the_most_likely_are_the_k_largest(top_k):
    logits = np.array(jax.random.normal(jax.random.key(0), (4, 300)) * 3)
    logits[0, :200] = -np.inf  # a grammar's
    kept = np.isfinite(np.asarray(most_likely(logits, top_k)))
    for row in range(4):
        possible = np.isfinite(logits[row])
        expected = set(np.argsort(-logits[row])[: top_k or 300].tolist()) & set(np.flatnonzero(possible).tolist())
        assert set(np.flatnonzero(kept[row]).tolist()) == expected


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_with_that_much_mass(top_p):
    logits = jax.random.normal(jax.random.key(0), (4, 300)) * 2
    kept = np.isfinite(np.asarray(nucleus(logits, top_p)))
    p = np.asarray(jax.nn.softmax(logits, -1), np.float64)
    for row in range(4):
        order = np.argsort(-p[row])
        needed = int(np.searchsorted(np.cumsum(p[row][order]), min(top_p, 1 - 1e-6))) + 1
        if top_p == 1.0:
            assert kept[row].sum() >= needed - 1
        else:
            assert set(np.flatnonzero(kept[row])) == set(order[:needed])
