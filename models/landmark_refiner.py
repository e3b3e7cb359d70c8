"""Landmarks brought closer to what a face's pixels show: a cascade of linear steps on gradient histograms.

The supervised descent method (Xiong and De la Torre, 2013): around each of the 68 landmarks a patch is read in the
face's own frame (turned and scaled with the landmarks), described by histograms of gradient orientations, and one
ridge regression maps all descriptions to a displacement of all landmarks; a few such steps follow one another. It is
trained on rendered faces, whose landmarks are known: half from a detector's landmarks, half from true ones pushed about
at random, so that it learns what pixels say rather than a detector's habits.

A detector that was trained on people needs help on rendered faces, not on people. So the refiner also keeps the
directions in which the descriptions that it learned from differ; the more of a clip's descriptions lies beside them,
the less it is moved, and a clip unlike anything it learned from keeps its detector's landmarks.

Array letters: N pictures, S their side, P patch points, D description's length, R rank, K kept directions.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.io import load_model, save_model
from models.loading import load_once
from models.signals import NUM_LANDMARKS

KIND = "landmark-refiner"
EMBEDDED = Path(__file__).parent / "embedded" / "landmark_refiner"
_BATCH = 32
_LOOK_EVERY = 4  # frames from one that is looked at to tell whether a clip is known to the next


@dataclasses.dataclass(frozen=True)
class RefinerConfig:
    """Attributes: stages: steps of the cascade; patch: half the side of a patch, in the landmarks' own scale (their
    root mean square distance from their middle is 1); grid: points along a patch; cells: histograms along it; bins of
    orientation; rank: of a step's regression; ridge: as a share of the descriptions' total variance; starts: random
    starts a picture beside the detector's; shift: spread of their places; directions: kept to tell what is like the
    training pictures; held_out, quantile: of the training pictures, one in ``held_out`` (the last ones) is described by
    the directions of the others, and that quantile of what lies beside them is still known; fade: from there to nothing
    refined.
    """

    stages: int = 2
    patch: float = 0.32
    grid: int = 13
    cells: int = 4
    bins: int = 8
    rank: int = 48
    ridge: float = 2e-4
    starts: int = 3
    shift: float = 0.02
    directions: int = 256
    held_out: int = 8
    quantile: float = 0.95
    fade: float = 0.03


@dataclasses.dataclass(frozen=True, eq=False)
class Refiner:
    """Attributes: mean (68, 2): the mean landmarks; down (stages, D, R), up (stages, R, 136), bias (stages, 136);
    middle (D,), span (K, D): mean and main directions (unit length) of the descriptions at a detector's landmarks;
    known (): the share of a clip beside them up to which it is refined all the way (clips of rendered people
    held out from training have up to 0.63, real clips 0.67 to 0.76);
    weights_sha256: of the file that it was read from.
    """

    config: RefinerConfig
    mean: np.ndarray
    down: np.ndarray
    up: np.ndarray
    bias: np.ndarray
    middle: np.ndarray
    span: np.ndarray
    known: np.ndarray
    weights_sha256: str = ""

    def refine(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Returns the landmarks of a clip after all steps, or as much of the way as the clip is known.

        Args:
            frames: uint8 (N, S, S, 3), RGB.
            landmarks: float32 (N, 68, 2), pixels (the centre of a first pixel is 0).

        Returns:
            float32 (N, 68, 2).
        """
        share = self.known_share(frames, landmarks)
        if share == 0:
            return np.asarray(landmarks, np.float32)
        step = _step(self.config)
        out = []
        for first in range(0, len(frames), _BATCH):
            index = np.minimum(np.arange(first, first + _BATCH), len(frames) - 1)
            light, points = luma(frames[index]), np.asarray(landmarks, np.float32)[index]
            for down, up, bias in zip(self.down, self.up, self.bias, strict=True):
                points = step(light, points, self.mean, down, up, bias)
            out.append(np.asarray(points)[: len(frames) - first])
        return landmarks + np.float32(share) * (np.concatenate(out) - landmarks)

    def known_share(self, frames: np.ndarray, landmarks: np.ndarray) -> float:
        """Returns how far a clip is like what was learned from, 0 to 1; arguments as ``refine``."""
        beside = []
        for first in range(0, len(frames), _BATCH * _LOOK_EVERY):
            index = np.minimum(first + _LOOK_EVERY * np.arange(_BATCH), len(frames) - 1)
            described, _ = _describe(self.config)(
                luma(frames[index]), np.asarray(landmarks, np.float32)[index], self.mean
            )
            share = share_beside(np.asarray(described), self.middle, self.span)
            beside.append(share[: -(-(len(frames) - first) // _LOOK_EVERY)])
        return float(np.clip(1 - (np.median(np.concatenate(beside)) - self.known) / self.config.fade, 0, 1))


def share_beside(described: np.ndarray, middle: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Returns which share of descriptions (N, D), less the mean (D,), lies beside the directions (K, D): (N,), 0..1."""
    apart = described - middle
    inside = ((apart @ span.T) ** 2).sum(1) / np.maximum((apart**2).sum(1), 1e-12)
    return np.sqrt(np.clip(1 - inside, 0, 1))


def luma(frames: np.ndarray) -> np.ndarray:
    """Returns the light of pixels: uint8 (..., 3) -> float32 (...) in 0..255."""
    return frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def similarity(source, target):
    """Returns (a, b), complex (N, 1) each: a x + b takes each source (N, 68) closest to its target; points as complex
    numbers.
    """
    middle, goal = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    centred = source - middle
    a = ((target - goal) * centred.conj()).sum(1, keepdims=True) / (abs(centred) ** 2).sum(1, keepdims=True)
    return a, goal - a * middle


def as_complex(points):
    """(..., 2) -> complex (...)."""
    return points[..., 0] + 1j * points[..., 1]


def mean_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Returns the Procrustes mean of landmarks (N, 68, 2): float32 (68, 2), middle 0, root mean square 1."""
    points = as_complex(landmarks.astype(np.float64))

    def normal(shape):
        shape = shape - shape.mean()
        return shape / np.sqrt((abs(shape) ** 2).mean())

    mean = normal(points[0])
    for _ in range(3):
        a, b = similarity(points, np.broadcast_to(mean, points.shape))
        mean = normal((a * points + b).mean(0))
    # Upright: the way the landmarks stand in the pictures.
    a, _ = similarity(mean[None], normal(points.mean(0))[None])
    mean = mean * (a[0, 0] / abs(a[0, 0]))
    return np.stack([mean.real, mean.imag], -1).astype(np.float32)


def describe(light, landmarks, mean, config: RefinerConfig):
    """Returns descriptions (N, D) and the turn and scale (N, 1), complex, from the mean's frame to the picture's.

    Args:
        light: float32 (N, S, S). landmarks: float32 (N, 68, 2). mean: (68, 2).
    """
    import jax.numpy as jnp

    count, size = light.shape[:2]
    points = as_complex(landmarks)
    turn, _ = similarity(jnp.broadcast_to(as_complex(mean), points.shape), points)
    # One point more at each end of the patch: gradients are central differences.
    line = np.linspace(-config.patch, config.patch, config.grid + 2)
    around = (line[None, :] + 1j * line[:, None]).ravel().astype(np.complex64)
    at = points[..., None] + turn[..., None] * around
    x, y = jnp.clip(at.real, 0, size - 1.001), jnp.clip(at.imag, 0, size - 1.001)
    left, top = x.astype(jnp.int32), y.astype(jnp.int32)
    fx, fy = x - left, y - top
    n = jnp.arange(count)[:, None, None]
    upper = light[n, top, left] * (1 - fx) + light[n, top, left + 1] * fx
    lower = light[n, top + 1, left] * (1 - fx) + light[n, top + 1, left + 1] * fx
    values = (upper * (1 - fy) + lower * fy).reshape(count, NUM_LANDMARKS, config.grid + 2, config.grid + 2)
    along = (values[:, :, 1:-1, 2:] - values[:, :, 1:-1, :-2]) / 2
    down = (values[:, :, 2:, 1:-1] - values[:, :, :-2, 1:-1]) / 2
    strength = jnp.sqrt(along**2 + down**2 + 1e-12)
    angle = jnp.arctan2(down, along) * (config.bins / (2 * np.pi))
    # A gradient counts for the two bins nearest to it, and for the cells nearest to it.
    bins = jnp.arange(config.bins, dtype=jnp.float32)
    apart = abs((angle[..., None] - bins + config.bins / 2) % config.bins - config.bins / 2)
    votes = strength[..., None] * jnp.clip(1 - apart, 0, 1)
    centres = np.linspace(-0.75, 0.75, config.cells) * config.patch
    share = np.clip(1 - abs(line[None, 1:-1] - centres[:, None]) / (centres[1] - centres[0]), 0, 1).astype(np.float32)
    cells = jnp.einsum("ay,nlyxo->nlaxo", share, votes)
    cells = jnp.einsum("bx,nlaxo->nlabo", share, cells).reshape(count, NUM_LANDMARKS, -1)
    # A flat patch (below two levels of light) says little; one strong edge must not say everything.
    cells = cells / (jnp.linalg.norm(cells, axis=-1, keepdims=True) + 2.0)
    return (jnp.minimum(cells, 0.25) * 4).reshape(count, -1), turn


@functools.lru_cache(maxsize=4)
def _describe(config: RefinerConfig):
    import jax

    return jax.jit(functools.partial(describe, config=config))


@functools.lru_cache(maxsize=4)
def _step(config: RefinerConfig):
    import jax

    def step(light, landmarks, mean, down, up, bias):
        described, turn = describe(light, landmarks, mean, config)
        return moved(landmarks, (described @ down) @ up + bias, turn)

    return jax.jit(step)


def moved(landmarks, displacement, turn):
    """Adds displacements (N, 136) in the mean's frame to landmarks (N, 68, 2)."""
    import jax.numpy as jnp

    change = as_complex(displacement.reshape(landmarks.shape)) * turn
    return landmarks + jnp.stack([change.real, change.imag], -1)


def displacements(landmarks: np.ndarray, truth: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Returns what takes landmarks to the truth, in the mean's frame: (N, 136)."""
    change = as_complex(truth - landmarks) / np.asarray(turn)
    return np.stack([change.real, change.imag], -1).reshape(len(landmarks), -1).astype(np.float32)


def train(light: np.ndarray, detected: np.ndarray, truth: np.ndarray, config: RefinerConfig, seed: int = 0) -> Refiner:
    """Trains a cascade.

    Args:
        light: float32 (N, S, S), 0..255: the pictures' luma; contrast, brightness and noise are varied here.
        detected, truth: float32 (N, 68, 2) pixels.
    """
    rng = np.random.default_rng(seed)
    count = len(light)
    mean = mean_landmarks(truth)
    turn, _ = similarity(np.broadcast_to(as_complex(mean), truth.shape[:2]), as_complex(truth))
    errors = displacements(truth, detected, turn).reshape(truth.shape)
    starts = [detected]
    for _ in range(config.starts):
        # Another picture's error, either way round, so that the mean of what is seen is no error at all.
        scale = rng.choice([-1, 1], (count, 1, 1)) * rng.uniform(0.2, 1, (count, 1, 1))
        push = errors[rng.permutation(count)] * scale + rng.normal(0, config.shift, (count, 1, 2))
        starts.append(np.asarray(moved(truth, push.reshape(count, -1), turn)))
    points = np.concatenate(starts).astype(np.float32)
    goal, index = np.tile(truth, (len(starts), 1, 1)), np.tile(np.arange(count), len(starts))
    curve = rng.uniform(0.6, 1.6, (count, 1, 1)).astype(np.float32)
    light = 255 * (light / 255) ** curve * rng.uniform(0.6, 1.2, (count, 1, 1)).astype(np.float32)
    level = rng.uniform(0, 5, (count, 1, 1)).astype(np.float32)
    light += level * rng.standard_normal(light.shape, np.float32)
    stages = []
    for _ in range(config.stages):
        parts = [
            _describe(config)(light[index[first : first + _BATCH]], points[first : first + _BATCH], mean)
            for first in range(0, len(points), _BATCH)
        ]
        described = np.concatenate([np.asarray(part[0]) for part in parts])
        turn = np.concatenate([np.asarray(part[1]) for part in parts])
        if not stages:
            middle, span, known = _known(described[:count], config)
        stages.append(_regress(described, displacements(points, goal, turn), config))
        down, up, bias = stages[-1]
        points = np.asarray(moved(points, (described @ down) @ up + bias, turn))
    down, up, bias = (np.stack(part).astype(np.float32) for part in zip(*stages, strict=True))
    return Refiner(config, mean, down, up, bias, middle, span, known)


def _known(described: np.ndarray, config: RefinerConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean and main directions of descriptions, and what share beside them pictures have that gave none."""
    split = len(described) - max(len(described) // config.held_out, 1)
    others = _directions(described[:split], config.directions)
    known = np.quantile(share_beside(described[split:], *others), config.quantile)
    return *_directions(described, config.directions), np.float32(known)


def _directions(inputs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean (D,) and the main directions (count, D), unit length, of descriptions (N, D)."""
    middle = inputs.mean(0)
    centred = inputs - middle
    _, vectors = np.linalg.eigh(centred @ centred.T)
    span = vectors[:, ::-1][:, :count].T @ centred
    return middle, span / np.maximum(np.linalg.norm(span, axis=1, keepdims=True), 1e-9)


def _regress(inputs: np.ndarray, outputs: np.ndarray, config: RefinerConfig):
    """Ridge regression of a low rank, solved in the space of the samples: (D, R), (R, 136), (136,)."""
    middle, goal = inputs.mean(0), outputs.mean(0)
    centred = inputs - middle
    kernel = centred @ centred.T
    kernel[np.diag_indices(len(kernel))] += config.ridge * np.trace(kernel)
    weights = centred.T @ np.linalg.solve(kernel, outputs - goal)
    _, _, directions = np.linalg.svd(centred @ weights, full_matrices=False)
    up = directions[: config.rank]
    down = weights @ up.T
    return down, up, goal - (middle @ down) @ up


def save_refiner(directory, refiner: Refiner, extra: dict) -> None:
    """Writes a refiner (models/io.py); the regressions in half precision, the directions in bytes."""
    arrays = {"mean": refiner.mean, "bias": refiner.bias, "known": refiner.known}
    arrays |= {name: getattr(refiner, name).astype(np.float16) for name in ("down", "up", "middle")}
    scale = np.maximum(abs(refiner.span).max(1, keepdims=True), 1e-9) / 127
    arrays |= {"span": np.round(refiner.span / scale).astype(np.int8), "span_scale": scale.astype(np.float32)}
    save_model(directory, KIND, refiner.config, arrays, extra)


@load_once(2)
def load_refiner(directory: str | None = None) -> Refiner:
    """Returns a refiner; without a directory, the embedded one. InputError if the directory holds another kind."""
    path = EMBEDDED if directory is None else directory
    kind, config, arrays, meta = load_model(path)
    if kind != KIND:
        raise InputError(f"{path}: expected a {KIND}, found a {kind}")
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    arrays["span"] *= arrays.pop("span_scale")
    return Refiner(RefinerConfig(**config), **arrays, weights_sha256=meta.weights_sha256)
