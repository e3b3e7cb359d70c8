"""FLAME (Li et al., 2017; releases of 2019, 2020 and 2023) as distributed: ``.pkl`` or ``.npz``.

The file holds metres and our axes; only the origin is moved (by a constant, to the head's centre). The identity
directions are the first 300 of ``shapedirs``, the expression the last 100; joints, weights and pose correctives are
FLAME's. Landmarks come from an embedding file, semantic labels from FLAME_masks.pkl, or, without one, from the embedded
head (``notes`` says so).
"""

import os

import numpy as np

from models.errors import InputError
from models.face import transfer
from models.face.arrays import checked, in_range
from models.face.model import EYES_FROM_ORIGIN, POSE_NAMES, FaceModel
from models.labels import LABEL_INDEX

NUM_SHAPE, NUM_EXPRESSION = 300, 100
LAYOUT = {
    "v_template": (np.float64, ("V", 3)),
    "f": (np.int32, ("F", 3)),
    "shapedirs": (np.float64, ("V", 3, NUM_SHAPE + NUM_EXPRESSION)),
    "posedirs": (np.float64, ("V", 3, 36)),
    "J_regressor": (np.float64, (5, "V")),
    "weights": (np.float64, ("V", 5)),
    "kintree_table": (np.float64, (2, 5)),
}
PARENTS = [0, 1, 1, 1]  # of neck, jaw and eyes; the root has none
# Looked for beside the model, in this order.
EMBEDDINGS = (
    "landmark_embedding.npy",
    "flame_static_embedding_68_v4.npz",
    "flame_static_embedding_68.npz",
    "flame_static_embedding_68.pkl",
    "flame_static_embedding.npz",
    "flame_static_embedding.pkl",
)
MASKS = "FLAME_masks.pkl"
_MASK_CLASSES = {
    "face": "face",
    "forehead": "face",
    "eye_region": "face",
    "scalp": "face",
    "neck": "neck",
    "boundary": "neck",
    "nose": "nose",
    "lips": "lips",
    "left_ear": "ears",
    "right_ear": "ears",
}
RANGES = {
    "jaw_x": (-0.1, 0.6),
    "jaw_y": (-0.15, 0.15),
    "jaw_z": (-0.1, 0.1),
    "gaze_x": (-0.6, 0.6),
    "gaze_y": (-0.5, 0.5),
}


def from_flame(path: str, arrays: dict, landmarks: str | None, masks: str | None, allow_code: bool) -> FaceModel:
    """Returns the model of FLAME's arrays.

    Args:
      path: of the model; the companions are looked for beside it.
      arrays: what the file holds.
      landmarks: the landmark embedding, or None.
      masks: FLAME_masks.pkl, or None.
      allow_code: see models/face/pickles.py.

    Raises:
      InputError: an array is missing, of another shape or out of range, or there is no landmark embedding.
    """
    fields, sizes = checked(path, arrays, LAYOUT)
    in_range(path, "f", fields["f"], sizes["V"])
    parents = fields["kintree_table"][0, 1:].astype(int).tolist()
    if parents != PARENTS:
        raise InputError(
            f"{path}: array 'kintree_table' has the parents {parents}, expected {PARENTS} (neck, jaw, left eye, right "
            "eye after the root)"
        )
    joints = fields["J_regressor"] @ fields["v_template"]
    vertices = fields["v_template"] + (EYES_FROM_ORIGIN - joints[3:].mean(0))
    joints = fields["J_regressor"] @ vertices
    faces = fields["f"]
    notes = []
    embedding = landmarks or _beside(path, EMBEDDINGS)
    if embedding is None:
        raise InputError(
            f"{path}: FLAME's file has no landmarks; expected their embedding, given or beside it as one of "
            f"{', '.join(EMBEDDINGS)}"
        )
    ids, weights = read_embedding(embedding, len(faces), allow_code)
    eyeball = fields["weights"][:, 3:].max(1) > 0.5
    skin_faces = np.where(~eyeball[faces].any(1))[0]
    if len(ids) == 51:
        points = (vertices[faces[ids]] * weights[..., None]).sum(1)
        jaw, jaw_weights = transfer.contour(points, vertices, faces[skin_faces])
        ids, weights = np.concatenate([skin_faces[jaw], ids]), np.concatenate([jaw_weights, weights])
        notes.append("landmarks 0-16 (the jaw's contour): from the embedded head, the embedding has 51 points")
    points = (vertices[faces[ids]] * weights[..., None]).sum(1)
    dense, dense_weights, names = transfer.dense(points, vertices, faces[skin_faces])
    notes.append("dense landmarks: from the embedded head")
    masks = masks or _beside(path, (MASKS,))
    labels = transfer.labels(points, vertices, eyes=False)
    if masks is None:
        notes.append(f"labels: from the embedded head, no {MASKS}")
    else:
        labels = _masked(masks, labels, allow_code)
        notes.append("labels of brows, nostrils and the mouth's inside: from the embedded head, the masks have none")
    for joint in (3, 4):
        ball = fields["weights"][:, joint] > 0.5
        labels[ball] = transfer.eyeball_labels(vertices[ball], joints[joint])
    names_of_blends = [f"expression_{k:03d}" for k in range(NUM_EXPRESSION)]
    ranges = [(-3.0, 3.0)] * NUM_EXPRESSION + [RANGES[name] for name in POSE_NAMES]
    model = FaceModel(
        name=os.path.splitext(os.path.basename(path))[0],
        vertices=vertices.astype(np.float32),
        faces=faces,
        shape_basis=np.ascontiguousarray(fields["shapedirs"][..., :NUM_SHAPE], np.float32),
        expression_basis=np.ascontiguousarray(fields["shapedirs"][..., NUM_SHAPE:], np.float32),
        expression_names=(*names_of_blends, *POSE_NAMES),
        expression_range=np.array(ranges, np.float32),
        joint_regressor=fields["J_regressor"][1:].astype(np.float32),
        skin_weights=np.ascontiguousarray(fields["weights"][:, 1:], np.float32),
        pose_basis=fields["posedirs"].astype(np.float32),
        landmark_faces=ids.astype(np.int32),
        landmark_barycentric=weights.astype(np.float32),
        dense_faces=skin_faces[dense].astype(np.int32),
        dense_barycentric=dense_weights,
        dense_names=names,
        labels=labels,
        notes=tuple(notes),
    )
    transfer.check_size(path, model)
    return model


