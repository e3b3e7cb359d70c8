"""The capture imperfections that the paper names, put into rendered clips on request, each one recorded in the truth.

The masks stay true: what hides the person (a hand, a microphone, somebody else) is background there, and blur, noise
and compression change the picture only. Each kind is drawn from a stream of its own, so that asking for one more kind
leaves the others of a clip as they were.
"""

import dataclasses

import numpy as np

from models.errors import InputError
from models.signals import VIDEO_FPS

KINDS = ("compression", "blur", "noise", "hand", "microphone", "second-person", "cut", "silence")
_STREAM = 100


@dataclasses.dataclass(frozen=True)
class Imperfection:
    """One imperfection of one clip.

    Attributes: kind, one of ``KINDS``; start, end frames (end exclusive); strength in the unit that ``unit`` says;
    details, plain values for the truth.
    """

    kind: str
    start: int
    end: int
    strength: float
    unit: str
    details: dict = dataclasses.field(default_factory=dict)

    def record(self) -> dict:
        """Returns what the truth says about it."""
        return dataclasses.asdict(self)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Returns the kinds of a comma-separated list, ``all`` or ``none``, in the order of ``KINDS``.

    Raises:
      InputError: a name is not a kind.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    if names == ["all"]:
        return KINDS
    for name in names:
        if name not in KINDS:
            raise InputError(f"--imperfections {name}: expected some of {', '.join(KINDS)}, or all, or none")
    return tuple(kind for kind in KINDS if kind in names)


def stream(seed: int, index: int, kind: str) -> np.random.Generator:
    """Returns the random stream of a kind of imperfection in a clip."""
    return np.random.default_rng([seed, index, _STREAM + KINDS.index(kind)])


def drawn(seed: int, index: int, kinds: tuple[str, ...], share: float) -> dict[str, np.random.Generator]:
    """Returns which of ``kinds`` a clip has, each with the stream that decides the rest: every kind is in a ``share``
    of all clips, independently.
    """
    streams = {kind: stream(seed, index, kind) for kind in kinds}
    return {kind: rng for kind, rng in streams.items() if rng.random() < share}


def draw_compression(rng: np.random.Generator, frames: int) -> Imperfection:
    """Draws a second encoding: its quality, and how far the picture is shrunk before it."""
    quality = int(rng.integers(32, 43))
    shrink = float(rng.choice([1.0, 0.75, 0.5]))
    return Imperfection("compression", 0, frames, quality, "x264 crf", {"shrink": shrink})


def draw_blur(rng: np.random.Generator, frames: int) -> Imperfection:
    """Draws a stretch of defocus or of motion blur, in pixels of a frame of 512."""
    length = int(min(frames, rng.uniform(0.5, 2.0) * VIDEO_FPS))
    start = int(rng.integers(0, frames - length + 1))
    if rng.random() < 0.5:
        size, details = float(rng.uniform(1.2, 3.5)), {"form": "defocus"}
    else:
        size, details = float(rng.uniform(5, 16)), {"form": "motion", "degrees": round(float(rng.uniform(-40, 40)), 1)}
    return Imperfection("blur", start, start + length, round(size, 2), "pixels at 512", details)


def draw_noise(rng: np.random.Generator, frames: int) -> Imperfection:
    """Draws a sensor's noise: standard deviation in levels of 255; colour noise is coarser and weaker than light's."""
    return Imperfection("noise", 0, frames, round(float(rng.uniform(4, 16)), 2), "levels", {})


class Blur:
    """Blurs the frames of a stretch; it grows and shrinks over 5 frames."""

    def __init__(self, fault: Imperfection, short: int):
        self.fault, self.scale = fault, short / 512

    def __call__(self, image: np.ndarray, t: int) -> np.ndarray:
        import cv2

        fault = self.fault
        if not fault.start <= t < fault.end:
            return image
        ramp = min(1.0, (t - fault.start + 1) / 5, (fault.end - t) / 5)
        size = fault.strength * ramp * self.scale
        if fault.details["form"] == "defocus":
            return cv2.GaussianBlur(image, (0, 0), max(size, 0.3))
        reach = int(np.ceil(size / 2)) + 1
        angle = np.radians(fault.details["degrees"])
        offset = np.arange(-reach, reach + 1)
        along = offset * np.cos(angle) + offset[:, None] * np.sin(angle)
        across = -offset * np.sin(angle) + offset[:, None] * np.cos(angle)
        kernel = np.clip(size / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
        return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


class Noise:
    """Adds noise that differs from frame to frame: one large tile, cut at another place for every frame."""

    def __init__(self, fault: Imperfection, width: int, height: int, rng: np.random.Generator):
        import cv2

        self.size = (height, width)
        shape = (height + 64, width + 64)
        light = rng.standard_normal(shape, dtype=np.float32)
        tint = cv2.GaussianBlur(rng.standard_normal((*shape, 3), dtype=np.float32), (0, 0), 1.2) * 2.2
        self.tile = np.round(fault.strength * (0.8 * light[..., None] + 0.6 * tint)).astype(np.int16)
        self.rng = rng

    def __call__(self, image: np.ndarray, t: int) -> np.ndarray:
        y, x = self.rng.integers(0, 65, 2)
        tile = self.tile[y : y + self.size[0], x : x + self.size[1]]
        if self.rng.random() < 0.5:
            tile = tile[:, ::-1]
        return np.clip(image + tile, 0, 255).astype(np.uint8)


def insert_pause(rng: np.random.Generator, audio: np.ndarray, rate: int, words: list, phonemes: list, longest: float):
    """Puts a pause between two words of an utterance.

    Args:
      audio: int16 (N,).
      words, phonemes: dictionaries with start and end in seconds.
      longest: seconds that the pause may last.

    Returns:
      audio, words, phonemes with the pause, and (start, end) of the pause in seconds; None if there is no room.
    """
    length = min(float(rng.uniform(0.8, 1.8)), longest)
    if length < 0.4 or len(words) < 3:
        return None
    at = words[int(rng.integers(1, len(words) - 1))]["end"]
    split = round(at * rate)
    ramp = np.linspace(1, 0, min(round(0.006 * rate), split, len(audio) - split))
    before, after = audio[:split].astype(np.float32), audio[split:].astype(np.float32)
    before[len(before) - len(ramp) :] *= ramp  # no click where the sound is cut
    after[: len(ramp)] *= ramp[::-1]
    gap = round(length * rate)
    sound = np.concatenate([before, np.zeros(gap, np.float32), after]).astype(np.int16)

    def later(spans):
        out = []
        for span in spans:
            start, end = span["start"], span["end"]
            moved = start >= at - 1e-6
            # A phoneme across the cut ends where the pause begins.
            end = end + length if moved else min(end, at)
            out.append(span | {"start": round(start + length * moved, 4), "end": round(end, 4)})
        return [span for span in out if span["end"] > span["start"]]

    spoken = later(phonemes)
    spoken.append({"phoneme": "", "start": round(at, 4), "end": round(at + length, 4), "stress": 0})
    spoken.sort(key=lambda p: p["start"])
    return sound, later(words), spoken, (at, at + length)
