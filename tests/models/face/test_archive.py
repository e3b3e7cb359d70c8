import dataclasses

import numpy as np
import pytest

from models.errors import InputError
from models.face.archive import LAYOUT, save_face_model
from models.face.model import POSE_NAMES, deform, load_face_model


def test_save_and_load(tmp_path):
    model = load_face_model()
    path = tmp_path / "head.npz"
    save_face_model(path, model)
    again = load_face_model(path)
    for field in dataclasses.fields(model):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(model, field.name), field.name)
    assert [p.name for p in tmp_path.iterdir()] == ["head.npz"]


def _arrays(vertices=80, shape=3, blends=2):
    rng = np.random.default_rng(0)
    names = [*[f"blend_{k}" for k in range(blends)], *POSE_NAMES]
    weights = rng.random((vertices, 5))
    return {
        "vertices": rng.normal(size=(vertices, 3)).astype(np.float32),
        "faces": rng.integers(0, vertices, (10, 3)),
        "shape_basis": rng.normal(size=(vertices, 3, shape)),
        "expression_basis": rng.normal(size=(vertices, 3, blends)),
        "expression_names": np.array(names),
        "expression_range": np.tile([-1.0, 1.0], (len(names), 1)),
        "joint_regressor": np.full((4, vertices), 1 / vertices),
        "skin_weights": (weights / weights.sum(1, keepdims=True))[:, 1:],
        "landmark_faces": rng.integers(0, 10, 68),
        "landmark_barycentric": rng.dirichlet([1, 1, 1], 68),
        "dense_faces": rng.integers(0, 10, 20),
        "dense_barycentric": rng.dirichlet([1, 1, 1], 20),
        "dense_names": np.array([f"cheek_left_{k}" for k in range(20)]),
        "labels": np.ones(vertices, np.uint8),
    }


def test_a_file_of_the_documented_arrays_alone_is_a_model(tmp_path):
    np.savez(tmp_path / "mine.npz", **_arrays())
    model = load_face_model(tmp_path / "mine.npz")
    assert model.name == "mine" and model.pose_basis is None and model.shape_names == () and model.notes == ()
    assert model.num_expression == 7 and set(model.dense_regions) == {"cheek_left"}
    out = deform(model, np.zeros(3, np.float32), model.expression(jaw_x=0.2, blend_1=1))
    assert out.shape == (80, 3) and np.isfinite(out).all()


@pytest.mark.parametrize("missing", list(LAYOUT))
def test_missing_array_is_named(tmp_path, missing):
    arrays = _arrays()
    del arrays[missing]
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError, match=f"array '{missing}' is missing, expected shape"):
        load_face_model(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape_basis", np.zeros((79, 3, 3)), r"'shape_basis' has shape \(79, 3, 3\), expected \(80, 3, Ns\)"),
        ("landmark_faces", np.zeros(67), r"'landmark_faces' has shape \(67,\), expected \(68,\)"),
        ("faces", np.full((10, 3), 80), r"'faces' has values from 80 to 80, expected 0..79"),
        ("dense_faces", np.full(20, 10), r"'dense_faces' has values from 10 to 10, expected 0..9"),
        ("labels", np.full(80, 21), r"'labels' has values from 21 to 21, expected 0..20"),
        ("joint_regressor", np.zeros((5, 80)), r"'joint_regressor' has shape \(5, 80\), expected \(4, 80\)"),
        ("pose_basis", np.zeros((80, 3, 9)), r"'pose_basis' has shape \(80, 3, 9\), expected \(80, 3, 36\)"),
        ("expression_names", np.array(list("abcdefg")), "then jaw_x, jaw_y, jaw_z, gaze_x, gaze_y"),
    ],
)
def test_wrong_array_is_named(tmp_path, key, value, message):
    np.savez(tmp_path / "m.npz", **{**_arrays(), key: value})
    with pytest.raises(InputError, match=message):
        load_face_model(tmp_path / "m.npz")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "m.npz", **{**_arrays(), "vertices": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(InputError, match="array 'vertices' has shape"):
        load_face_model(tmp_path / "m.npz")
