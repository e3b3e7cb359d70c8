"""Our own face model format: an ``.npz`` with the arrays of ``LAYOUT`` (fields of FaceModel, metres, its axes).

``pose_basis`` (V, 3, 36), ``shape_names`` (Ns,), ``notes`` and ``name`` may be left out.
"""

import os

import numpy as np

from models.errors import InputError
from models.face.arrays import checked, in_range
from models.face.model import JOINT_NAMES, POSE_NAMES, FaceModel
from models.labels import NUM_LABELS
from models.signals import NUM_LANDMARKS

_JOINTS = len(JOINT_NAMES)
# Array name -> (type, shape in letters).
LAYOUT = {
    "vertices": (np.float32, ("V", 3)),
    "faces": (np.int32, ("F", 3)),
    "shape_basis": (np.float32, ("V", 3, "Ns")),
    "expression_basis": (np.float32, ("V", 3, "Nb")),
    "expression_names": (str, ("Ne",)),
    "expression_range": (np.float32, ("Ne", 2)),
    "joint_regressor": (np.float32, (_JOINTS, "V")),
    "skin_weights": (np.float32, ("V", _JOINTS)),
    "landmark_faces": (np.int32, (NUM_LANDMARKS,)),
    "landmark_barycentric": (np.float32, (NUM_LANDMARKS, 3)),
    "dense_faces": (np.int32, ("K",)),
    "dense_barycentric": (np.float32, ("K", 3)),
    "dense_names": (str, ("K",)),
    "labels": (np.uint8, ("V",)),
}
OPTIONAL = {
    "pose_basis": (np.float32, ("V", 3, 9 * _JOINTS)),
    "shape_names": (str, ("Ns",)),
    "notes": (str, ("N",)),
}


def read_archive(path: str, allow_code: bool = False) -> dict[str, np.ndarray]:
    """Returns the arrays of an ``.npz``; objects pickled inside it are read as models/face/pickles.py says.

    Raises:
      InputError: not an ``.npz``, or one whose pickled objects are no arrays.
    """
    import zipfile

    from models.face.pickles import read_npy

    arrays = {}
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.namelist():
                key = member.removesuffix(".npy")
                arrays[key] = read_npy(f"{path} ({key})", file.read(member), allow_code)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a face model, expected an .npz of arrays ({error})") from error
    return arrays


def from_archive(path: str, arrays: dict[str, np.ndarray]) -> FaceModel:
    """Returns the model of an archive's arrays.

    Raises:
      InputError: an array is missing, of another shape or out of range.
    """
    fields, sizes = checked(path, arrays, LAYOUT)
    if fields["expression_names"][-len(POSE_NAMES) :] != POSE_NAMES or sizes["Ne"] != sizes["Nb"] + len(POSE_NAMES):
        raise InputError(
            f"{path}: array 'expression_names' has {sizes['Ne']} names, expected one per direction of expression_basis "
            f"({sizes['Nb']}), then {', '.join(POSE_NAMES)}"
        )
    # An empty optional array (a model saved without names or notes) is the same as none.
    optional = {k: v for k, v in OPTIONAL.items() if k in arrays and np.asarray(arrays[k]).size}
    extra, _ = checked(path, arrays, optional, sizes)
    extra.setdefault("pose_basis", None)
    for key, limit in (("faces", "V"), ("landmark_faces", "F"), ("dense_faces", "F")):
        in_range(path, key, fields[key], sizes[limit])
    in_range(path, "labels", fields["labels"], NUM_LABELS)
    name = str(arrays.get("name", os.path.splitext(os.path.basename(path))[0]))
    return FaceModel(name=name, **fields, **extra)


def save_face_model(path: str | os.PathLike, model: FaceModel) -> None:
    """Writes a model in our format (temporary name, then os.replace)."""
    keys = ["name", *LAYOUT, *OPTIONAL]
    arrays = {key: np.asarray(getattr(model, key)) for key in keys if getattr(model, key) is not None}
    temporary = f"{os.fspath(path)}.partial"
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)