def _beside(path: str, names) -> str | None:
    folder = os.path.dirname(path)
    return next((p for p in (os.path.join(folder, name) for name in names) if os.path.isfile(p)), None)


def read_embedding(path: str, faces: int, allow_code: bool) -> tuple[np.ndarray, np.ndarray]:
    """Reads a landmark embedding: ``lmk_face_idx`` (N,) and ``lmk_b_coords`` (N, 3) of FLAME's static files, or
    ``full_lmk_faces_idx`` (1, 68) and ``full_lmk_bary_coords`` (1, 68, 3) of DECA's.

    Args:
      path: ``.pkl``, ``.npz`` or ``.npy``.
      faces: the mesh's number of triangles.
      allow_code: see models/face/pickles.py.

    Returns:
      triangle ids (68,) or (51,), barycentric (N, 3) float64.

    Raises:
      InputError: an array is missing, of another shape or out of range.
    """
    from models.face.loaders import read_dictionary

    arrays = read_dictionary(path, allow_code)
    keys = ("lmk_face_idx", "lmk_b_coords")
    if "full_lmk_faces_idx" in arrays:
        keys = ("full_lmk_faces_idx", "full_lmk_bary_coords")
        arrays = {key: np.asarray(arrays[key]).squeeze() for key in keys if key in arrays}
    layout = {keys[0]: (np.int64, ("N",)), keys[1]: (np.float64, ("N", 3))}
    fields, sizes = checked(path, arrays, layout)
    if sizes["N"] not in (51, 68):
        raise InputError(f"{path}: array '{keys[0]}' has shape ({sizes['N']},), expected (68,) or (51,)")
    in_range(path, keys[0], fields[keys[0]], faces)
    return fields[keys[0]], fields[keys[1]]


def _masked(path: str, labels: np.ndarray, allow_code: bool) -> np.ndarray:
    """Returns the labels with FLAME_masks.pkl's regions (name -> vertex ids) put over what was derived."""
    from models.face.loaders import read_dictionary

    masks = read_dictionary(path, allow_code)
    detail = np.isin(labels, [LABEL_INDEX[n] for n in ("brows", "nostrils", "other-in-mouth")])
    derived, labels = labels, labels.copy()
    for region, name in _MASK_CLASSES.items():
        if region not in masks:
            raise InputError(f"{path}: array '{region}' is missing, expected vertex ids of shape (N,)")
        fields, _ = checked(path, masks, {region: (np.int64, ("N",))})
        in_range(path, region, fields[region], len(labels))
        labels[fields[region]] = LABEL_INDEX[name]
    labels[detail] = derived[detail]
    return labels
