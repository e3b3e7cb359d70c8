import numpy as np
import pytest

from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines.stages import segments


def seconds(*pairs):
    return [(round(a * AUDIO_RATE), round(b * AUDIO_RATE)) for a, b in pairs]


def test_speech_gets_margins_and_short_pauses_are_bridged():
    spans = segments.speech_spans(seconds((1, 3), (3.8, 6), (10, 12)), 15 * VIDEO_FPS)
    assert spans == [(18, 192), (288, 372)]


def test_spans_stay_inside_the_video():
    assert segments.speech_spans(seconds((0, 5)), 100) == [(0, 100)]
    assert segments.speech_spans(seconds((7, 8)), 100) == []
    assert segments.speech_spans([], 100) == []


def test_spans_never_overlap():
    spans = segments.speech_spans(seconds((0, 1), (2, 3), (4.6, 5), (5.5, 9)), 300)
    assert all(a[1] <= b[0] for a, b in zip(spans[:-1], spans[1:], strict=True))


def test_intersection():
    assert segments.intersect([(0, 50), (80, 120)], [(40, 100)]) == [(40, 50), (80, 100)]


def quiet_at(length, *moments):
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 6000, round(length * AUDIO_RATE))
    for moment in moments:
        audio[round((moment - 0.2) * AUDIO_RATE) : round((moment + 0.2) * AUDIO_RATE)] *= 0.01
    return audio.astype(np.int16)


def test_a_long_span_is_cut_where_it_is_quiet():
    pieces = segments.split_span((0, 18 * VIDEO_FPS), quiet_at(18, 8.3), 10)
    assert len(pieces) == 2 and abs(pieces[0][1] - 8.3 * VIDEO_FPS) <= 5


@pytest.mark.parametrize("length", [2, 9.99, 10, 10.1, 19.9, 20, 29, 61])
def test_pieces_cover_the_span_and_none_is_too_long(length):
    span = (7, 7 + round(length * VIDEO_FPS))
    pieces = segments.split_span(span, quiet_at(length + 1, *np.arange(1, length, 2.3)), 10)
    assert pieces[0][0] == span[0] and pieces[-1][1] == span[1]
    assert all(a[1] == b[0] for a, b in zip(pieces[:-1], pieces[1:], strict=True))
    assert all(0 < end - start <= 300 for start, end in pieces)
    assert len(pieces) == -(-(span[1] - span[0]) // 300)


def test_a_span_may_outlast_the_sound():
    assert segments.split_span((0, 600), np.zeros(16_000, np.int16), 10) == [(0, 300), (300, 600)]


def test_grid():
    assert segments.on_grid((10, 100)) == (10, 99)
    assert segments.on_grid((10, 99)) == (10, 99)
