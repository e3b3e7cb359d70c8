import numpy as np
import pytest
from scipy.io import savemat

from models.errors import InputError
from models.face.bfm import LAYOUT, from_bfm
from models.face.model import JOINT_NAMES, deform, landmarks68, load_face_model
from models.labels import LABEL_INDEX
from tests.models.face.released import bfm_arrays, face_mesh, landmark_vertices


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bfm") / "BFM_model_front.mat"
    savemat(path, bfm_arrays())
    return load_face_model(path)


def test_decimetres_become_metres_about_the_heads_centre(model):
    arrays = bfm_arrays()
    assert model.name == "BFM_model_front" and model.num_shape == 80 and model.num_expression == 64 + 5
    np.testing.assert_allclose(model.vertices, face_mesh()[0], atol=1e-3)
    np.testing.assert_allclose(model.shape_basis.reshape(-1, 80), arrays["idBase"] / 10, atol=1e-7)
    np.testing.assert_allclose(model.expression_basis.reshape(-1, 64), arrays["exBase"] / 10, atol=1e-7)


def test_triangles_and_landmarks_count_from_zero(model):
    np.testing.assert_array_equal(model.faces, face_mesh()[1])
    expected = model.vertices[landmark_vertices()]
    np.testing.assert_allclose(landmarks68(model, model.vertices), expected, atol=1e-7)


def test_triangles_that_look_inward_are_turned():
    arrays = bfm_arrays()
    arrays["tri"] = arrays["tri"][:, ::-1]
    np.testing.assert_array_equal(from_bfm("b.mat", arrays).faces, face_mesh()[1])


def test_its_joints_do_nothing_and_the_notes_say_so(model):
    shape = np.zeros(80, np.float32)
    posed = deform(model, shape, model.expression(jaw_x=0.3, gaze_x=0.2), np.array([0.2, 0, 0], np.float32))
    np.testing.assert_array_equal(posed, model.vertices)
    assert (model.expression_range[-5:] == 0).all() and any("BFM has none" in note for note in model.notes)
    head = load_face_model()
    assert model.joints.shape == (len(JOINT_NAMES), 3)
    np.testing.assert_allclose(model.joints, head.joints, atol=0.012)


def test_derived_labels_and_dense_points(model):
    head = load_face_model()
    truth = head.labels[face_mesh()[2]]
    for name in ("face", "lips", "nose"):
        mine, true = model.labels == LABEL_INDEX[name], truth == LABEL_INDEX[name]
        assert (mine & true).sum() / (mine | true).sum() > 0.7, name
    assert (model.labels == LABEL_INDEX["iris"]).any() and (model.labels == LABEL_INDEX["brows"]).any()
    distance = np.linalg.norm(model.dense_model().vertices - head.dense_model().vertices, axis=1)
    assert distance.mean() < 2e-3 and distance.max() < 9e-3


@pytest.mark.parametrize("missing", list(LAYOUT))
def test_missing_array_is_named(missing):
    arrays = bfm_arrays()
    del arrays[missing]
    with pytest.raises(InputError, match=rf"'{missing}' is missing, expected shape \("):
        from_bfm("b.mat", arrays)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("idBase", lambda a: a[:-3], r"'idBase' has shape \(\d+, 80\), expected \(\d+, 80\)"),
        ("exBase", lambda a: a[:, :29], r"'exBase' has shape \(\d+, 29\), expected \(\d+, 64\)"),
        ("keypoints", lambda a: a[:, :67], r"'keypoints' has shape \(67,\), expected \(68,\)"),
        ("keypoints", lambda a: a * 0, "'keypoints.*' has values from -1"),
        ("tri", lambda a: a + 10**6, "'tri.*' has values"),
    ],
)
def test_wrong_array_is_named(key, change, message):
    arrays = bfm_arrays()
    arrays[key] = change(arrays[key])
    with pytest.raises(InputError, match=message):
        from_bfm("b.mat", arrays)


def test_another_unit_is_noticed():
    arrays = bfm_arrays()
    arrays["meanshape"] = arrays["meanshape"] * 10
    with pytest.raises(InputError, match="outer eye corners"):
        from_bfm("b.mat", arrays)


def test_torn_file(tmp_path):
    savemat(tmp_path / "b.mat", bfm_arrays())
    data = (tmp_path / "b.mat").read_bytes()
    (tmp_path / "b.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a MATLAB file|is missing"):
        load_face_model(tmp_path / "b.mat")
