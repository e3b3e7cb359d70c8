"""The 3DMM behind one interface: a mean shape, identity and expression bases, joints with skinning, landmarks, labels.

A face is ``skin(mean + identity + blend + pose correctives)``: linear blend skinning about joints that move with the
identity, as in FLAME (Li et al., 2017). A record's expression vector is Ne = Nb + 5 long: Nb blend coefficients, then
``POSE_NAMES``: the jaw's axis-angle (radians, the model's axes) and the gaze of both eyes (radians).

- jaw_x > 0 opens the mouth, jaw_y > 0 moves the chin to +x, jaw_z > 0 tilts it (its left side up);
- gaze_x > 0 looks to +x, gaze_y > 0 looks up.

Array letters: V vertices, F triangles, J joints, Ns identity coefficients, Nb blend coefficients, Ne = Nb + 5.
"""

import dataclasses
import os

import numpy as np

from models.face.camera import rotation_matrix

JOINT_NAMES = ("neck", "jaw", "eye_left", "eye_right")
JOINT_PARENTS = (-1, 0, 0, 0)  # -1 is the root, which stays
POSE_NAMES = ("jaw_x", "jaw_y", "jaw_z", "gaze_x", "gaze_y")
# Where a new model's origin is put, measured from the middle between its eyeballs (metres): the head's centre.
EYES_FROM_ORIGIN = np.array([0.0, 0.0, 0.066])


