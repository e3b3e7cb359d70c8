"""A 3DMM fitted to a clip: one shape for all frames; expression with the jaw and the gaze, and head pose, per frame.

The paper fits its 3DMM by optimisation. Here it is Gauss-Newton on all frames at once, in two rounds:

- landmarks: the reprojection error of the 68 landmarks (region weights: mouth and eyes high, contour low), the opening
  of lids and lips as distances of their own, and, if there are pixels, the irises (pipelines/stages/iris.py); pixels
  first bring the detector's landmarks closer to what they show (models/landmark_refiner.py);
- photometric, if there are pixels: dense points whose colour must be albedo times spherical-harmonics light
  (pipelines/stages/face_photometric.py), with the landmarks as anchors.

Gaussian priors on shape and expression, bounds on expression, temporal smoothness in both. The shape couples the frames
through a Schur complement, smoothness through a majorised (block-Jacobi) step, so that there is no Python per frame and
one compilation per bucket of frames. The camera is the crop's portrait lens (models/face/camera.py): its focal length
cannot be told from landmarks, so it is not solved for.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from models.errors import InputError
from models.face.camera import MODEL_TO_CAMERA, default_camera
from models.face.model import FaceModel
from models.signals import CROP_SIZE, NUM_LANDMARKS
from pipelines.stages.face_photometric import PhotometricConfig
from pipelines.stages.face_points import FacePoints, FaceState, face_points, iris_points
from pipelines.stages.gauss_newton import Normal, Priors, normal_equations, take_step

# What a fit is called in the dataset: with pixels, and without them.
PIXELS, LANDMARKS_ONLY = "photometric-gauss-newton", "landmark-gauss-newton"

# Points whose distance says how open lids and lips are, upper and lower in turn.
_PAIRS = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))
# How far the joints' angles usually go, in radians: jaw x, y, z and gaze x, y. Blend coefficients go about 1 far.
_ANGLE_SIZES = (0.2, 0.05, 0.05, 0.3, 0.3)


@dataclass(frozen=True)
class FitConfig:
    """Weights of the fit. Residuals are in units of ``sigma`` x face size, so that any crop is fitted alike."""

    sigma: float = 0.01
    robust: float = 3.0
    contour_weight: float = 0.8
    brow_weight: float = 0.7
    nose_weight: float = 1.0
    eye_weight: float = 1.5
    lip_weight: float = 1.5
    pair_weight: float = 2.0
    iris_weight: float = 1.0
    shape_prior: float = 0.6
    expression_prior: float = 1.0
    expression_smoothness: float = 4.0
    rotation_smoothness: float = 2000.0
    translation_smoothness: float = 2e4
    shape_bound: float = 3.0
    damping: float = 1e-3
    pose_steps: int = 6
    steps: int = 14
    refine: bool = True
    bucket: int = 160
    photometric: PhotometricConfig = PhotometricConfig()


@dataclass(frozen=True)
class FaceFit:
    """A fitted clip of T frames.

    shape float32 (Ns,); expression float32 (T, Ne); pose float32 (T, 6) axis-angle and translation in metres; camera
    float32 (3,) focal, cx, cy; reprojection_error: mean distance of all 68 landmarks, as they were given, in crop
    pixels; face_size: that of ``face_size``, in crop pixels; photometric_error: mean difference of the dense points'
    colours, 0..1, or NaN without pixels.
    """

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    camera: np.ndarray
    reprojection_error: float
    face_size: float
    photometric_error: float = float("nan")


class Observed(NamedTuple):
    """What a clip shows: points (T, 70, 2), 68 landmarks and two irises, in camera pixels; trust (T, 2) in the irises;
    mask (T,) 1 for frames of the clip; size of the face, pixels; camera (3,); pace, a factor on the smoothness.
    """

    points: Any
    trust: Any
    mask: Any
    size: Any
    camera: Any
    pace: Any


def face_size(landmarks: np.ndarray) -> float:
    """Returns the clip's face size in pixels: mean over frames of the landmark box's sqrt(width x height)."""
    extent = landmarks.max(1) - landmarks.min(1)
    return float(np.sqrt(extent[:, 0] * extent[:, 1]).mean())


def fit_clip(
    landmarks: np.ndarray,
    model: FaceModel,
    config: FitConfig | None = None,
    frames: np.ndarray | None = None,
    stride: int = 1,
) -> FaceFit:
    """Fits the face model to a clip.

    Args:
        landmarks: float32 (T, 68, 2), crop pixels (the centre of a first pixel is 0), iBUG-68 order.
        frames: uint8 (T, 256, 256, 3), the pixels; without them the photometric round and the gaze are left out, and
            the gaze is 0.
        stride: video frames from one row of landmarks to the next; smoothness asks less of rows that are far apart.

    Returns:
        the fit; the same input always gives the same fit.

    Raises:
        InputError: landmarks or frames of another shape, or landmarks that are not finite.
    """
    config = config or FitConfig()
    landmarks = np.asarray(landmarks, np.float32)
    if landmarks.ndim != 3 or landmarks.shape[1:] != (NUM_LANDMARKS, 2) or not len(landmarks):
        raise InputError(f"landmarks: expected float (T, {NUM_LANDMARKS}, 2) with T > 0, got {landmarks.shape}")
    if not np.isfinite(landmarks).all():
        raise InputError("landmarks: expected finite numbers")
    count = len(landmarks)
    if frames is not None and frames.shape != (count, CROP_SIZE, CROP_SIZE, 3):
        raise InputError(f"frames: expected uint8 ({count}, {CROP_SIZE}, {CROP_SIZE}, 3), got {frames.shape}")
    size = face_size(landmarks)
    if size < 1:
        raise InputError(f"landmarks: the face is {size:.2f} pixels large")
    padded = -(-count // config.bucket) * config.bucket
    camera = default_camera(CROP_SIZE)

    def pad(values):
        return np.pad(values, ((0, padded - count), *((0, 0),) * (values.ndim - 1)), mode="edge")

    used, irises, trust = landmarks, np.zeros((count, 2, 2), np.float32), np.zeros((count, 2), np.float32)
    if frames is not None:
        from models.landmark_refiner import load_refiner
        from pipelines.stages.iris import find_irises
        from pipelines.stages.landmarks import fill_and_smooth

        if config.refine:
            used = fill_and_smooth(load_refiner().refine(frames, landmarks))
        irises, trust = find_irises(frames, used)
    # A camera's pixel starts where its edge is, a landmark's where its centre is.
    seen = np.concatenate([used, irises], 1) + 0.5
    observed = Observed(
        points=pad(seen),
        trust=pad(trust),
        mask=(np.arange(padded) < count).astype(np.float32),
        size=np.float32(size),
        camera=camera,
        pace=np.float32(1 / stride**2),
    )
    solver = replace(config, refine=True)  # no part of the programs: one is compiled for both
    state = _landmark_solver(model, solver, gaze=frames is not None)(observed)
    colour_error = np.full(padded, np.nan)
    if frames is not None and config.photometric.rounds:
        state, colour_error = _photometric_solver(model, solver)(state, observed, pad(frames))
    gap = np.asarray(_projector(model)(state, camera))[:count] - (landmarks + 0.5)
    shape, expression, rotation, translation = (np.asarray(part) for part in state)
    pose = np.concatenate([axis_angles(rotation[:count]), translation[:count]], 1)
    return FaceFit(
        shape,
        expression[:count],
        pose.astype(np.float32),
        camera,
        float(np.linalg.norm(gap, axis=-1).mean()),
        size,
        float(np.asarray(colour_error)[:count].mean()),
    )


def axis_angles(rotation: np.ndarray) -> np.ndarray:
    """Returns the axis-angle vectors of rotation matrices below half a turn: (T, 3, 3) -> float64 (T, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(np.asarray(rotation, np.float64)).as_rotvec()


# --- The solvers of one face model. JAX compiles each once per number of frames. ---


@functools.lru_cache(maxsize=4)
def _landmark_points(model: FaceModel) -> FacePoints:
    """The 68 landmarks and, where the model's eyes turn, the two irises."""
    irises = iris_points(model)
    faces, corners = [model.landmark_faces], [model.landmark_barycentric]
    if irises is not None:
        faces, corners = [*faces, irises[0]], [*corners, irises[1]]
    return face_points(model, np.concatenate(faces), np.concatenate(corners))


def _priors(model: FaceModel, config: FitConfig, gaze: bool) -> Priors:
    sizes = np.ones(model.num_expression, np.float32)
    sizes[-len(_ANGLE_SIZES) :] = _ANGLE_SIZES
    lowest, highest = model.expression_range.T.copy()
    if not gaze:  # lids alone do not tell where the eyes look
        lowest[-2:] = highest[-2:] = 0
    return Priors(
        frame=np.concatenate([np.zeros(6), config.expression_prior / sizes**2]).astype(np.float32),
        smoothness=np.concatenate(
            [
                np.full(3, config.rotation_smoothness),
                np.full(3, config.translation_smoothness),
                config.expression_smoothness / sizes**2,
            ]
        ).astype(np.float32),
        shape=config.shape_prior,
        shape_bound=config.shape_bound,
        lowest=lowest,
        highest=highest,
        damping=config.damping,
    )


def _landmark_term(model: FaceModel, config: FitConfig):
    """Returns the term of landmarks, pairs and irises: (state, Observed) -> Normal."""
    import jax.numpy as jnp

    points = _landmark_points(model)
    above, below = (np.array(side) for side in zip(*_PAIRS, strict=True))
    weights = np.empty(NUM_LANDMARKS, np.float32)
    weights[:17] = config.contour_weight
    weights[17:27] = config.brow_weight
    weights[27:36] = config.nose_weight
    weights[36:48] = config.eye_weight
    weights[48:68] = config.lip_weight
    has_irises = len(points.normals) > NUM_LANDMARKS

    def with_pairs(values):
        """Appends the pairs' differences to what is given per point: (T, L, ...) -> (T, M, ...)."""
        return jnp.concatenate([values, values[:, above] - values[:, below]], 1)

    def row_weights(rotation, trust):
        # On the side that turns away the contour's landmarks slide along the silhouette. The face looks along -z of the
        # camera turned by the rotation; x of that is the sine of the yaw, > 0 to the right.
        yaw = -rotation[:, 0, 2]
        side = jnp.concatenate([-jnp.ones(8), jnp.zeros(1), jnp.ones(8)])  # landmarks 0-7 lie on the image's left
        turned_away = jnp.clip(yaw[:, None] * side / 0.5, 0, 1)
        frames = len(rotation)
        parts = [
            weights[:17] * (1 - 0.95 * turned_away),
            jnp.broadcast_to(weights[17:], (frames, NUM_LANDMARKS - 17)),
            config.iris_weight * trust[:, : 2 * has_irises],
            jnp.full((frames, len(_PAIRS)), config.pair_weight),
        ]
        return jnp.concatenate(parts, 1)

    def term(state: FaceState, observed: Observed) -> Normal:
        frames = len(observed.mask)
        unit = config.sigma * observed.size
        seen = points.see(state, observed.camera)
        jacobian, shape_jacobian = points.jacobians(state, seen, observed.camera)
        residual = with_pairs(observed.points[:, : len(points.normals)] - seen.pixels) / unit
        jacobian = with_pairs(jacobian).reshape(frames, -1, jacobian.shape[-1]) / unit
        shape_jacobian = with_pairs(shape_jacobian).reshape(frames, -1, shape_jacobian.shape[-1]) / unit
        # Huber's weights, so that one wild landmark does not bend the face.
        distance = jnp.sqrt((residual**2).sum(-1) + 1e-9)
        weight = row_weights(state.rotation, observed.trust) * jnp.minimum(1, config.robust / distance)
        weight = jnp.repeat(weight, 2, axis=1)
        return normal_equations(
            jacobian,
            shape_jacobian,
            lambda rows: rows * weight[..., None],
            residual.reshape(frames, -1),
            observed.mask,
        )

    return term


@functools.lru_cache(maxsize=8)
def _landmark_solver(model: FaceModel, config: FitConfig, gaze: bool):
    import jax
    import jax.numpy as jnp

    term, priors = _landmark_term(model, config), _priors(model, config, gaze)
    mean = _landmark_points(model).model.vertices[:NUM_LANDMARKS]
    extent, middle = np.ptp(mean, axis=0), (mean.max(0) + mean.min(0)) / 2

    def solve(observed: Observed) -> FaceState:
        # Start: the mean face, upright, where the landmark box is.
        landmarks, camera = observed.points[:, :NUM_LANDMARKS], observed.camera
        low, high = landmarks.min(1), landmarks.max(1)
        depth = camera[0] * extent[1] / (high - low)[:, 1]
        start = ((low + high) / 2 - camera[1:]) * (depth / camera[0])[:, None] - middle[:2] * MODEL_TO_CAMERA[:2]
        frames = len(landmarks)
        state = FaceState(
            jnp.zeros(model.num_shape),
            jnp.zeros((frames, model.num_expression)),
            jnp.broadcast_to(jnp.eye(3), (frames, 3, 3)),
            jnp.concatenate([start, depth[:, None]], 1),
        )

        def iterate(state, free):
            return take_step(state, term(state, observed), priors, observed.mask, observed.pace, free), None

        free = (jnp.arange(config.pose_steps + config.steps) >= config.pose_steps).astype(jnp.float32)
        return jax.lax.scan(iterate, state, free)[0]

    return jax.jit(solve)


@functools.lru_cache(maxsize=4)
def _photometric_solver(model: FaceModel, config: FitConfig):
    import jax

    from pipelines.stages.face_photometric import photometric_term, pyramid

    settings = config.photometric
    term, priors = _landmark_term(model, config), _priors(model, config, gaze=True)
    dense = photometric_term(model, settings)

    def solve(state: FaceState, observed: Observed, frames):
        start = state.shape
        for images, scale in pyramid(frames, settings.levels):

            def again(state, _, images=images, scale=scale):
                rows = dense(state, images, scale, observed.mask, observed.camera)

                def iterate(state, _):
                    normal, error = rows(state)
                    normal = normal.plus(term(state, observed), settings.landmark_weight)
                    normal = normal.holding(state.shape, start, settings.shape_hold)
                    return take_step(state, normal, priors, observed.mask, observed.pace, 1.0), error

                return jax.lax.scan(iterate, state, None, length=settings.steps)

            state, errors = jax.lax.scan(again, state, None, length=settings.rounds)
        return state, errors[-1, -1]

    return jax.jit(solve)


@functools.lru_cache(maxsize=4)
def _projector(model: FaceModel):
    """Returns the jitted projection of the 68 landmarks: (state, camera) -> (T, 68, 2)."""
    import jax

    points = _landmark_points(model)
    return jax.jit(lambda state, camera: points.see(state, camera).pixels[:, :NUM_LANDMARKS])
