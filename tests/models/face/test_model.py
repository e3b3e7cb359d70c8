import dataclasses

import numpy as np
import pytest

from models.errors import InputError
from models.face.model import ARRAYS, deform, load_face_model, save_face_model


def test_deform_is_mean_plus_bases_and_broadcasts():
    model = load_face_model()
    shape = np.zeros(model.num_shape, np.float32)
    expression = np.zeros((3, model.num_expression), np.float32)
    np.testing.assert_array_equal(deform(model, shape, expression[0]), model.vertices)
    shape[2], expression[1, 5], expression[2, 5] = 1.5, 0.5, 1.0
    out = deform(model, shape, expression)
    assert out.shape == (3, *model.vertices.shape) and out.dtype == np.float32
    expected = model.vertices + 1.5 * model.shape_basis[..., 2] + 0.5 * model.expression_basis[..., 5]
    np.testing.assert_allclose(out[1], expected, atol=1e-6)


def test_deform_with_jax_equals_numpy():
    import jax.numpy as jnp

    model = load_face_model().landmark_model()
    rng = np.random.default_rng(0)
    shape, expression = rng.normal(size=model.num_shape), rng.random((4, model.num_expression))
    shape, expression = shape.astype(np.float32), expression.astype(np.float32)
    out = deform(model, jnp.asarray(shape), jnp.asarray(expression))
    assert isinstance(out, jnp.ndarray)
    np.testing.assert_allclose(np.asarray(out), deform(model, shape, expression), atol=1e-6)


def test_landmark_model_keeps_the_landmarks():
    model = load_face_model()
    small = model.landmark_model()
    np.testing.assert_array_equal(small.vertices[small.landmarks68], model.vertices[model.landmarks68])
    assert small.shape_basis.shape == (68, 3, model.num_shape)


def test_save_and_load(tmp_path):
    model = load_face_model()
    path = tmp_path / "head.npz"
    save_face_model(path, model)
    again = load_face_model(path)
    assert again.name == model.name and again.expression_names == model.expression_names
    for field in dataclasses.fields(model):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(model, field.name))


def _arrays(vertices=80, shape=3, expression=2):
    rng = np.random.default_rng(0)
    return {
        "vertices": rng.normal(size=(vertices, 3)).astype(np.float32),
        "faces": rng.integers(0, vertices, (10, 3)).astype(np.int32),
        "shape_basis": np.zeros((vertices, 3, shape), np.float32),
        "expression_basis": np.zeros((vertices, 3, expression), np.float32),
        "expression_names": np.array(["a", "b"]),
        "landmarks68": np.arange(68, dtype=np.int32),
        "labels": np.ones(vertices, np.uint8),
    }


@pytest.mark.parametrize("missing", list(ARRAYS))
def test_missing_array_is_named(tmp_path, missing):
    arrays = _arrays()
    del arrays[missing]
    path = tmp_path / "m.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"array '{missing}' is missing, expected shape"):
        load_face_model(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "shape_basis",
            np.zeros((79, 3, 3), np.float32),
            r"'shape_basis' has shape \(79, 3, 3\), expected \(80, 3, Ns\)",
        ),
        ("landmarks68", np.arange(67), r"'landmarks68' has shape \(67,\), expected \(68\)"),
        ("faces", np.full((4, 3), 80), r"'faces' has values from 80 to 80, expected 0..79"),
        ("labels", np.full(80, 21), r"'labels' has values from 21 to 21, expected 0..20"),
    ],
)
def test_wrong_array_is_named(tmp_path, key, value, message):
    path = tmp_path / "m.npz"
    np.savez(path, **{**_arrays(), key: value})
    with pytest.raises(InputError, match=message):
        load_face_model(path)


def test_text_file_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    path.write_text("not arrays")
    with pytest.raises(InputError, match="not a face model"):
        load_face_model(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **{**_arrays(), "vertices": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(InputError, match="not a face model"):
        load_face_model(path)