@dataclasses.dataclass(frozen=True, eq=False)
class FaceModel:
    """A face model in metres.

    Axes: x to the image's right when the face looks at the camera (the subject's left), y up, z out of the face; the
    origin is the head's centre, at the height of the eyes.

    Attributes:
      name: what it is called in the dataset (``face_model`` field).
      vertices: (V, 3) float32, the mean head.
      faces: (F, 3) int32, counter-clockwise seen from outside.
      shape_basis: (V, 3, Ns) float32; coefficients are about N(0, 1).
      expression_basis: (V, 3, Nb) float32; coefficients as ``expression_range`` says.
      expression_names: Ne names, those of the blend directions and ``POSE_NAMES``.
      expression_range: (Ne, 2) float32, the lowest and highest value that the coefficients are meant for.
      joint_regressor: (J, V) float32, joint positions as sums over the vertices of the shaped head (J in the order of
        ``JOINT_NAMES``); None in a model of single points (``points_model``).
      skin_weights: (V, J) float32, how much a vertex follows each joint; what is left of 1 follows the root. A joint
        whose column is 0 does nothing (BFM has no joints).
      pose_basis: (V, 3, 9 J) float32 or None, offsets that go with the joints' rotation matrices less the identity,
        row by row (FLAME's pose correctives).
      landmark_faces, landmark_barycentric: (68,) int32 and (68, 3) float32, the iBUG landmarks on the triangles.
      dense_faces, dense_barycentric: (K,) int32 and (K, 3) float32, several hundred more points over the face.
      dense_names: K names, a region and a number (``lip_upper_07``), see ``dense_regions``.
      labels: (V,) uint8, classes of models/labels.py.
      shape_names: Ns names, empty if the directions have none.
      notes: what a loader had to derive because the file does not hold it, in words.
      joints, joint_basis: (J, 3) and (J, 3, Ns) float32, the joints of the mean head and their motion with the
        identity; made from ``joint_regressor`` when left out.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    expression_names: tuple[str, ...]
    expression_range: np.ndarray
    joint_regressor: np.ndarray | None
    skin_weights: np.ndarray
    pose_basis: np.ndarray | None
    landmark_faces: np.ndarray
    landmark_barycentric: np.ndarray
    dense_faces: np.ndarray
    dense_barycentric: np.ndarray
    dense_names: tuple[str, ...]
    labels: np.ndarray
    shape_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    joints: np.ndarray | None = None
    joint_basis: np.ndarray | None = None

    joint_names = JOINT_NAMES
    joint_parents = JOINT_PARENTS

    def __post_init__(self):
        if self.joints is None:
            regressor = self.joint_regressor.astype(np.float64)
            basis = np.tensordot(regressor, self.shape_basis, 1)
            object.__setattr__(self, "joints", (regressor @ self.vertices).astype(np.float32))
            object.__setattr__(self, "joint_basis", basis.astype(np.float32))

    @property
    def num_shape(self) -> int:
        """Ns, the number of identity coefficients."""
        return self.shape_basis.shape[-1]

    @property
    def num_blend(self) -> int:
        """Nb, the number of linear expression directions."""
        return self.expression_basis.shape[-1]

    @property
    def num_expression(self) -> int:
        """Ne = Nb + 5, the length of an expression vector."""
        return self.num_blend + len(POSE_NAMES)

    @property
    def dense_regions(self) -> tuple[str, ...]:
        """The region of each dense point (K)."""
        return tuple(name.rsplit("_", 1)[0] for name in self.dense_names)

    def expression_index(self, name: str) -> int:
        """Returns the column of a named expression direction."""
        return self.expression_names.index(name)

    def expression(self, **coefficients: float) -> np.ndarray:
        """Returns an expression vector (Ne,) float32 of named coefficients, 0 elsewhere."""
        vector = np.zeros(self.num_expression, np.float32)
        for name, value in coefficients.items():
            vector[self.expression_index(name)] = value
        return vector

    def points_model(self, faces: np.ndarray, barycentric: np.ndarray, names: tuple[str, ...] = ()) -> "FaceModel":
        """Returns the model of N points on the surface: its vertices are the points (bases and weights blended by the
        barycentric coordinates), its triangles the points themselves (three times the same one).

        Args:
          faces: (N,) triangle ids.
          barycentric: (N, 3).
          names: N names, or none.
        """
        corners = self.faces[faces]  # (N, 3)
        weights = np.asarray(barycentric, np.float32)

        def blend(values):
            shaped = weights.reshape(*weights.shape, *(1,) * (values.ndim - 1))
            return np.ascontiguousarray((values[corners] * shaped).sum(1), values.dtype)

        ids = np.arange(len(corners), dtype=np.int32)
        first = np.tile(np.array([1, 0, 0], np.float32), (len(ids), 1))
        landmarks = ids if len(ids) == 68 else ids[:0]
        return dataclasses.replace(
            self,
            vertices=blend(self.vertices),
            faces=np.repeat(ids[:, None], 3, 1),
            shape_basis=blend(self.shape_basis),
            expression_basis=blend(self.expression_basis),
            joint_regressor=None,
            skin_weights=blend(self.skin_weights),
            pose_basis=None if self.pose_basis is None else blend(self.pose_basis),
            landmark_faces=landmarks,
            landmark_barycentric=first[: len(landmarks)],
            dense_faces=ids if names else ids[:0],
            dense_barycentric=first if names else first[:0],
            dense_names=names,
            labels=self.labels[corners[ids, weights.argmax(1)]],
        )

    def landmark_model(self) -> "FaceModel":
        """Returns the model of the 68 landmarks alone (V = 68): all that a landmark fit needs."""
        return self.points_model(self.landmark_faces, self.landmark_barycentric)

    def dense_model(self) -> "FaceModel":
        """Returns the model of the K dense points alone (V = K)."""
        return self.points_model(self.dense_faces, self.dense_barycentric, self.dense_names)


def _namespace(*arrays):
    if all(a is None or isinstance(a, np.ndarray | list | tuple) for a in arrays):
        return np
    import jax.numpy as jnp

    return jnp


def joint_rotations(expression, neck=None):
    """Returns the rotations (..., J, 3, 3) of the joints about themselves.

    Args:
      expression: (..., Ne), numpy or JAX.
      neck: (..., 3) axis-angle of the neck in radians, or None: straight.
    """
    xp = _namespace(expression, neck)
    expression = xp.asarray(expression)
    jaw, gaze = expression[..., -5:-2], expression[..., -2:]
    eye = xp.stack([-gaze[..., 1], gaze[..., 0], xp.zeros_like(gaze[..., 0])], -1)
    neck = xp.zeros_like(jaw) if neck is None else xp.broadcast_to(xp.asarray(neck, dtype=jaw.dtype), jaw.shape)
    return rotation_matrix(xp.stack([neck, jaw, eye, eye], -2))


def pose_features(rotations):
    """Returns the coefficients of ``pose_basis``: (..., J, 3, 3) rotations -> (..., 9 J)."""
    xp = _namespace(rotations)
    offset = rotations - xp.eye(3, dtype=rotations.dtype)
    return offset.reshape(*offset.shape[:-3], -1)


def joint_transforms(model: FaceModel, shape, rotations):
    """Returns the motion of each joint's followers from their place in the unposed head.

    Args:
      model: the face model.
      shape: (..., Ns) identity coefficients, which place the joints.
      rotations: (..., J, 3, 3) of ``joint_rotations``; leading dimensions broadcast.

    Returns:
      (..., J, 3, 4): a point p that follows joint j alone goes to ``m[j, :, :3] @ p + m[j, :, 3]``.
    """
    xp = _namespace(shape, rotations)
    shape = xp.asarray(shape)
    basis = xp.asarray(model.joint_basis)
    joints = xp.asarray(model.joints) + (shape @ basis.reshape(-1, basis.shape[-1]).T).reshape(
        *shape.shape[:-1], *basis.shape[:2]
    )
    moves = []
    for j, parent in enumerate(JOINT_PARENTS):
        turn, centre = rotations[..., j, :, :], joints[..., j, :, None]
        shift = centre - turn @ centre
        turn = xp.broadcast_to(turn, (*shift.shape[:-1], 3))
        if parent >= 0:
            above, along = moves[parent]
            turn, shift = above @ turn, above @ shift + along
        moves.append((turn, shift))
    return xp.stack([xp.concatenate([turn, shift], -1) for turn, shift in moves], -3)


def deform(model: FaceModel, shape, expression, neck=None):
    """Returns the vertices of a face: mean + identity + blend + pose correctives, skinned to the joints.

    Args:
      model: the face model, or its ``landmark_model`` or ``dense_model``.
      shape: (..., Ns) numpy or JAX array.
      expression: (..., Ne) numpy or JAX array; leading dimensions broadcast with those of ``shape``.
      neck: (..., 3) axis-angle of the neck joint in radians, or None: straight.

    Returns:
      (..., V, 3), metres, of the arguments' array kind.
    """
    xp = _namespace(shape, expression, neck)
    shape, expression = xp.asarray(shape), xp.asarray(expression)
    count, blends = model.vertices.shape[0], model.num_blend
    # Plain matrix products: (..., N) @ (N, V*3); numpy's einsum would not call BLAS here.
    offset = shape @ xp.asarray(model.shape_basis).reshape(count * 3, -1).T
    offset = offset + expression[..., :blends] @ xp.asarray(model.expression_basis).reshape(count * 3, -1).T
    points = xp.asarray(model.vertices) + offset.reshape(*offset.shape[:-1], count, 3)
    return pose_joints(model, points, shape, joint_rotations(expression, neck), straight_neck=neck is None)


def channel_effects(model: FaceModel, expression, step) -> np.ndarray:
    """Returns how far each expression coefficient moves the model's points, root mean square in metres: (Ne,).

    Args:
        expression: (Ne,), from where.
        step: (Ne,), by how much each one alone is moved.
    """
    around = np.asarray(expression, np.float32) + np.concatenate([np.zeros_like(step)[None], np.diag(step)])
    points = np.asarray(deform(model, np.zeros(model.num_shape, np.float32), around.astype(np.float32)))
    return np.sqrt(np.sum((points[1:] - points[0]) ** 2, axis=-1).mean(-1))


def pose_joints(model: FaceModel, points, shape, rotations, straight_neck: bool = True):
    """Returns the vertices of a head whose joints are turned: pose correctives, then skinning.

    Args:
      model: the face model.
      points: (..., V, 3) the unposed vertices, with identity and blend directions.
      shape: (..., Ns) identity coefficients, which place the joints.
      rotations: (..., J, 3, 3) of ``joint_rotations``.
      straight_neck: the neck's rotation is known to be none.
    """
    xp = _namespace(points, shape, rotations)
    if model.pose_basis is not None:
        basis = xp.asarray(model.pose_basis)
        offset = pose_features(rotations) @ basis.reshape(-1, basis.shape[-1]).T
        points = points + offset.reshape(*offset.shape[:-1], *basis.shape[:2])
    moves = joint_transforms(model, shape, rotations)
    turns, shifts = moves[..., :3] - xp.eye(3, dtype=moves.dtype), moves[..., 3]
    posed = points
    for j in range(len(JOINT_NAMES)):
        if (straight_neck and j == 0) or not model.skin_weights[:, j].any():
            continue
        motion = points @ xp.swapaxes(turns[..., j, :, :], -1, -2) + shifts[..., j, None, :]
        posed = posed + xp.asarray(model.skin_weights[:, j, None]) * motion
    return posed


def landmarks68(model: FaceModel, points):
    """Returns the 68 landmarks (..., 68, C) on a mesh whose first V vertices are the model's: points (..., >=V, C) of
    any kind, metres or pixels, numpy or JAX.
    """
    return on_surface(model.faces[model.landmark_faces], model.landmark_barycentric, points)


def dense_landmarks(model: FaceModel, points):
    """Returns the dense points (..., K, C) on a mesh, as ``landmarks68``."""
    return on_surface(model.faces[model.dense_faces], model.dense_barycentric, points)


def on_surface(corners, barycentric, points):
    """Returns points on triangles: corners (N, 3) vertex ids, barycentric (N, 3), points (..., V, C) -> (..., N, C)."""
    return (points[..., corners, :] * barycentric[..., None]).sum(-2)


def load_face_model(
    path: str | os.PathLike | None = None,
    landmarks: str | os.PathLike | None = None,
    masks: str | os.PathLike | None = None,
    allow_pickle_code: bool = False,
) -> FaceModel:
    """Returns a face model; without a path, the embedded procedural head (built once per process).

    Args:
      path: FLAME (``.pkl`` or ``.npz`` as distributed), BFM (``.mat`` of Deep3DFaceRecon) or an ``.npz`` of our own
        format (models/face/archive.py). What it is, its content says.
      landmarks: the landmark embedding of FLAME; without it, a known name beside the model is taken.
      masks: FLAME_masks.pkl; without it, one beside the model, or labels derived from geometry.
      allow_pickle_code: whether pickles may run code of their own (pickle's default). Without it they are read by a
        reader that knows arrays only.

    Raises:
      InputError: no such file, another format, or an array missing or of another shape (the message says which).
    """
    from models.face.loaders import load

    return load(path, landmarks, masks, allow_pickle_code)
