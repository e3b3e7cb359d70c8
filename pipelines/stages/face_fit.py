"""A 3DMM fitted to a clip's landmarks: one shape per clip, expression and head pose per frame.

The paper fits its 3DMM by optimisation; this is the landmark part of such a fit. Gauss-Newton on the reprojection error
of the 68 landmarks (region weights as in metrical-tracker: mouth and eyes high, contour low) plus the opening of lids
and lips as distances of their own, Gaussian priors on shape and expression, bounds on expression, and temporal
smoothness. All frames are solved at once: the shape couples them through a Schur complement, smoothness through a
majorised (block-Jacobi) step, so that there is no Python per frame and one compilation per bucket of frames.

einsum alphabet: t frames, l landmarks, m residual rows (landmarks, then pairs), p parameters of a frame (rotation,
translation, expression), q another such, s shape coefficients, r another such, c the three coordinates, i the two of
the image.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.face.camera import MODEL_TO_CAMERA, default_camera
from models.face.model import FaceModel
from models.signals import CROP_SIZE, NUM_LANDMARKS

BACKEND = "landmark-gauss-newton"

# Points whose distance says how open lids and lips are, upper and lower in turn.
_PAIRS = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))

# Names of expression directions that are actions, with nothing on the other side of zero.
_ONE_WAY = re.compile(
    "open|round|funnel|spread|press|close|raise|lower|smile|frown|puff|wrinkle|blink|squint|wide|tongue|forward"
)


@dataclass(frozen=True)
class FitConfig:
    """Weights of the fit. Residuals are in units of ``sigma`` x face size, so that any crop is fitted alike."""

    sigma: float = 0.01
    robust: float = 3.0
    contour_weight: float = 0.25
    brow_weight: float = 0.7
    nose_weight: float = 1.0
    eye_weight: float = 1.5
    lip_weight: float = 1.5
    pair_weight: float = 2.0
    shape_prior: float = 0.6
    expression_prior: float = 1.0
    expression_smoothness: float = 4.0
    rotation_smoothness: float = 2000.0
    translation_smoothness: float = 2e4
    shape_bound: float = 3.0
    damping: float = 1e-3
    pose_steps: int = 6
    steps: int = 14
    bucket: int = 192


@dataclass(frozen=True)
class FaceFit:
    """A fitted clip of T frames.

    shape float32 (Ns,); expression float32 (T, Ne); pose float32 (T, 6) axis-angle and translation in metres; camera
    float32 (3,) focal, cx, cy; reprojection_error: mean distance of all 68 landmarks in crop pixels; face_size: that of
    ``face_size``, in crop pixels.
    """

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    camera: np.ndarray
    reprojection_error: float
    face_size: float


def face_size(landmarks: np.ndarray) -> float:
    """Returns the clip's face size in pixels: mean over frames of the landmark box's sqrt(width x height)."""
    extent = landmarks.max(1) - landmarks.min(1)
    return float(np.sqrt(extent[:, 0] * extent[:, 1]).mean())


def expression_bounds(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and highest value of each expression coefficient, float32 (Ne,) each.

    A direction named after one action (jaw_open, smile, blink_left ...) has no opposite and starts at 0; one named
    after an axis or a side, or with a name that says nothing (as in FLAME), goes both ways.
    """
    one_way = [bool(_ONE_WAY.search(name)) for name in model.expression_names]
    return np.where(one_way, 0, -1).astype(np.float32), np.ones(model.num_expression, np.float32)


