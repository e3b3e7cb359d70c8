"""The speech signal of a clip: one loudness for all clips, and when and how high the voice is.

Activity is measured by the Silero detector or by energy over the clip's own noise floor; pitch by the autocorrelation
method of Boersma (1993): the autocorrelation of a windowed frame divided by that of the window, best peak between the
lowest and highest voice, refined by a parabola. Both are on the 25 Hz grid of speech tokens.
"""

from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.signals import AUDIO_RATE, SPEECH_HOP

BACKENDS = ("silero", "energy")


@dataclass(frozen=True)
class SpeechConfig:
    """How speech is levelled and measured (levels in dBFS, where a full-scale square wave is 0)."""

    target_level: float = -23.0
    peak_level: float = -1.0
    max_gain: float = 40.0
    above_floor: float = 9.0
    below_loud: float = 26.0
    silence_level: float = -60.0
    lowest_pitch: float = 65.0
    highest_pitch: float = 420.0
    pitch_window: int = 1024
    voicing: float = 0.5
    octave_cost: float = 0.03


@dataclass(frozen=True)
class Speech:
    """Levelled speech: audio int16 (N,), its gain, activity uint8 (S,), pitch_hz float32 (S,) with 0 = unvoiced."""

    audio: np.ndarray
    gain_db: float
    activity: np.ndarray
    pitch_hz: np.ndarray


def hops(audio: np.ndarray) -> np.ndarray:
    """Cuts audio into token frames, the last one padded with zeros: (N,) -> (ceil(N / 640), 640)."""
    steps = -(-len(audio) // SPEECH_HOP)
    return np.pad(audio, (0, steps * SPEECH_HOP - len(audio))).reshape(steps, SPEECH_HOP)


def levels_db(audio: np.ndarray) -> np.ndarray:
    """Root-mean-square level of every 40 ms in dBFS: float (N,) in [-1, 1] -> float64 (S,), at least -120."""
    power = (hops(np.asarray(audio, np.float64)) ** 2).mean(1)
    return 10 * np.log10(np.maximum(power, 1e-12))


def voice_activity(audio: np.ndarray, config: SpeechConfig) -> np.ndarray:
    """Says in which 40 ms somebody speaks: float (N,) -> bool (S,).

    The threshold lies above the quiet tenth of the clip and not too far below its loud tenth; a gap of up to 120 ms
    inside speech is speech (stop consonants), and a burst of a single step is not.
    """
    level = levels_db(audio)
    floor, loud = np.percentile(level, [10, 90])
    # In speech without pauses the quiet tenth is speech too: never ask for more than half-way up.
    threshold = max(min(floor + config.above_floor, (floor + loud) / 2), loud - config.below_loud, config.silence_level)
    active = level > threshold
    active = _fill(active, True, 3)
    return ~_fill(~active, True, 1)


def _fill(active: np.ndarray, value: bool, longest: int) -> np.ndarray:
    """Sets inner runs of ``not value`` that are at most ``longest`` steps long to ``value``."""
    active = active.copy()
    edges = np.flatnonzero(np.diff(active.astype(np.int8))) + 1
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if active[start] != value and end - start <= longest:
            active[start:end] = value
    return active


def pitch(audio: np.ndarray, config: SpeechConfig) -> np.ndarray:
    """Measures the fundamental frequency at 25 Hz: float (N,) -> float32 (S,) Hz, 0 without a clear period."""
    audio = np.asarray(audio, np.float64)
    size = config.pitch_window
    steps = -(-len(audio) // SPEECH_HOP)
    margin = (size - SPEECH_HOP) // 2
    padded = np.pad(audio, (margin, size + SPEECH_HOP))
    frames = np.stack([padded[i * SPEECH_HOP : i * SPEECH_HOP + size] for i in range(steps)])
    window = np.hanning(size)
    frames = (frames - frames.mean(1, keepdims=True)) * window
    spectrum = np.abs(np.fft.rfft(frames, 2 * size)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :size]
    window_correlation = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:size]
    shortest, longest = int(AUDIO_RATE / config.highest_pitch), int(np.ceil(AUDIO_RATE / config.lowest_pitch))
    energy = np.maximum(correlation[:, :1], 1e-9)
    normal = correlation / energy / (window_correlation / window_correlation[0]).clip(1e-3)
    lags = np.arange(shortest, longest + 1)
    inner = normal[:, lags]
    peak = (inner > normal[:, lags - 1]) & (inner >= normal[:, lags + 1])
    # Twice the period correlates as well as the period: a small cost per octave prefers the shorter one.
    strength = np.where(peak, inner - config.octave_cost * np.log2(lags / shortest), -1.0)
    best = strength.argmax(1)
    rows = np.arange(steps)
    left, middle, right = (normal[rows, lags[best] + shift] for shift in (-1, 0, 1))
    curve = left - 2 * middle + right
    shift = np.where(np.abs(curve) > 1e-9, 0.5 * (left - right) / np.where(np.abs(curve) > 1e-9, curve, 1), 0)
    hertz = AUDIO_RATE / (lags[best] + np.clip(shift, -0.5, 0.5))
    loud = 10 * np.log10(energy[:, 0] / (window**2).sum() + 1e-12) > config.silence_level
    voiced = peak[rows, best] & (middle > config.voicing) & loud
    return np.where(voiced, hertz, 0).astype(np.float32)


def normalise(audio: np.ndarray, config: SpeechConfig | None = None, backend: str = "energy") -> Speech:
    """Brings the speech of a clip to one loudness and measures activity and pitch.

    Args:
        audio: int16 (N,), 16 kHz.
        backend: what says when somebody speaks: "energy", or "silero" (pipelines/stages/voice_activity.py).

    Returns:
        the speech with active parts at ``target_level`` unless a peak above ``peak_level`` or ``max_gain`` forbids it;
        the gain is one number for the whole clip, so the dynamics stay.
    """
    config = config or SpeechConfig()
    wave = np.asarray(audio, np.float64) / 32768
    if backend == "silero":
        from pipelines.stages.voice_activity import speech_activity

        active = speech_activity(audio).astype(bool)
    elif backend == "energy":
        active = voice_activity(wave, config)
    else:
        raise InputError(f"speech backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    parts = hops(wave)[active] if active.any() else hops(wave)
    level = 10 * np.log10(max((parts**2).mean(), 1e-12))
    top = 20 * np.log10(max(np.abs(wave).max(initial=0.0), 1e-6))
    gain = min(config.target_level - level, config.peak_level - top, config.max_gain)
    levelled = np.clip(np.round(wave * 10 ** (gain / 20) * 32768), -32768, 32767).astype(np.int16)
    hertz = np.where(active, pitch(wave, config), 0).astype(np.float32)
    return Speech(levelled, float(gain), active.astype(np.uint8), hertz)
