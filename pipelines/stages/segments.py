"""Which frames of a source become clips.

Where one face is followed and someone speaks, in pieces of 2 to 10 seconds.
"""

from collections.abc import Sequence

import numpy as np

from models.signals import AUDIO_RATE, VIDEO_FPS, grid_frames

Span = tuple[int, int]  # [start, end) frames of the source's clock

MERGE_SECONDS = 1.5  # pauses up to this long belong to the speech around them
MARGIN_SECONDS = 0.4  # kept before the first word and after the last
_SMOOTH = 3  # frames to each side over which loudness is averaged
SEARCH_SECONDS = 1.5  # how far a split may move to find a quiet moment


def speech_spans(intervals: Sequence[tuple[int, int]], frames: int) -> list[Span]:
    """Speech in samples -> frame spans with their margins, neighbours merged over short pauses, inside [0, frames)."""
    margin, merge = round(MARGIN_SECONDS * VIDEO_FPS), round(MERGE_SECONDS * VIDEO_FPS)
    spans: list[Span] = []
    for begin, end in intervals:
        first = max(0, begin * VIDEO_FPS // AUDIO_RATE - margin)
        last = min(frames, -(-end * VIDEO_FPS // AUDIO_RATE) + margin)
        if last <= first:
            continue
        if spans and first - spans[-1][1] <= merge - 2 * margin:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((max(first, spans[-1][1]) if spans else first, last))
    return [span for span in spans if span[1] > span[0]]


def intersect(a: Sequence[Span], b: Sequence[Span]) -> list[Span]:
    out = [(max(x[0], y[0]), min(x[1], y[1])) for x in a for y in b]
    return sorted(span for span in out if span[1] > span[0])


def split_span(span: Span, audio: np.ndarray, max_seconds: float) -> list[Span]:
    """Splits a span into the fewest pieces of at most ``max_seconds``, nearly equal, each cut at a quiet moment.

    ``audio`` is the source's int16 sound at 16 kHz. A cut may move by up to SEARCH_SECONDS from the equal division.
    """
    limit = int(max_seconds * VIDEO_FPS)
    start, end = span
    pieces = -(-(end - start) // limit)
    origin = max(0, start - _SMOOTH)
    loudness = frame_loudness(audio, end, origin)
    cuts = [start]
    for index in range(1, pieces):
        target = start + round((end - start) * index / pieces)
        reach = round(SEARCH_SECONDS * VIDEO_FPS)
        low = max(target - reach, end - (pieces - index) * limit, cuts[-1] + 1)
        high = min(target + reach, cuts[-1] + limit, end - 1)
        window = np.arange(low, high + 1)
        # Equal loudness: the cut nearest to the equal division.
        cuts.append(int(min(window, key=lambda frame: (loudness[frame - origin], abs(frame - target)))))
    cuts.append(end)
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def frame_loudness(audio: np.ndarray, end: int, start: int = 0) -> np.ndarray:
    """Returns float (end - start,): level in whole dB of the sound around each frame of [start, end), averaged over a
    fifth of a second.
    """
    edges = np.round(np.arange(start, end + 1) * AUDIO_RATE / VIDEO_FPS).astype(int)
    sound = audio[edges[0] : edges[-1]].astype(np.float64) / 32768
    sound = np.pad(sound, (0, edges[-1] - edges[0] - len(sound)))
    power = np.add.reduceat(sound**2, edges[:-1] - edges[0]) / np.diff(edges)
    power = np.convolve(np.pad(power, _SMOOTH, mode="edge"), np.ones(2 * _SMOOTH + 1) / (2 * _SMOOTH + 1), mode="valid")
    return np.round(10 * np.log10(power + 1e-9))


def on_grid(span: Span) -> Span:
    """Trims the end so that the span has 4k + 1 frames."""
    return span[0], span[0] + grid_frames(span[1] - span[0])
