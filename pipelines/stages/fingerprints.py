"""What a clip looks and sounds like in a few hundred bytes, the same after another encoding: near duplicates share it.

Three codes, stored as hexadecimal text in two columns:

- ``picture_hash`` begins with 64 bits of the clip's mean picture (which of its low DCT coefficients are above their
  median). Two clips of one person in one room share them, so they never decide alone.
- Then comes the motion: 32 bits at each of 20 steps a second, from how the low DCT coefficients of the picture change.
  Two clips share them only if the same moment is in both.
- ``sound_hash``: the same for the energies of 33 bands of the sound, after Haitsma and Kalker, "A highly robust audio
  fingerprinting system" (2002): the sign of the change in time of the difference of neighbouring bands.

Motion and sound are words on one clock, so a shift between two clips is one number of steps. A word of 0 says that
there was nothing to tell: silence, or a picture that stands still. A mirrored picture has another code: only its sound
tells.
"""

import functools

import numpy as np

from models.signals import AUDIO_RATE, VIDEO_FPS

STEP = 0.05  # seconds between words
BITS = 32

_SIDE = 32
_LAG = 5  # steps between the two moments whose difference a bit is
_WINDOW = 6144  # samples, 0.38 s: long against half a step, which is how far two clips' clocks can be apart
_BAND_EDGES = (200.0, 3600.0)
_SILENT_DB = 50.0  # so far below the clip's loudest window a window says nothing
_STILL = 0.02  # mean change of a coefficient, in grey levels, below which a picture says nothing
_WEIGHT = np.array([1 << bit for bit in range(BITS)], np.uint64)


def fingerprints(frames: np.ndarray, audio: np.ndarray) -> dict[str, str]:
    """Returns the columns ``picture_hash`` and ``sound_hash``.

    Args:
        frames: uint8 (T, H, W, 3), RGB, 30 fps.
        audio: int16 (samples,), 16 kHz, the same stretch of time.
    """
    small = small_pictures(frames)
    return {
        "picture_hash": f"{appearance_hash(small.mean(axis=0)):016x}{to_hex(motion_code(small))}",
        "sound_hash": to_hex(sound_code(audio)),
    }


def read_picture_hash(text: str) -> tuple[int, np.ndarray]:
    """``picture_hash`` -> (64 bits of appearance, uint32 (steps,) of motion). ValueError if it is not that."""
    return int(text[:16], 16), from_hex(text[16:])


def to_hex(words: np.ndarray) -> str:
    """uint32 (N,) -> 8 hexadecimal digits a word."""
    return np.ascontiguousarray(words, ">u4").tobytes().hex()


def from_hex(text: str) -> np.ndarray:
    """What to_hex wrote -> uint32 (N,). ValueError if it is not that."""
    return np.frombuffer(bytes.fromhex(text), ">u4").astype(np.uint32)


def appearance_hash(picture: np.ndarray) -> int:
    """float (32, 32) -> 64 bits: which of the 8x8 lowest DCT coefficients, without the mean, are above their median."""
    basis = _dct_basis(9)
    low = basis @ picture @ basis.T
    values = np.append(low[:8, :8].ravel()[1:], low[8, 0])
    bits = values > np.median(values)
    return int(sum(1 << k for k in np.flatnonzero(bits).tolist()))


def motion_code(small: np.ndarray) -> np.ndarray:
    """float (T, 32, 32), 30 fps -> uint32 (steps,): a bit says whether a DCT coefficient rose in a quarter second."""
    basis = _dct_basis(6)
    low = np.einsum("ux,txy,vy->tuv", basis, small, basis, optimize=True)
    order = sorted(((u, v) for u in range(6) for v in range(6) if u + v), key=lambda at: (sum(at), at))[:BITS]
    series = np.stack([low[:, u, v] for u, v in order], axis=1)
    width = 7  # frames, a quarter of a second: lips and nods stay, single frames do not
    kernel = np.hanning(width + 2)[1:-1] / np.hanning(width + 2)[1:-1].sum()
    padded = np.pad(series, ((width // 2, width // 2), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(padded[:, k], kernel, mode="valid") for k in range(BITS)], axis=1)
    steps = int((len(small) - 1) / VIDEO_FPS / STEP) + 1
    at = np.arange(steps) * STEP * VIDEO_FPS
    sampled = np.stack([np.interp(at, np.arange(len(small)), smooth[:, k]) for k in range(BITS)], axis=1)
    change = sampled[_LAG:] - sampled[:-_LAG]
    words = _words(change > 0)
    words[np.abs(change).mean(axis=1) < _STILL * _SIDE] = 0
    return words


def sound_code(audio: np.ndarray) -> np.ndarray:
    """int16 (samples,), 16 kHz -> uint32 (steps,); no steps if the sound is shorter than 0.7 s."""
    from scipy import fft

    hop = round(STEP * AUDIO_RATE)
    count = (len(audio) - _WINDOW) // hop + 1
    if count <= _LAG:
        return np.zeros(0, np.uint32)
    views = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float32) / 32768, _WINDOW)[::hop][:count]
    taper = np.hanning(_WINDOW).astype(np.float32)
    spectrum = fft.rfft(views * taper, axis=1)[:, : _bands().shape[0]]
    bands = (spectrum.real**2 + spectrum.imag**2) @ _bands()
    level = 10 * np.log10(bands.sum(axis=1) + 1e-12)
    energy = np.log(bands + 1e-3 * bands.mean(axis=1, keepdims=True) + 1e-12)
    slope = energy[:, :-1] - energy[:, 1:]
    words = _words(slope[_LAG:] - slope[:-_LAG] > 0)
    quiet = (level < level.max() - _SILENT_DB) | (level < -80)
    words[quiet[_LAG:] | quiet[:-_LAG]] = 0
    return words


def _words(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint64) @ _WEIGHT).astype(np.uint32)


def small_pictures(frames: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) -> float32 (T, 32, 32) luma, faded toward the border, which another crop changes first."""
    import cv2

    fade = np.hanning(_SIDE + 8)[4:-4] ** 0.5
    fade = np.outer(fade, fade).astype(np.float32)
    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    out = np.stack(small).astype(np.float32)
    return (out - out.mean(axis=(1, 2), keepdims=True)) * fade


@functools.lru_cache(maxsize=4)
def _dct_basis(count: int) -> np.ndarray:
    """float32 (count, 32): the first rows of the orthonormal DCT-II."""
    k, x = np.arange(count)[:, None], np.arange(_SIDE)[None]
    rows = np.cos(np.pi * k * (x + 0.5) / _SIDE) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """float32 (bins, 33): triangles that overlap by half, spaced evenly in the logarithm of frequency.

    The bins end with the last that a triangle covers.
    """
    edges = np.geomspace(*_BAND_EDGES, BITS + 3)
    width = AUDIO_RATE / _WINDOW
    frequency = np.arange(int(edges[-1] / width) + 1)[:, None] * width
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)
