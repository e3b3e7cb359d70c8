"""Where speech is in a sound: the Silero voice activity detector, run with onnxruntime (the package imports torch).

The model reads 512 samples (32 ms at 16 kHz) at a time, each with the last 64 samples before it, and keeps a state.
Source: Silero VAD, https://github.com/snakers4/silero-vad (MIT); the weights are inside the `silero-vad` package.
"""

import importlib.util
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.loading import load_once
from models.signals import AUDIO_RATE, SPEECH_HOP

BACKEND = "silero"
WINDOW, CONTEXT = 512, 64
_CHUNK = 60 * AUDIO_RATE // WINDOW  # windows that are turned to float32 at a time
ENTER, LEAVE = 0.5, 0.35
MIN_SPEECH_SECONDS, MIN_SILENCE_SECONDS = 0.25, 0.1


@load_once()
def _session():
    spec = importlib.util.find_spec("silero_vad")  # located without running the package
    if spec is None or spec.origin is None:
        raise InputError("voice activity: the silero-vad package is not installed; expected `pip install silero-vad`")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def speech_probability(audio: np.ndarray) -> np.ndarray:
    """int16 or float32 in [-1, 1] (samples,) at 16 kHz -> float32 (ceil(samples / 512),).

    Probability of speech per window. The sound is read a minute at a time, so it may be a map of a long file.
    """
    windows = -(-len(audio) // WINDOW)
    state, rate, out = np.zeros((2, 1, 128), np.float32), np.array(AUDIO_RATE, np.int64), np.zeros(windows, np.float32)
    session = _session() if windows else None
    before = np.zeros(CONTEXT, np.float32)
    for first in range(0, windows, _CHUNK):
        count = min(_CHUNK, windows - first)
        piece = audio[first * WINDOW : (first + count) * WINDOW]
        piece = piece.astype(np.float32) / 32768 if audio.dtype == np.int16 else piece.astype(np.float32)
        sound = np.concatenate([before, piece, np.zeros(count * WINDOW - len(piece), np.float32)])
        before = sound[-CONTEXT:]
        for index in range(count):
            window = sound[None, index * WINDOW : index * WINDOW + CONTEXT + WINDOW]
            probability, state = session.run(None, {"input": window, "state": state, "sr": rate})
            out[first + index] = probability[0, 0]
    return out


def speech_intervals(probability: np.ndarray) -> list[tuple[int, int]]:
    """Returns [begin, end) in samples of each stretch of speech.

    A stretch begins above 0.5 and ends where the probability stays below 0.35 for 0.1 s; stretches under 0.25 s are
    dropped.
    """
    silence_windows = round(MIN_SILENCE_SECONDS * AUDIO_RATE / WINDOW)
    intervals, begin, quiet = [], None, 0
    for index, value in enumerate(probability):
        if value >= ENTER:
            begin, quiet = (index if begin is None else begin), 0
        elif begin is not None:
            quiet = quiet + 1 if value < LEAVE else 0
            if quiet > silence_windows:
                intervals.append((begin * WINDOW, (index + 1 - quiet) * WINDOW))
                begin, quiet = None, 0
    if begin is not None:
        intervals.append((begin * WINDOW, (len(probability) - quiet) * WINDOW))
    return [(b, e) for b, e in intervals if e - b >= MIN_SPEECH_SECONDS * AUDIO_RATE]


def speech_mask(intervals: list[tuple[int, int]], first: int, last: int) -> np.ndarray:
    """bool (last - first,): True where samples [first, last) of the sound are speech."""
    mask = np.zeros(last - first, bool)
    for begin, end in intervals:
        if begin < last and end > first:
            mask[max(0, begin - first) : end - first] = True
    return mask


def speech_activity(audio: np.ndarray, hop: int = SPEECH_HOP) -> np.ndarray:
    """Returns uint8 (ceil(samples / hop),).

    1 where at least half of a hop of the sound (16 kHz) is speech; 25 Hz by default.
    """
    mask = speech_mask(speech_intervals(speech_probability(audio)), 0, len(audio))
    steps = -(-len(audio) // hop)
    return (np.pad(mask, (0, steps * hop - len(mask))).reshape(steps, hop).mean(axis=1) >= 0.5).astype(np.uint8)