def fit_clip(landmarks: np.ndarray, model: FaceModel, config: FitConfig | None = None) -> FaceFit:
    """Fits the face model to a clip.

    Args:
        landmarks: float32 (T, 68, 2), crop pixels, iBUG-68 order.

    Returns:
        the fit; the same landmarks always give the same fit.

    Raises:
        InputError: landmarks of another shape or not finite.
    """
    config = config or FitConfig()
    landmarks = np.asarray(landmarks, np.float32)
    if landmarks.ndim != 3 or landmarks.shape[1:] != (NUM_LANDMARKS, 2) or not len(landmarks):
        raise InputError(f"landmarks: expected float (T, {NUM_LANDMARKS}, 2) with T > 0, got {landmarks.shape}")
    if not np.isfinite(landmarks).all():
        raise InputError("landmarks: expected finite numbers")
    frames = len(landmarks)
    size = face_size(landmarks)
    if size < 1:
        raise InputError(f"landmarks: the face is {size:.2f} pixels large")
    padded = -(-frames // config.bucket) * config.bucket
    camera = default_camera(CROP_SIZE)
    solve = _solver(model, config)
    shape, expression, rotation, translation, error = solve(
        np.pad(landmarks, ((0, padded - frames), (0, 0), (0, 0)), mode="edge"),
        (np.arange(padded) < frames).astype(np.float32),
        np.float32(size),
        camera,
    )
    pose = np.concatenate([axis_angles(np.asarray(rotation)[:frames]), np.asarray(translation)[:frames]], 1)
    return FaceFit(
        np.asarray(shape),
        np.asarray(expression)[:frames],
        pose.astype(np.float32),
        camera,
        float(np.asarray(error)[:frames].mean()),
        size,
    )


def axis_angles(rotation: np.ndarray) -> np.ndarray:
    """Returns the axis-angle vectors of rotation matrices below half a turn: (T, 3, 3) -> float64 (T, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(np.asarray(rotation, np.float64)).as_rotvec()


def _landmark_weights(config: FitConfig) -> np.ndarray:
    """Weights of the residual rows: 68 landmarks, then the pairs."""
    weights = np.empty(NUM_LANDMARKS + len(_PAIRS), np.float32)
    weights[:17] = config.contour_weight
    weights[17:27] = config.brow_weight
    weights[27:36] = config.nose_weight
    weights[36:48] = config.eye_weight
    weights[48:68] = config.lip_weight
    weights[68:] = config.pair_weight
    return weights


@functools.lru_cache(maxsize=4)
def _solver(model: FaceModel, config: FitConfig):
    """Returns the jitted solver of one face model; JAX compiles it once per number of frames."""
    import jax
    import jax.numpy as jnp

    small = model.landmark_model()
    mean = jnp.asarray(small.vertices * MODEL_TO_CAMERA)  # [l, c]
    shape_basis = jnp.asarray(small.shape_basis * MODEL_TO_CAMERA[:, None])  # [l, c, s]
    expression_basis = jnp.asarray(small.expression_basis * MODEL_TO_CAMERA[:, None])  # [l, c, p]
    lower, upper = (jnp.asarray(bound) for bound in expression_bounds(model))
    row_weights = jnp.asarray(_landmark_weights(config))
    above, below = (np.array(side) for side in zip(*_PAIRS, strict=True))
    num_shape, num_expression = model.num_shape, model.num_expression
    smoothness = jnp.concatenate(
        [
            jnp.full(3, config.rotation_smoothness),
            jnp.full(3, config.translation_smoothness),
            jnp.full(num_expression, config.expression_smoothness),
        ]
    )
    prior = jnp.concatenate([jnp.zeros(6), jnp.full(num_expression, config.expression_prior)])

    def cross_matrix(v):
        x, y, z = v[..., 0], v[..., 1], v[..., 2]
        zero = jnp.zeros_like(x)
        return jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)

    def with_pairs(values):
        """Appends the pairs' differences to what is given per landmark: (T, 68, ...) -> (T, M, ...)."""
        return jnp.concatenate([values, values[:, above] - values[:, below]], 1)

    def exponential(v):
        angle = jnp.sqrt((v * v).sum(-1) + 1e-12)[..., None, None]
        k = cross_matrix(v) / angle
        return jnp.eye(3) + jnp.sin(angle) * k + (1 - jnp.cos(angle)) * (k @ k)

    def small_logarithm(rotation):
        skew = (rotation - jnp.swapaxes(rotation, -1, -2)) / 2
        return jnp.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)

    def place(state, camera):
        """Returns rotated points, camera points and pixels, each (T, 68, ...)."""
        shape, expression, rotation, translation = state
        face = mean + jnp.einsum("lcs,s->lc", shape_basis, shape)
        face = face + jnp.einsum("lcp,tp->tlc", expression_basis, expression)
        rotated = jnp.einsum("tcd,tld->tlc", rotation, face)
        points = rotated + translation[:, None]
        return rotated, points, points[..., :2] / points[..., 2:] * camera[0] + camera[1:]

    def contour_visibility(rotation):
        """How far each contour landmark can be trusted: on the side that turns away it slides along the silhouette."""
        # The face looks along -z of the camera turned by the rotation; x of that is the sine of the yaw, > 0 to the
        # right.
        yaw = -rotation[:, 0, 2]
        side = jnp.concatenate([-jnp.ones(8), jnp.zeros(1), jnp.ones(8)])  # landmarks 0-7 lie on the image's left
        turned_away = jnp.clip(yaw[:, None] * side / 0.5, 0, 1)
        return jnp.concatenate([1 - 0.95 * turned_away, jnp.ones((rotation.shape[0], len(row_weights) - 17))], 1)

    def solve(landmarks, mask, size, camera):
        frames = landmarks.shape[0]
        unit = config.sigma * size
        # A neighbour counts if both frames are part of the clip.
        link = mask[1:] * mask[:-1]
        before, after = jnp.pad(link, (1, 0)), jnp.pad(link, (0, 1))

        def neighbours(rotation, translation, expression):
            """Sum over neighbours of (neighbour - this) for every frame parameter: (T, 6 + Ne)."""

            def difference(values):
                step = values[1:] - values[:-1]
                pad = [(0, 0)] * (values.ndim - 1)
                return jnp.pad(step, [(0, 1), *pad]) * after[:, None] - jnp.pad(step, [(1, 0), *pad]) * before[:, None]

            turn = small_logarithm(rotation[1:] @ jnp.swapaxes(rotation[:-1], -1, -2))
            turn = jnp.pad(turn, ((0, 1), (0, 0))) * after[:, None] - jnp.pad(turn, ((1, 0), (0, 0))) * before[:, None]
            return jnp.concatenate([turn, difference(translation), difference(expression)], 1)

        def step(state, free):
            shape, expression, rotation, translation = state
            rotated, points, pixels = place(state, camera)
            depth = points[..., 2]
            zero = jnp.zeros_like(depth)
            lens = jnp.stack(
                [
                    jnp.stack([1 / depth, zero, -points[..., 0] / depth**2], -1),
                    jnp.stack([zero, 1 / depth, -points[..., 1] / depth**2], -1),
                ],
                -2,
            ) * (camera[0] / unit)  # [t, l, i, c]
            turned = jnp.einsum("tlic,tcd->tlid", lens, rotation)
            jacobian = jnp.concatenate(
                [
                    -lens @ cross_matrix(rotated),
                    lens,
                    jnp.einsum("tlid,ldp->tlip", turned, expression_basis),
                ],
                -1,
            )  # [t, l, i, p]
            shape_jacobian = jnp.einsum("tlid,lds->tlis", turned, shape_basis)
            residual = with_pairs(landmarks - pixels) / unit
            jacobian = with_pairs(jacobian).reshape(frames, -1, 6 + num_expression)
            shape_jacobian = with_pairs(shape_jacobian).reshape(frames, -1, num_shape)
            # Huber's weights, so that one wild landmark does not bend the face.
            distance = jnp.sqrt((residual**2).sum(-1) + 1e-9)
            weight = row_weights * contour_visibility(rotation) * jnp.minimum(1, config.robust / distance)
            weight = jnp.repeat(weight, 2, axis=1)
            residual = residual.reshape(frames, -1)

            weighted = jacobian * weight[..., None]
            hessian = jnp.swapaxes(weighted, 1, 2) @ jacobian  # [t, p, q]
            ascent = jnp.einsum("tmp,tm->tp", weighted, residual)
            values = jnp.concatenate([jnp.zeros((frames, 6)), expression], 1)
            ascent = ascent - prior * values + free * smoothness * neighbours(rotation, translation, expression)
            # 4 = the largest eigenvalue of a chain's Laplacian: with it the parallel step never overshoots.
            diagonal = prior + 4 * free * smoothness + config.damping
            hessian = hessian + jnp.eye(6 + num_expression) * diagonal

            # A coefficient that sits on its bound and is pushed outward is left out of this step.
            pushed = ((expression <= lower) & (ascent[:, 6:] < 0)) | ((expression >= upper) & (ascent[:, 6:] > 0))
            loose = jnp.concatenate([jnp.ones((frames, 6)), free * (1 - pushed)], 1)
            hessian = (
                hessian * loose[:, :, None] * loose[:, None, :]
                + jnp.eye(6 + num_expression) * ((1 - loose)[:, :, None])
            )
            ascent = ascent * loose

            shape_weighted = shape_jacobian * (weight * mask[:, None])[..., None]
            coupling = (jnp.swapaxes(weighted, 1, 2) @ shape_jacobian) * (loose * mask[:, None])[..., None]  # [t, p, s]
            count = mask.sum()
            shape_hessian = jnp.einsum("tms,tmr->sr", shape_weighted, shape_jacobian) / count
            shape_ascent = jnp.einsum("tms,tm->s", shape_weighted, residual) / count
            shape_hessian = shape_hessian + jnp.eye(num_shape) * (config.shape_prior + config.damping)
            shape_ascent = shape_ascent - config.shape_prior * shape

            factor = jax.scipy.linalg.cho_factor(hessian)
            solved = jax.scipy.linalg.cho_solve(factor, jnp.concatenate([ascent[..., None], coupling], -1))
            own, through = solved[..., 0], solved[..., 1:]  # [t, p], [t, p, s]
            reduced = shape_hessian - jnp.einsum("tps,tpr->sr", coupling, through) / count
            reduced_ascent = shape_ascent - jnp.einsum("tps,tp->s", coupling, own) / count
            change = jnp.linalg.solve(reduced, reduced_ascent) * free
            move = own - jnp.einsum("tps,s->tp", through, change)

            shape = jnp.clip(shape + change, -config.shape_bound, config.shape_bound)
            expression = jnp.clip(expression + move[:, 6:], lower, upper)
            rotation = exponential(move[:, :3]) @ rotation
            # A step that would bring the head to the lens is cut: Gauss-Newton may overshoot from a far start.
            depth_step = jnp.clip(move[:, 5], -0.5 * translation[:, 2], translation[:, 2])
            translation = translation + jnp.concatenate([move[:, 3:5], depth_step[:, None]], 1)
            return (shape, expression, rotation, translation), None

        # Start: the mean face, upright, where the landmark box is.
        low, high = landmarks.min(1), landmarks.max(1)
        extent = mean.max(0) - mean.min(0)
        depth = camera[0] * extent[1] / (high - low)[:, 1]
        middle = (mean.max(0) + mean.min(0)) / 2
        start = ((low + high) / 2 - camera[1:]) * (depth / camera[0])[:, None] - middle[:2]
        state = (
            jnp.zeros(num_shape),
            jnp.zeros((frames, num_expression)),
            jnp.broadcast_to(jnp.eye(3), (frames, 3, 3)),
            jnp.concatenate([start, depth[:, None]], 1),
        )
        free = (jnp.arange(config.pose_steps + config.steps) >= config.pose_steps).astype(jnp.float32)
        state, _ = jax.lax.scan(step, state, free)
        shape, expression, rotation, translation = state
        pixels = place(state, camera)[2]
        error = jnp.sqrt(((pixels - landmarks) ** 2).sum(-1)).mean(1)
        return shape, expression, rotation, translation, error

    return jax.jit(solve)
