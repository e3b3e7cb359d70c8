"""The 3DMM behind one interface: a mean shape, an identity basis, an expression basis, landmarks and labels.

einsum alphabet: v vertices, c the three coordinates, s identity coefficients, e expression coefficients.
"""

import dataclasses
import functools
import os

import numpy as np

from models.errors import InputError
from models.labels import NUM_LABELS
from models.signals import NUM_LANDMARKS


@dataclasses.dataclass(frozen=True, eq=False)
class FaceModel:
    """A linear face model in metres.

    Axes: x to the image's right when the face looks at the camera (the subject's left), y up, z out of the face; the
    origin is the head's centre, at the height of the eyes.

    Attributes:
      name: what it is called in the dataset (``face_model`` field).
      vertices: (V, 3) float32, the mean head.
      faces: (F, 3) int32, counter-clockwise seen from outside.
      shape_basis: (V, 3, Ns) float32; coefficients are about N(0, 1).
      expression_basis: (V, 3, Ne) float32; coefficients in [0, 1], or [-1, 1] for the directions that go both ways.
      expression_names: Ne names.
      landmarks68: (68,) int32 vertex ids in iBUG order.
      labels: (V,) uint8, classes of models/labels.py.
      shape_names: Ns names, empty if the directions have none.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    expression_names: tuple[str, ...]
    landmarks68: np.ndarray
    labels: np.ndarray
    shape_names: tuple[str, ...] = ()

    @property
    def num_shape(self) -> int:
        """Ns, the number of identity coefficients."""
        return self.shape_basis.shape[-1]

    @property
    def num_expression(self) -> int:
        """Ne, the number of expression coefficients."""
        return self.expression_basis.shape[-1]

    def expression_index(self, name: str) -> int:
        """Returns the column of a named expression direction."""
        return self.expression_names.index(name)

    def landmark_model(self) -> "FaceModel":
        """Returns the model of the 68 landmarks alone (V = 68, no faces): all that a landmark fit needs."""
        ids = self.landmarks68
        return dataclasses.replace(
            self,
            vertices=self.vertices[ids],
            faces=np.zeros((0, 3), np.int32),
            shape_basis=self.shape_basis[ids],
            expression_basis=self.expression_basis[ids],
            landmarks68=np.arange(len(ids), dtype=np.int32),
            labels=self.labels[ids],
        )


def deform(model: FaceModel, shape, expression):
    """Returns the vertices of a face: mean + identity + expression.

    Args:
      model: the face model.
      shape: (..., Ns) numpy or JAX array.
      expression: (..., Ne) numpy or JAX array; leading dimensions broadcast with those of ``shape``.

    Returns:
      (..., V, 3), metres, of the arguments' array kind.
    """
    xp = np
    if not (isinstance(shape, np.ndarray | list | tuple) and isinstance(expression, np.ndarray | list | tuple)):
        import jax.numpy as xp
    shape, expression = xp.asarray(shape), xp.asarray(expression)
    count = model.vertices.shape[0]
    # Plain matrix products: (..., Ns) @ (Ns, V*3); numpy's einsum would not call BLAS here.
    offset = shape @ xp.asarray(model.shape_basis).reshape(count * 3, -1).T
    offset = offset + expression @ xp.asarray(model.expression_basis).reshape(count * 3, -1).T
    return xp.asarray(model.vertices) + offset.reshape(*offset.shape[:-1], count, 3)


# Array name -> (dtype, shape in letters): the documented .npz format. ``name`` and ``shape_names`` may be left out.
ARRAYS = {
    "vertices": (np.float32, ("V", 3)),
    "faces": (np.int32, ("F", 3)),
    "shape_basis": (np.float32, ("V", 3, "Ns")),
    "expression_basis": (np.float32, ("V", 3, "Ne")),
    "expression_names": (str, ("Ne",)),
    "landmarks68": (np.int32, (NUM_LANDMARKS,)),
    "labels": (np.uint8, ("V",)),
}


def load_face_model(path: str | os.PathLike | None = None) -> FaceModel:
    """Returns a face model; without a path, the embedded procedural head (built once per process).

    Args:
      path: an ``.npz`` with the arrays of ``ARRAYS`` (the fields of FaceModel, units in metres, same axes).

    Raises:
      InputError: the file is not readable as .npz, or an array is missing or of another shape (the message says which).
    """
    if path is None:
        return _procedural()
    path = os.fspath(path)
    try:
        file = np.load(path, allow_pickle=False)
        arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a face model, expected an .npz with arrays {', '.join(ARRAYS)} ({error})"
        ) from error
    sizes: dict[str, int] = {}
    fields = {}
    for key, (dtype, expected) in ARRAYS.items():
        text = "(" + ", ".join(str(sizes.get(size, size)) for size in expected) + ")"
        if key not in arrays:
            raise InputError(f"{path}: array '{key}' is missing, expected shape {text}")
        array = arrays[key]
        fits = array.ndim == len(expected)
        if fits:
            fits = all(
                have == (size if isinstance(size, int) else sizes.setdefault(size, have))
                for have, size in zip(array.shape, expected, strict=True)
            )
        if not fits:
            raise InputError(f"{path}: array '{key}' has shape {array.shape}, expected {text}")
        fields[key] = tuple(map(str, array)) if dtype is str else array.astype(dtype)
    vertices = sizes["V"]
    for key, limit in (("faces", vertices), ("landmarks68", vertices), ("labels", NUM_LABELS)):
        values = fields[key]
        if values.size and (values.min() < 0 or values.max() >= limit):
            raise InputError(
                f"{path}: array '{key}' has values from {values.min()} to {values.max()}, expected 0..{limit - 1}"
            )
    name = str(arrays.get("name", os.path.splitext(os.path.basename(path))[0]))
    return FaceModel(name=name, shape_names=tuple(map(str, arrays.get("shape_names", ()))), **fields)


def save_face_model(path: str | os.PathLike, model: FaceModel) -> None:
    """Writes a model in the documented .npz format (temporary name, then os.replace)."""
    temporary = f"{os.fspath(path)}.partial"
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **{f.name: np.asarray(getattr(model, f.name)) for f in dataclasses.fields(model)})
    os.replace(temporary, path)


@functools.lru_cache(maxsize=1)
def _procedural() -> FaceModel:
    from models.face.procedural import build_head

    return build_head()
