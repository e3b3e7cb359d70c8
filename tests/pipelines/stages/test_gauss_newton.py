"""The step solves the normal equations that it is given."""

import jax.numpy as jnp
import numpy as np

from pipelines.stages.face_points import FaceState
from pipelines.stages.gauss_newton import Normal, Priors, neighbours, normal_equations, solve_positive, take_step

FRAMES, EXPRESSIONS, SHAPES = 4, 3, 2


def rows(seed=0, count=40):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(FRAMES, count, 6 + EXPRESSIONS)).astype(np.float32),
        rng.normal(size=(FRAMES, count, SHAPES)).astype(np.float32),
        rng.normal(size=(FRAMES, count)).astype(np.float32) * 0.01,
    )


def still():
    return FaceState(
        jnp.zeros(SHAPES),
        jnp.zeros((FRAMES, EXPRESSIONS)),
        jnp.broadcast_to(jnp.eye(3), (FRAMES, 3, 3)),
        jnp.broadcast_to(jnp.array([0.0, 0, 1.5]), (FRAMES, 3)),
    )


def priors(smooth=0.0, bound=1.0):
    count = 6 + EXPRESSIONS
    edge = np.full(EXPRESSIONS, bound, np.float32)
    return Priors(np.zeros(count), np.full(count, smooth), 0.0, 3.0, -edge, edge, 0.0)


def test_positive_systems_are_solved():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 7, 7))
    matrices = (root @ root.transpose(0, 2, 1) + np.eye(7)).astype(np.float32)
    right = rng.normal(size=(5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(solve_positive(matrices, right), np.linalg.solve(matrices, right), atol=1e-3)


def test_a_step_is_the_least_squares_solution_of_all_frames():
    jacobian, shape_jacobian, residual = rows()
    mask = jnp.ones(FRAMES)
    normal = normal_equations(jacobian, shape_jacobian, lambda values: values, residual, mask)
    moved = take_step(still(), normal, priors(), mask, 1.0, 1.0)
    # The same as one large system: every frame's own columns, and the shape's.
    size = 6 + EXPRESSIONS
    count = residual.shape[1]
    whole = np.zeros((FRAMES * count, FRAMES * size + SHAPES))
    for t in range(FRAMES):
        whole[t * count : (t + 1) * count, t * size : (t + 1) * size] = jacobian[t]
        whole[t * count : (t + 1) * count, -SHAPES:] = shape_jacobian[t]
    expected = np.linalg.lstsq(whole, residual.ravel(), rcond=None)[0]
    np.testing.assert_allclose(moved.shape, expected[-SHAPES:], atol=1e-4)
    frames = expected[:-SHAPES].reshape(FRAMES, size)
    np.testing.assert_allclose(moved.expression, frames[:, 6:], atol=1e-4)
    np.testing.assert_allclose(moved.translation[:, :2], frames[:, 3:5], atol=1e-4)


def test_a_held_shape_moves_less():
    jacobian, shape_jacobian, residual = rows()
    mask, at = jnp.ones(FRAMES), jnp.array([0.3, -0.2])
    normal = normal_equations(jacobian, shape_jacobian, lambda values: values, residual, mask)
    start = still()._replace(shape=at)
    moved = [
        take_step(start, normal.holding(start.shape, at, weight), priors(), mask, 1.0, 1.0).shape - at
        for weight in (0.0, 20.0, 1e6)
    ]
    assert np.linalg.norm(moved[0]) > 1.2 * np.linalg.norm(moved[1]) > 0 and np.abs(moved[2]).max() < 1e-5
    # Somewhere else, it is pulled back.
    away = take_step(still(), normal.holding(still().shape, at, 1e6), priors(), mask, 1.0, 1.0)
    np.testing.assert_allclose(away.shape, at, atol=1e-4)


def test_padding_frames_do_not_count():
    jacobian, shape_jacobian, residual = rows()
    mask = jnp.array([1.0, 1, 1, 0])

    def shape_of(scale):
        wild = residual * np.array([1, 1, 1, scale], np.float32)[:, None]
        normal = normal_equations(jacobian, shape_jacobian, lambda values: values, wild, mask)
        return take_step(still(), normal, priors(), mask, 1.0, 1.0).shape

    np.testing.assert_allclose(shape_of(1), shape_of(100), atol=1e-5)


def test_bounds_hold_and_the_pose_moves_alone_at_first():
    jacobian, shape_jacobian, residual = rows()
    mask = jnp.ones(FRAMES)
    normal = normal_equations(jacobian, shape_jacobian, lambda values: values, 1000 * residual, mask)
    bounded = take_step(still(), normal, priors(bound=0.1), mask, 1.0, 1.0)
    assert float(jnp.abs(bounded.expression).max()) <= 0.1 + 1e-6
    early = take_step(still(), normal, priors(), mask, 1.0, 0.0)
    assert not early.expression.any() and not early.shape.any() and early.translation[:, 0].any()


def test_neighbours_pull_together():
    state = still()._replace(
        expression=jnp.asarray(np.arange(FRAMES, dtype=np.float32)[:, None] * np.ones(EXPRESSIONS))
    )
    pull = neighbours(state, jnp.array([1.0, 1, 1, 0]))
    np.testing.assert_allclose(pull[:, 6], [1, 0, -1, 0])
    nothing = Normal(*(jnp.zeros(shape) for shape in ((4, 9, 9), (4, 9), (4, 9, 2), (2, 2), (2,))))
    strong = Priors(np.zeros(9), np.ones(9), 1.0, 3.0, np.full(3, -9), np.full(3, 9), 1e-6)
    smoothed = take_step(state, nothing, strong, jnp.ones(4), 1.0, 1.0)
    assert float(jnp.ptp(smoothed.expression[:, 0])) < 3
