"""Gaussian mixtures of weighted points: the colour-and-place models of segmentation.

einsum alphabet: n points, k components, d e dimensions.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture: log_weights (K,), means (K, D), whiteners (K, D, D) with whitener @ covariance @ whitener.T =
    I.
    """

    log_weights: np.ndarray
    means: np.ndarray
    whiteners: np.ndarray

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Returns the natural log of the density: float32 (N, D) -> float32 (N,)."""
        return _log_sum(self.component_log_density(points))

    def first_dimensions(self, count: int) -> "Mixture":
        """Returns the distribution of the first dimensions alone."""
        covariances = np.linalg.inv(np.swapaxes(self.whiteners, 1, 2) @ self.whiteners)[:, :count, :count]
        whiteners = np.linalg.inv(np.linalg.cholesky(covariances.astype(np.float64)))
        return Mixture(self.log_weights, self.means[:, :count], whiteners.astype(np.float32))

    def component_log_density(self, points: np.ndarray) -> np.ndarray:
        """Returns log(weight x density) of each component: (N, D) -> (K, N)."""
        count, size = self.means.shape
        # One matrix product for all components; components and dimensions first, because numpy sums those fast.
        whitened = self.whiteners.reshape(count * size, size) @ np.ascontiguousarray(points.T)
        whitened -= np.einsum("kde,ke->kd", self.whiteners, self.means).reshape(-1, 1)
        squared = np.square(whitened, out=whitened).reshape(count, size, -1).sum(1)
        log_determinant = np.log(np.abs(np.einsum("kdd->kd", self.whiteners))).sum(1)
        constant = self.log_weights + log_determinant - 0.5 * size * np.log(2 * np.pi)
        return constant[:, None].astype(np.float32) - np.float32(0.5) * squared


def _log_sum(values: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials over the first axis."""
    top = values.max(0)
    return top + np.log(np.exp(values - top).sum(0))


def nowhere(size: int) -> Mixture:
    """Returns the mixture of a class without points: far from all that can be seen, in ``size`` dimensions."""
    return Mixture(
        np.zeros(1, np.float32), np.full((1, size), 1e3, np.float32), np.eye(size, dtype=np.float32)[None] / 30
    )


def fit_mixture(
    points: np.ndarray, weights: np.ndarray, components: int, iterations: int, floor: np.ndarray, start: Mixture | None
) -> Mixture:
    """Fits a mixture by expectation-maximisation.

    Args:
        points: float32 (N, D).
        weights: float32 (N,), at least 0: how much of each point belongs to this mixture.
        components: K.
        floor: (D,) variance added to every component, so that none collapses on one colour.
        start: continue from this mixture; None starts from spread-out points (farthest-point order, no randomness).
    """
    keep = weights > 1e-3
    points, weights = points[keep], weights[keep]
    if start is None:
        centres = _spread_points(points, weights, components, floor)
        scale = 1 / np.sqrt(floor)
        nearest = np.stack([((points - centre) ** 2 @ scale**2) for centre in centres]).argmin(0)
        share = np.eye(len(centres), dtype=np.float32)[:, nearest]
        start = _maximise(points, weights * share, floor)
    mixture = start
    for _ in range(iterations):
        log_density = mixture.component_log_density(points)
        share = np.exp(log_density - _log_sum(log_density))
        mixture = _maximise(points, weights * share, floor)
    return mixture


def _spread_points(points: np.ndarray, weights: np.ndarray, count: int, floor: np.ndarray) -> np.ndarray:
    """Picks points far from each other, starting at the mean; each new one has the largest weighted distance."""
    scaled = points / np.sqrt(floor)
    mean = (weights[:, None] * scaled).sum(0) / weights.sum()
    chosen = [((scaled - mean) ** 2).sum(1).argmin()]
    distance = ((scaled - scaled[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        # The root keeps a lone outlier from winning over a populated place.
        chosen.append(int((np.sqrt(distance) * weights).argmax()))
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def _maximise(points: np.ndarray, share: np.ndarray, floor: np.ndarray) -> Mixture:
    """The mixture of points (N, D) that belong to components by share (K, N)."""
    total = share.sum(1) + 1e-6
    means = share @ points / total[:, None]
    size = points.shape[1]
    covariances = np.empty((len(total), size, size))
    for k in range(len(total)):
        centred = points - means[k]
        covariances[k] = (centred.T * share[k]) @ centred / total[k] + np.diag(floor)
    # The inverse of the Cholesky factor whitens, and is triangular: its diagonal gives the determinant.
    whiteners = np.linalg.inv(np.linalg.cholesky(covariances))
    log_weights = np.log(total / total.sum())
    return Mixture(log_weights.astype(np.float32), means.astype(np.float32), whiteners.astype(np.float32))
