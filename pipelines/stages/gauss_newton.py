"""Gauss-Newton for a face in a clip, in JAX: normal equations of all frames, and the step that solves them.

The shape couples the frames: it is solved for first, by a Schur complement. Smoothness in time couples neighbours: the
step takes the chain's largest eigenvalue for its diagonal (a majoriser), so that all frames move at once and never
overshoot.

einsum alphabet: t frames, m residual rows, p parameters of a frame (rotation, translation, expression), q another such,
s shape coefficients, r another such.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipelines.stages.face_points import FaceState, exponential, small_logarithm


class Normal(NamedTuple):
    """Normal equations: hessian (T, P, P), ascent (T, P), coupling (T, P, Ns); means over the clip's frames:
    shape_hessian (Ns, Ns), shape_ascent (Ns,). P = 6 + Ne.
    """

    hessian: Any
    ascent: Any
    coupling: Any
    shape_hessian: Any
    shape_ascent: Any

    def plus(self, other: "Normal", weight=1.0) -> "Normal":
        """Returns this + weight x other."""
        return Normal(*(mine + weight * its for mine, its in zip(self, other, strict=True)))

    def holding(self, shape, at, weight) -> "Normal":
        """Returns this + weight x |shape - at|^2 / 2."""
        import jax.numpy as jnp

        return self._replace(
            shape_hessian=self.shape_hessian + weight * jnp.eye(len(shape)),
            shape_ascent=self.shape_ascent - weight * (shape - at),
        )


@dataclass(frozen=True, eq=False)
class Priors:
    """What holds the parameters: frame prior and smoothness (P,), the shape's prior and bound, lowest and highest
    expression (Ne,), damping.
    """

    frame: np.ndarray
    smoothness: np.ndarray
    shape: float
    shape_bound: float
    lowest: np.ndarray
    highest: np.ndarray
    damping: float


def normal_equations(jacobian, shape_jacobian, weigh, residual, mask) -> Normal:
    """Sums residual rows up.

    Args:
        jacobian: (T, M, P). shape_jacobian: (T, M, Ns). residual: (T, M).
        weigh: multiplies rows (T, M, ...) with their symmetric weight matrix.
        mask: (T,), 1 for frames of the clip.
    """
    import jax.numpy as jnp

    weighted, weighted_shape = weigh(jacobian), weigh(shape_jacobian)
    share = mask / mask.sum()
    masked = shape_jacobian * share[:, None, None]
    return Normal(
        jnp.swapaxes(weighted, 1, 2) @ jacobian,
        jnp.einsum("tmp,tm->tp", weighted, residual),
        jnp.swapaxes(weighted, 1, 2) @ shape_jacobian,
        jnp.einsum("tms,tmr->sr", weighted_shape, masked),
        jnp.einsum("tms,tm->s", weighted_shape * share[:, None, None], residual),
    )


def neighbours(state: FaceState, mask):
    """Returns the sum over a frame's neighbours of (neighbour - frame) for every frame parameter: (T, P)."""
    import jax.numpy as jnp

    link = mask[1:] * mask[:-1]  # a neighbour counts if both frames are part of the clip

    def both_ways(step):
        step = step * link[:, None]
        return jnp.pad(step, ((0, 1), (0, 0))) - jnp.pad(step, ((1, 0), (0, 0)))

    _, expression, rotation, translation = state
    turn = small_logarithm(rotation[1:] @ jnp.swapaxes(rotation[:-1], -1, -2))
    steps = [turn, translation[1:] - translation[:-1], expression[1:] - expression[:-1]]
    return both_ways(jnp.concatenate(steps, 1))


def solve_positive(matrices, right):
    """Solves positive definite systems by Gauss-Jordan elimination: (T, P, P), (T, P, R) -> (T, P, R).

    All systems at once, in plain array operations: LAPACK's threads spin against each other on a busy machine, and
    XLA's batched triangular solve is slow on CPUs. A positive definite matrix needs no pivoting.
    """
    import jax
    import jax.numpy as jnp

    size = matrices.shape[1]
    table = jnp.transpose(jnp.concatenate([matrices, right], -1), (1, 2, 0))  # [row, column, system]

    def eliminate(k, table):
        row = table[k] / table[k, k]
        return (table - table[:, k, None] * row).at[k].set(row)

    return jnp.transpose(jax.lax.fori_loop(0, size, eliminate, table)[:, size:], (2, 0, 1))


def take_step(state: FaceState, normal: Normal, priors: Priors, mask, pace, free) -> FaceState:
    """Returns the state after one step.

    Args:
        mask: (T,), 1 for frames of the clip. pace: factor on the smoothness.
        free: 1, or 0 to move the pose alone, unsmoothed.
    """
    import jax.numpy as jnp

    shape, expression, rotation, translation = state
    frames, size = normal.ascent.shape
    smoothness = free * pace * priors.smoothness
    values = jnp.concatenate([jnp.zeros((frames, 6)), expression], 1)
    ascent = normal.ascent - priors.frame * values + smoothness * neighbours(state, mask)
    # 4 is the largest eigenvalue of a chain's Laplacian.
    hessian = normal.hessian + jnp.eye(size) * (priors.frame + 4 * smoothness + priors.damping)

    # A coefficient that sits on its bound and is pushed outward is left out of this step.
    down, up = ascent[:, 6:] < 0, ascent[:, 6:] > 0
    pushed = ((expression <= priors.lowest) & down) | ((expression >= priors.highest) & up)
    loose = jnp.concatenate([jnp.ones((frames, 6)), free * (1 - pushed)], 1)
    hessian = hessian * loose[:, :, None] * loose[:, None, :] + jnp.eye(size) * (1 - loose)[:, :, None]
    ascent = ascent * loose
    coupling = normal.coupling * (loose * mask[:, None])[..., None]

    right = jnp.concatenate([ascent[..., None], coupling], -1)
    solved = solve_positive(hessian, right)
    own, through = solved[..., 0], solved[..., 1:]  # [t, p], [t, p, s]
    count = mask.sum()
    shape_hessian = normal.shape_hessian + jnp.eye(len(shape)) * (priors.shape + priors.damping)
    reduced = shape_hessian - jnp.einsum("tps,tpr->sr", coupling, through) / count
    pull = normal.shape_ascent - priors.shape * shape - jnp.einsum("tps,tp->s", coupling, own) / count
    change = solve_positive(reduced[None], pull[None, :, None])[0, :, 0] * free
    move = own - jnp.einsum("tps,s->tp", through, change)

    # A step that would bring the head to the lens is cut: Gauss-Newton may overshoot from a far start.
    depth_step = jnp.clip(move[:, 5], -0.5 * translation[:, 2], translation[:, 2])
    return FaceState(
        jnp.clip(shape + change, -priors.shape_bound, priors.shape_bound),
        jnp.clip(expression + move[:, 6:], priors.lowest, priors.highest),
        exponential(move[:, :3]) @ rotation,
        translation + jnp.concatenate([move[:, 3:5], depth_step[:, None]], 1),
    )
