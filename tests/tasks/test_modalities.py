import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.signals import SPEECH_RATE, TIME_STRIDE, VIDEO_FPS, latent_steps, speech_steps
from tasks.modalities import (
    MODALITIES,
    PAPER_CODEBOOKS,
    STREAMS,
    TICK_RATE,
    TOKEN_MODALITIES,
    Vocabulary,
    flatten,
    spans,
    unflatten,
)
from tasks.windows import WindowConfig, span_frames

PAPER = Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1)
CODED = [name for name in TOKEN_MODALITIES if not MODALITIES[name].is_text]
SHAPES = {
    "speech": lambda n: (4, n),
    "shape": lambda n: (8,),
    "expression": lambda n: (8, n),
    "pose": lambda n: (6, n),
    "semantics": lambda n: (n, 8, 8),
    "image": lambda n: (16, 16),
}


def random_codes(name: str, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(PAPER_CODEBOOKS[name][0], size=SHAPES[name](steps)).astype(np.int32)


def test_the_papers_vocabulary_totals_546944_and_has_no_gap():
    assert PAPER.total == 546_944
    end = 0
    for r in PAPER.ranges:
        assert r.start == end
        end = r.start + r.size
    assert end == PAPER.total
    assert [r.stream for r in PAPER.ranges[:3]] == ["text", "image", "speech"]
    assert PAPER.ranges[-1].stream == "semantics" and len(PAPER.ranges) == 29


def test_the_seven_modalities_and_which_of_them_have_time():
    names = ["description", "script", "speech", "animation", "semantics", "image", "video"]
    assert list(dict.fromkeys(m.paper_name for m in MODALITIES.values())) == names
    timed = {"script", "speech", "expression", "pose", "semantics", "video"}
    assert {m.name for m in MODALITIES.values() if m.time_dependent} == timed
    for m in MODALITIES.values():
        assert m.states == (("past", "current") if m.name in timed else ())
        assert m.about and m.back
    assert {m.name: m.rate for m in MODALITIES.values() if m.has_clock} == {"speech": 25} | dict.fromkeys(
        ("expression", "pose", "semantics", "video"), 7.5
    )


def test_tokens_of_five_seconds():
    """The semantics' 2,432 are the paper's; a video is its semantics and one image."""
    expected = {"speech": 500, "shape": 8, "expression": 304, "pose": 228, "semantics": 2432, "image": 256}
    expected |= {"video": 2432 + 256, "description": None, "script": None}
    assert {name: m.tokens_in(5.0) for name, m in MODALITIES.items()} == expected
    assert MODALITIES["semantics"].num_tokens(149) == 2432
    assert MODALITIES["speech"].tokens_in(1 / 30) == 4
    with pytest.raises(InputError, match="one frame"):
        MODALITIES["speech"].tokens_in(0.01)


def test_every_modality_of_ten_seconds_fits_the_papers_context():
    assert sum(MODALITIES[name].tokens_in(10.0) for name in CODED) + 500 < 8192


@given(st.lists(st.integers(1, 5000), min_size=29, max_size=29))
def test_ranges_follow_the_tokenizers_in_use(sizes):
    rest = iter(sizes)
    codebooks = {stream: tuple(next(rest) for _ in levels) for stream, levels in PAPER_CODEBOOKS.items()}
    made = Vocabulary.of_codebooks(codebooks, eos=0)
    assert made.total == sum(sizes)
    assert [r.size for r in made.ranges] == [n for stream in STREAMS for n in codebooks[stream]]
    assert [r.start for r in made.ranges] == [0, *np.cumsum([r.size for r in made.ranges])[:-1]]


@pytest.mark.parametrize("name", CODED)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_flatten_and_unflatten_are_inverses(name, steps, seed):
    codes = random_codes(name, steps, seed)
    ids = flatten(PAPER, name, codes)
    assert ids.shape == (codes.size,)
    np.testing.assert_array_equal(unflatten(PAPER, name, ids), codes)
    # The grammar says for every position which range its id is from.
    position = 0
    for span in spans(PAPER, name, 1 if MODALITIES[name].time_axis is None else steps):
        part = ids[position : position + span.count]
        assert np.all((part >= span.range.start) & (part < span.range.start + span.range.size))
        position += span.count
    assert position == ids.size


def test_speech_is_ordered_level_by_level_low_to_high():
    codes = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    first = PAPER.stream_ranges("speech")[0].start
    assert flatten(PAPER, "speech", codes).tolist() == [
        first + 1, first + 2, first + 1024 + 3, first + 1024 + 4, first + 2048 + 5, first + 2048 + 6,
        first + 3072 + 7, first + 3072 + 8,
    ]  # fmt: skip


def test_semantics_are_ordered_by_time_then_by_row():
    codes = np.arange(128).reshape(2, 8, 8)
    ids = flatten(PAPER, "semantics", codes)
    assert (ids - PAPER.stream_ranges("semantics")[0].start).tolist() == list(range(128))


@pytest.mark.parametrize(
    ("name", "codes", "message"),
    [
        ("speech", np.full((4, 3), 1024), "expected less than"),
        ("speech", np.full((4, 3), -1), "expected less than"),
        ("speech", np.zeros((3, 3)), r"shape \(3, 3\)"),
        ("semantics", np.zeros((2, 8, 7)), "shape"),
        ("image", np.full((16, 16), 2**18), "expected less than"),
        ("shape", np.zeros((8, 2)), "shape"),
    ],
)
def test_codes_that_no_tokenizer_gives_are_refused(name, codes, message):
    with pytest.raises(InputError, match=message):
        flatten(PAPER, name, codes)


def test_ids_of_another_level_are_refused():
    ids = flatten(PAPER, "speech", np.zeros((4, 2), int))
    with pytest.raises(InputError, match="does not belong"):
        unflatten(PAPER, "speech", ids[::-1])
    with pytest.raises(InputError, match="multiple of 4"):
        unflatten(PAPER, "speech", ids[:7])


@given(st.integers(0, 80), st.integers(1, 40))
def test_consecutive_windows_take_every_step_once(start_block, length):
    """Speech and latent steps of [0, a) and [a, b) meet wherever a is on the grid of window starts."""
    start = 1 + 3 * start_block
    frames = 4 * (start + length - 1) + 1
    assert MODALITIES["speech"].step_range(0, start) == (0, 1 + 10 * start_block)
    assert MODALITIES["speech"].step_range(start, start + length)[0] == 1 + 10 * start_block
    assert MODALITIES["speech"].step_range(0, start + length)[1] == speech_steps(frames)
    assert MODALITIES["semantics"].step_range(0, start + length)[1] == latent_steps(frames)


def test_take_cuts_the_time_axis_and_says_when_there_is_not_enough():
    speech = np.arange(4 * 21).reshape(4, 21)
    np.testing.assert_array_equal(MODALITIES["speech"].take(speech, 1, 4), speech[:, 1:11])
    np.testing.assert_array_equal(MODALITIES["shape"].take(np.arange(8), 1, 4), np.arange(8))
    with pytest.raises(InputError, match="21 steps, expected at least 31"):
        MODALITIES["speech"].take(speech, 1, 10)


@pytest.mark.parametrize("start", [0, 1, 4, 10, 31])
@pytest.mark.parametrize("state", ["past", "current"])
@pytest.mark.parametrize("name", ["speech", "expression", "semantics"])
def test_ticks_are_when_steps_sound_and_are_seen(name, state, start):
    """Against seconds: the middle of a speech step of 40 ms, the middle of the frames of a latent step."""
    m, config = MODALITIES[name], WindowConfig(6, 3)
    first, last = (max(0, start - config.past), start) if state == "past" else (start, start + 6 + (start == 0))
    if first == last:
        pytest.skip("no past at the start of a clip")
    begin, end = m.step_range(first, last)
    tick = m.tick_of(state, span_frames(first, last), end - begin)
    found = (tick + m.ticks * np.arange(end - begin)) / TICK_RATE
    window = TIME_STRIDE * max(0, start - 1) / VIDEO_FPS
    steps = np.arange(begin, end)
    # Step k is frames 4k - 3 to 4k; of the first, only frame 0 is there.
    middle = (steps + 0.5) / SPEECH_RATE if name == "speech" else (TIME_STRIDE * steps - 1) / VIDEO_FPS
    np.testing.assert_allclose(found + window, middle, atol=0.5 / TICK_RATE)


def test_a_vocabulary_survives_json_and_refuses_a_wrong_number_of_levels():
    assert Vocabulary.from_json(PAPER.to_json()) == PAPER
    with pytest.raises(InputError, match="speech: a tokenizer of 3 levels, expected 4"):
        Vocabulary.of_codebooks(PAPER_CODEBOOKS | {"speech": (1024,) * 3}, eos=1)
    with pytest.raises(InputError, match="end token"):
        Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=-1)
