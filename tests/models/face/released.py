"""Files laid out like the released face models, with the embedded head's shape and random directions inside."""

import io
import pickle
import sys
import types

import numpy as np
from scipy import sparse

from models.face.model import load_face_model
from models.labels import LABEL_INDEX


class _OldPickler(pickle._Pickler):
    """Writes strings as Python 2 did: bytes and text alike as one kind of string."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_old(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[bytes] = save_old
    dispatch[str] = save_old


def old_pickle(value) -> bytes:
    """Returns a pickle as Python 2 and numpy 1 wrote it."""
    stream = io.BytesIO()
    _OldPickler(stream, 2).dump(value)
    data = stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return data.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")


def chumpy_array(array: np.ndarray):
    """Returns an object that pickles as chumpy's does (class chumpy.ch.Ch, the array in its state's x)."""
    if "chumpy.ch" not in sys.modules:
        package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

        class Ch:
            def __getstate__(self):
                return {"x": self.x, "_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}}

        Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
        module.Ch = Ch
        sys.modules |= {"chumpy": package, "chumpy.ch": module}
    value = sys.modules["chumpy.ch"].Ch()
    value.x = array
    return value


def forget_chumpy() -> None:
    """Takes the stub away again: what reads the file must not need it."""
    for name in ("chumpy", "chumpy.ch"):
        sys.modules.pop(name, None)


def face_mesh():
    """Returns the embedded head's skin and eyes: vertices (V, 3) metres, faces, their ids in the head."""
    head = load_face_model()
    inner = np.isin(head.labels, [LABEL_INDEX[n] for n in ("teeth", "tongue", "lashes", "brows", "ears")])
    # The front alone: tests write it often.
    keep = ~inner[head.faces].any(1) & ((head.vertices[:, 2] > 0.01) | ~(head.skin_weights[:, 2:].sum(1) == 0))[
        head.faces
    ].all(1)
    used = np.unique(head.faces[keep])
    number = np.full(len(head.vertices), -1)
    number[used] = np.arange(len(used))
    return head.vertices[used].astype(np.float64), number[head.faces[keep]], used


def flame_arrays(seed: int = 0) -> dict:
    """Returns FLAME's arrays (dense) on the embedded head's mesh, elsewhere in space."""
    rng = np.random.default_rng(seed)
    vertices, faces, used = face_mesh()
    head = load_face_model()
    weights = np.concatenate([1 - head.skin_weights.sum(1, keepdims=True), head.skin_weights], 1)[used]
    regressor = np.zeros((5, len(used)))
    regressor[:3, :40] = rng.dirichlet(np.ones(40), 3)
    for joint in (3, 4):
        regressor[joint] = head.joint_regressor[joint - 1, used]
    return {
        "v_template": vertices + [0.01, -0.03, 0.02],
        "f": faces.astype(np.uint32),
        "shapedirs": rng.standard_normal((len(used), 3, 400), np.float32) * np.float32(1e-3),
        "posedirs": rng.normal(0, 1e-4, (len(used), 3, 36)),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def flame_2020(seed: int = 0) -> bytes:
    """Returns a pickle like FLAME 2020's generic_model.pkl: Python 2, chumpy arrays, a sparse regressor."""
    arrays = flame_arrays(seed)
    arrays["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    for key in ("shapedirs", "v_template", "posedirs", "weights"):
        arrays[key] = chumpy_array(arrays[key]) if key == "shapedirs" else arrays[key]
    data = old_pickle(arrays)
    forget_chumpy()
    return data


def landmark_vertices() -> np.ndarray:
    """Returns the 68 landmarks' vertices in ``face_mesh`` (brows: the nearest skin)."""
    from scipy.spatial import cKDTree

    head = load_face_model()
    points = head.landmark_model().vertices
    return cKDTree(face_mesh()[0]).query(points)[1]


def embedding(count: int = 68) -> dict:
    """Returns a static landmark embedding of 68 or 51 points."""
    from models.face.dense import vertex_embedding

    ids, weights = vertex_embedding(face_mesh()[1], landmark_vertices()[68 - count :])
    return {"lmk_face_idx": ids.astype(np.uint32), "lmk_b_coords": weights.astype(np.float64)}


def tiny_flame_arrays() -> dict:
    """Returns arrays of FLAME's layout on 60 random vertices: enough to be checked, not to be used."""
    rng = np.random.default_rng(0)
    shapes = {"v_template": (60, 3), "shapedirs": (60, 3, 400), "posedirs": (60, 3, 36)}
    shapes |= {"J_regressor": (5, 60), "weights": (60, 5)}
    arrays = {key: rng.random(shape) for key, shape in shapes.items()}
    table = np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64)
    return arrays | {"f": rng.integers(0, 60, (100, 3)), "kintree_table": table}


def bfm_arrays(seed: int = 0) -> dict:
    """Returns the arrays of Deep3DFaceRecon's BFM_model_front.mat on the embedded head's mesh, in decimetres."""
    rng = np.random.default_rng(seed)
    vertices, faces, _ = face_mesh()
    count = len(vertices)
    return {
        "meanshape": (vertices * 10 + [0.1, -0.4, 0.9]).reshape(1, -1).astype(np.float32),
        "idBase": rng.normal(0, 0.01, (3 * count, 80)).astype(np.float32),
        "exBase": rng.normal(0, 0.01, (3 * count, 64)),
        "meantex": rng.uniform(0, 255, (1, 3 * count)).astype(np.float32),
        "texBase": rng.normal(0, 5, (3 * count, 80)).astype(np.float32),
        "tri": (faces + 1).astype(np.int32),
        "keypoints": (landmark_vertices() + 1).reshape(1, 68).astype(np.int32),
    }
