"""Points that ride on a face model, in JAX: where a camera sees them, and how each parameter of a fit moves them.

The positions come from ``models.face.model.deform``, so they are right for any model. Their derivatives are written
out where that is cheap (blend shapes and identity, turned by the jaw) and taken from ``deform`` itself by forward
differentiation for the five joint angles, so that correctives that follow a joint are in them.

einsum alphabet: t frames, l points, p expression coefficients, s shape coefficients, c d the three coordinates, i the
two of the image.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models.face.camera import MODEL_TO_CAMERA, rotation_matrix
from models.face.model import JOINT_NAMES, POSE_NAMES, FaceModel, deform

_JAW, _EYES = JOINT_NAMES.index("jaw"), (JOINT_NAMES.index("eye_right"), JOINT_NAMES.index("eye_left"))


class FaceState(NamedTuple):
    """What a fit solves for: shape (Ns,); expression (T, Ne); rotation (T, 3, 3), translation (T, 3) in camera axes."""

    shape: Any
    expression: Any
    rotation: Any
    translation: Any


class Seen(NamedTuple):
    """Points as a camera sees them: pixels (T, L, 2); rotated (T, L, 3), about the head's centre, and points (T, L, 3),
    both metres in camera axes.
    """

    pixels: Any
    rotated: Any
    points: Any


@dataclass(frozen=True, eq=False)
class FacePoints:
    """Points of a face model.

    Attributes: model: its ``points_model``, whose vertices are the points; normals float32 (L, 3), of the mean face,
    model axes.
    """

    model: FaceModel
    normals: np.ndarray

    def see(self, state: FaceState, camera) -> Seen:
        """Returns where the camera (3,) = focal, cx, cy sees the points of every frame."""
        import jax.numpy as jnp

        face = deform(self.model, jnp.asarray(state.shape), jnp.asarray(state.expression)) * MODEL_TO_CAMERA
        rotated = jnp.einsum("tcd,tld->tlc", state.rotation, face)
        points = rotated + state.translation[:, None]
        return Seen(points[..., :2] / points[..., 2:] * camera[0] + camera[1:], rotated, points)

    def jacobians(self, state: FaceState, seen: Seen, camera):
        """Returns how pixels move: (T, L, 2, 6 + Ne) with rotation (left, camera axes), translation, expression; and
        (T, L, 2, Ns) with the shape.
        """
        import jax
        import jax.numpy as jnp

        model, blends = self.model, self.model.num_blend
        depth = seen.points[..., 2]
        zero = jnp.zeros_like(depth)
        lens = camera[0] * jnp.stack(
            [
                jnp.stack([1 / depth, zero, -seen.points[..., 0] / depth**2], -1),
                jnp.stack([zero, 1 / depth, -seen.points[..., 1] / depth**2], -1),
            ],
            -2,
        )  # [t, l, i, c]
        turned = jnp.einsum("tlic,tcd->tlid", lens, state.rotation) * MODEL_TO_CAMERA  # model axes -> pixels
        jaw = rotation_matrix(state.expression[:, blends : blends + 3]) - jnp.eye(3)
        weight = jnp.asarray(model.skin_weights[:, _JAW])[:, None, None]
        with_jaw = turned + jnp.einsum("tlic,tcd->tlid", turned, jaw) * weight
        blend_jacobian = jnp.einsum("tlid,ldp->tlip", with_jaw, jnp.asarray(model.expression_basis))
        shape_jacobian = jnp.einsum("tlid,lds->tlis", with_jaw, jnp.asarray(model.shape_basis))
        # The jaw's joint moves with the identity, and what turns about it is carried along.
        carried = jnp.asarray(model.joint_basis[_JAW])
        shape_jacobian = shape_jacobian + jnp.einsum("tlid,ds->tlis", turned - with_jaw, carried)

        def of_angles(angles):
            return deform(model, state.shape, jnp.concatenate([state.expression[:, :blends], angles], 1))

        angles = state.expression[:, blends:]
        units = jnp.broadcast_to(jnp.eye(len(POSE_NAMES))[:, None], (len(POSE_NAMES), *angles.shape))
        moved = jax.vmap(lambda unit: jax.jvp(of_angles, (angles,), (unit,))[1], out_axes=-1)(units)  # [t, l, c, p]
        angle_jacobian = jnp.einsum("tlic,tlcp->tlip", turned, moved)
        jacobian = jnp.concatenate([-lens @ cross_matrix(seen.rotated), lens, blend_jacobian, angle_jacobian], -1)
        return jacobian, shape_jacobian


def face_points(model: FaceModel, faces: np.ndarray, barycentric: np.ndarray) -> FacePoints:
    """Returns points on a model's triangles: faces (L,) triangle ids, barycentric (L, 3)."""
    normals = vertex_normals(model)[model.faces[faces]]
    normals = np.einsum("lkc,lk->lc", normals, barycentric)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return FacePoints(model.points_model(faces, barycentric), normals.astype(np.float32))


def iris_points(model: FaceModel) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns triangles (2,) and barycentric coordinates (2, 3) of the foremost points of the eyeballs: the eye on the
    image's left (the subject's right), then the other. None if the model's eyes do not turn.
    """
    faces, corners = [], []
    for joint in _EYES:
        ball = np.flatnonzero(model.skin_weights[:, joint] > 0.9)
        used = ball[np.isin(ball, model.faces)]
        if not len(used):
            return None
        front = used[model.vertices[used, 2].argmax()]
        face = int(np.flatnonzero((model.faces == front).any(1))[0])
        faces.append(face)
        corners.append((model.faces[face] == front).astype(np.float32))
    return np.array(faces, np.int32), np.stack(corners)


def vertex_normals(model: FaceModel) -> np.ndarray:
    """Returns the unit normals of the mean face's vertices: float64 (V, 3), model axes."""
    corners = model.vertices[model.faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # longer for larger triangles
    normals = np.zeros(model.vertices.shape)
    for k in range(3):
        np.add.at(normals, model.faces[:, k], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def cross_matrix(v):
    """(..., 3) -> (..., 3, 3): the matrix of the cross product with v from the left."""
    import jax.numpy as jnp

    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = jnp.zeros_like(x)
    return jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)


def exponential(v):
    """Returns rotation matrices of axis-angle vectors: (..., 3) -> (..., 3, 3)."""
    import jax.numpy as jnp

    angle = jnp.sqrt((v * v).sum(-1) + 1e-12)[..., None, None]
    k = cross_matrix(v) / angle
    return jnp.eye(3) + jnp.sin(angle) * k + (1 - jnp.cos(angle)) * (k @ k)


def small_logarithm(rotation):
    """Returns the axis-angle vectors of small rotations: (..., 3, 3) -> (..., 3)."""
    import jax.numpy as jnp

    skew = (rotation - jnp.swapaxes(rotation, -1, -2)) / 2
    return jnp.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
