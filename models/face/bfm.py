"""The Basel Face Model (Paysan et al., 2009) with the expressions of Guo et al. (2018), as Deep3DFaceRecon splits it:
``BFM_model_front.mat``.

Its unit is the decimetre and becomes the metre, its axes are ours; only the origin is moved (by a constant, to the
head's centre). The bases hold standard deviations already, so coefficients are N(0, 1). It has no joints: mouth opening
is part of its expressions, jaw, neck and gaze do nothing. Dense landmarks and semantic labels are those of the embedded
head, laid over it (``notes`` says so).
"""

import os

import numpy as np

from models.errors import InputError
from models.face import transfer
from models.face.arrays import checked, in_range
from models.face.dense import vertex_embedding
from models.face.model import JOINT_NAMES, POSE_NAMES, FaceModel, landmarks68, load_face_model
from models.signals import NUM_LANDMARKS

METRES = 0.1  # of the file's unit
NUM_SHAPE, NUM_EXPRESSION = 80, 64
LAYOUT = {
    "meanshape": (np.float64, ("3V",)),
    "idBase": (np.float64, ("3V", NUM_SHAPE)),
    "exBase": (np.float64, ("3V", NUM_EXPRESSION)),
    "tri": (np.int64, ("F", 3)),
    "keypoints": (np.int64, (NUM_LANDMARKS,)),
}


def read_mat(path: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a MATLAB file (version 5 to 7.2).

    Raises:
      InputError: not such a file.
    """
    from scipy.io import loadmat

    try:
        return {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    except Exception as error:  # scipy's reader fails in many ways on a torn file
        raise InputError(
            f"{path}: not a MATLAB file of version 5 to 7.2 ({type(error).__name__}: {error}); expected "
            f"Deep3DFaceRecon's BFM_model_front.mat with {', '.join(LAYOUT)}"
        ) from error


def from_bfm(path: str, arrays: dict) -> FaceModel:
    """Returns the model of Deep3DFaceRecon's arrays.

    Raises:
      InputError: an array is missing, of another shape or out of range.
    """
    # MATLAB has no vectors: (1, N) and (N, 1) are both lists of N.
    arrays = {k: np.ravel(v) if k in ("meanshape", "keypoints") else v for k, v in arrays.items()}
    fields, sizes = checked(path, arrays, LAYOUT)
    count = sizes["V"]
    faces, keypoints = fields["tri"] - 1, fields["keypoints"] - 1
    in_range(path, "tri (less 1)", faces, count)
    in_range(path, "keypoints (less 1)", keypoints, count)
    head = load_face_model()
    eyes = landmarks68(head, head.vertices)[36:48].mean(0)
    vertices = fields["meanshape"].reshape(count, 3) * METRES
    vertices = vertices + (eyes - vertices[keypoints][36:48].mean(0))
    faces = transfer.outward(vertices, faces)
    try:
        landmark_faces, landmark_weights = vertex_embedding(faces, keypoints)
    except ValueError as error:
        raise InputError(f"{path}: array 'keypoints' names vertices that no triangle of 'tri' uses") from error
    points = vertices[keypoints]
    dense, dense_weights, names = transfer.dense(points, vertices, faces)
    ranges = [(-3.0, 3.0)] * NUM_EXPRESSION + [(0.0, 0.0)] * len(POSE_NAMES)
    model = FaceModel(
        name=os.path.splitext(os.path.basename(path))[0],
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        shape_basis=(fields["idBase"].reshape(count, 3, NUM_SHAPE) * METRES).astype(np.float32),
        expression_basis=(fields["exBase"].reshape(count, 3, NUM_EXPRESSION) * METRES).astype(np.float32),
        expression_names=(*[f"expression_{k:02d}" for k in range(NUM_EXPRESSION)], *POSE_NAMES),
        expression_range=np.array(ranges, np.float32),
        joint_regressor=_joints(points, keypoints, count),
        skin_weights=np.zeros((count, len(JOINT_NAMES)), np.float32),
        pose_basis=None,
        landmark_faces=landmark_faces,
        landmark_barycentric=landmark_weights,
        dense_faces=dense,
        dense_barycentric=dense_weights,
        dense_names=names,
        labels=transfer.labels(points, vertices, eyes=True),
        notes=(
            "joints: placed by the landmarks and without followers, BFM has none",
            "dense landmarks, labels: from the embedded head",
        ),
    )
    transfer.check_size(path, model)
    return model


def _joints(points: np.ndarray, keypoints: np.ndarray, count: int) -> np.ndarray:
    """Returns the regressor (J, V): the embedded head's joints, laid over this head, as affine sums of landmarks."""
    joints = transfer.overlay(points, load_face_model().joints.astype(np.float64))
    system = np.concatenate([np.ones((1, len(points))), points.T])
    regressor = np.zeros((len(JOINT_NAMES), count))
    # Landmarks may share a vertex.
    np.add.at(regressor.T, keypoints, (np.linalg.pinv(system) @ np.concatenate([np.ones((1, 4)), joints.T])))
    return regressor.astype(np.float32)
