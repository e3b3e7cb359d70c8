"""Pose and perspective projection, for numpy and JAX arrays alike.

Axes: the face model has x right, y up, z toward the viewer; the camera has x right, y down, z forward (OpenCV). A point
goes ``camera = R(axis_angle) @ diag(1, -1, -1) @ model + translation``; rotations are about the camera's axes. With
that,

- rx > 0: the face looks down; ry > 0: it turns to the image's left; rz > 0: it tilts clockwise in the image;
- translation (0, 0, 1) puts the head's centre on the optical axis, one metre away.

einsum alphabet: n points, i j coordinates.
"""

import numpy as np

# Focal length in pixels of a 256-pixel crop: a head fills the crop from 1.5 m, the mild perspective of a portrait lens.
DEFAULT_FOCAL = 1200.0
MODEL_TO_CAMERA = np.array([1.0, -1.0, -1.0], np.float32)


def _namespace(*arrays):
    if all(isinstance(a, np.ndarray | np.generic | list | tuple | float | int) for a in arrays):
        return np
    import jax.numpy as jnp

    return jnp


def default_camera(size: int = 256) -> np.ndarray:
    """Returns (focal, cx, cy) float32 of a square image of ``size`` pixels."""
    return np.array([DEFAULT_FOCAL * size / 256, size / 2, size / 2], np.float32)


def default_pose() -> np.ndarray:
    """Returns the (6,) float32 pose of a head that looks at the camera and fills most of the default camera's image."""
    return np.array([0, 0, 0, 0, 0.005, 1.5], np.float32)


def rotation_matrix(axis_angle):
    """Returns rotation matrices by Rodrigues' formula: (..., 3) radians -> (..., 3, 3); smooth (also its gradient) at
    zero.
    """
    xp = _namespace(axis_angle)
    v = xp.asarray(axis_angle)
    squared = (v * v).sum(-1)
    # Below 1e-4 rad the Taylor series is exact in float32; the where-guard keeps sqrt's gradient finite at zero.
    small = squared < 1e-8
    safe = xp.where(small, 1.0, squared)
    angle = xp.sqrt(safe)
    a = xp.where(small, 1 - squared / 6, xp.sin(angle) / angle)[..., None, None]  # sin(t) / t
    b = xp.where(small, 0.5 - squared / 24, (1 - xp.cos(angle)) / safe)[..., None, None]  # (1 - cos(t)) / t^2
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = xp.zeros_like(x)
    k = xp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    return xp.eye(3, dtype=v.dtype) + a * k + b * (k @ k)


def to_camera(points, pose):
    """Moves model points into camera space: (..., N, 3) metres, pose (..., 6) = axis-angle, translation -> (..., N, 3)
    metres.
    """
    xp = _namespace(points, pose)
    points, pose = xp.asarray(points), xp.asarray(pose)
    rotation = rotation_matrix(pose[..., :3])
    flipped = points * xp.asarray(MODEL_TO_CAMERA, dtype=points.dtype)
    return flipped @ xp.swapaxes(rotation, -1, -2) + pose[..., None, 3:]


def project(points, pose, camera):
    """Projects model points to pixels.

    Args:
      points: (..., N, 3) metres, in the face model's axes.
      pose: (..., 6) axis-angle rx, ry, rz (radians) and translation tx, ty, tz (metres), in the camera's axes.
      camera: (..., 3) focal, cx, cy in pixels; leading dimensions broadcast.

    Returns:
      (..., N, 2) x right, y down, pixels; (0, 0) is the upper left corner of the upper left pixel.
    """
    xp = _namespace(points, pose, camera)
    p = to_camera(points, pose)
    camera = xp.asarray(camera)
    return p[..., :2] / p[..., 2:] * camera[..., None, :1] + camera[..., None, 1:]


def pose_from_rotation(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Packs a rotation (3, 3) (of camera = R @ diag(1,-1,-1) @ model + t) and a translation (3,) into a (6,) pose."""
    rotation = np.asarray(rotation, np.float64)
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    scale = 0.5 if angle < 1e-6 else angle / (2 * np.sin(angle))
    return np.concatenate([axis * scale, translation]).astype(np.float32)
