import pickle

import numpy as np
import pytest
from scipy import sparse

from models.errors import InputError
from models.face.camera import rotation_matrix
from models.face.flame import LAYOUT, from_flame, read_embedding
from models.face.model import deform, landmarks68, load_face_model
from models.labels import LABEL_INDEX
from tests.models.face.released import (
    embedding,
    face_mesh,
    flame_2020,
    flame_arrays,
    landmark_vertices,
    tiny_flame_arrays,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flame")
    (folder / "generic_model.pkl").write_bytes(flame_2020())
    np.savez(folder / "flame_static_embedding_68_v4.npz", **embedding())
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_face_model(folder / "generic_model.pkl")


def test_the_2020_pickle_is_read(model):
    arrays = flame_arrays()
    assert model.name == "generic_model" and model.num_shape == 300 and model.num_blend == 100
    assert model.num_expression == 105 and model.expression_names[99:102] == ("expression_099", "jaw_x", "jaw_y")
    np.testing.assert_allclose(model.shape_basis, arrays["shapedirs"][..., :300], atol=1e-9)
    np.testing.assert_allclose(model.expression_basis, arrays["shapedirs"][..., 300:], atol=1e-9)
    np.testing.assert_allclose(model.pose_basis, arrays["posedirs"], atol=1e-9)
    assert any("dense" in note for note in model.notes) and any("labels" in note for note in model.notes)


def test_the_origin_is_the_heads_centre(model):
    # The embedded head's own mesh was shifted; loading brings it back.
    np.testing.assert_allclose(model.vertices, face_mesh()[0], atol=2e-4)
    np.testing.assert_allclose(model.joints[2:].mean(0), [0, 0, 0.066], atol=1e-5)


def test_deform_is_flames_own_skinning(model):
    """Against FLAME's published recipe written out: blend, correct, regress joints, chain transforms, blend them."""
    rng = np.random.default_rng(1)
    arrays = flame_arrays()
    shape, blends = rng.normal(size=300).astype(np.float32), rng.normal(size=100).astype(np.float32)
    neck, jaw, gaze = np.array([0.1, 0.2, -0.1]), np.array([0.25, 0.05, 0.02]), (0.2, -0.15)
    angles = [np.zeros(3), neck, jaw, np.array([-gaze[1], gaze[0], 0]), np.array([-gaze[1], gaze[0], 0])]
    turns = [rotation_matrix(a) for a in angles]
    shaped = arrays["v_template"] + arrays["shapedirs"] @ np.concatenate([shape, np.zeros(100)])
    joints = arrays["J_regressor"] @ shaped
    points = shaped + arrays["shapedirs"] @ np.concatenate([np.zeros(300), blends])
    points = points + arrays["posedirs"] @ np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    world = []
    for j, parent in enumerate([None, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = joints[j] - (0 if parent is None else joints[parent])
        world.append(local if parent is None else world[parent] @ local)
    for j in range(5):
        back = np.eye(4)
        back[:3, 3] = -joints[j]
        world[j] = world[j] @ back
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], 1)
    expected = np.einsum("vj,jab,vb->va", arrays["weights"], np.array(world), homogeneous)[:, :3]
    expression = np.concatenate([blends, jaw, gaze]).astype(np.float32)
    out = deform(model, shape, expression, neck.astype(np.float32))
    shift = model.vertices - arrays["v_template"]
    np.testing.assert_allclose(out - shift[0], expected, atol=2e-5)


def test_landmarks_are_the_embeddings(model):
    expected = model.vertices[landmark_vertices()]
    np.testing.assert_allclose(landmarks68(model, model.vertices), expected, atol=1e-6)


def test_labels_are_derived_from_the_embedded_head(model):
    head = load_face_model()
    truth = head.labels[face_mesh()[2]]
    for name in ("face", "neck", "lips", "nose", "iris", "sclera", "pupil"):
        mine, true = model.labels == LABEL_INDEX[name], truth == LABEL_INDEX[name]
        assert (mine & true).sum() / (mine | true).sum() > 0.7, name


def test_dense_landmarks_lie_in_their_regions(model):
    points = model.dense_model().vertices
    head = load_face_model()
    distance = np.linalg.norm(points - head.dense_model().vertices, axis=1)
    assert distance.mean() < 2e-3 and distance.max() < 9e-3
    assert model.dense_names == head.dense_names


def test_masks_replace_the_derived_labels(folder, model, tmp_path):
    count = len(face_mesh()[0])
    regions = ["face", "forehead", "eye_region", "scalp", "neck", "boundary", "nose", "lips", "left_ear", "right_ear"]
    masks = {name: np.zeros(0, np.int64) for name in regions}
    masks["left_ear"] = np.arange(100, 140)
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 2))
    plain, model = model, load_face_model(folder / "generic_model.pkl", masks=tmp_path / "FLAME_masks.pkl")
    changed = plain.labels != model.labels
    assert (model.labels[changed] == LABEL_INDEX["ears"]).all() and changed.sum() > 20 and len(changed) == count
    del masks["lips"]
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 2))
    with pytest.raises(InputError, match="'lips' is missing"):
        load_face_model(folder / "generic_model.pkl", masks=tmp_path / "FLAME_masks.pkl")


def test_51_landmarks_get_a_contour(folder, model, tmp_path):
    (tmp_path / "flame_static_embedding.pkl").write_bytes(pickle.dumps(embedding(51), 2))
    path = tmp_path / "flame_static_embedding.pkl"
    full, model = model, load_face_model(folder / "generic_model.pkl", landmarks=path)
    mine, truth = landmarks68(model, model.vertices), landmarks68(full, full.vertices)
    np.testing.assert_allclose(mine[17:], truth[17:], atol=1e-6)
    np.testing.assert_allclose(mine[:17], truth[:17], atol=5e-3)
    assert any("contour" in note for note in model.notes)


def test_decas_embedding(tmp_path):
    static = embedding()
    value = {
        "full_lmk_faces_idx": static["lmk_face_idx"][None].astype(np.int64),
        "full_lmk_bary_coords": static["lmk_b_coords"][None],
    }
    np.save(tmp_path / "landmark_embedding.npy", value, allow_pickle=True)
    ids, weights = read_embedding(str(tmp_path / "landmark_embedding.npy"), len(face_mesh()[1]), False)
    np.testing.assert_array_equal(ids, static["lmk_face_idx"])
    np.testing.assert_array_equal(weights, static["lmk_b_coords"])


def test_npz_with_a_pickled_sparse_regressor(tmp_path, model):
    arrays = flame_arrays()
    arrays["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    np.savez(tmp_path / "flame2023.npz", **arrays)
    np.savez(tmp_path / "flame_static_embedding_68.npz", **embedding())
    again = load_face_model(tmp_path / "flame2023.npz")
    assert again.name == "flame2023"
    np.testing.assert_array_equal(again.joint_regressor, model.joint_regressor)


def test_without_an_embedding_the_error_says_what_is_expected(tmp_path):
    np.savez(tmp_path / "flame.npz", **flame_arrays())
    with pytest.raises(InputError, match="no landmarks; expected.*flame_static_embedding_68"):
        load_face_model(tmp_path / "flame.npz")


@pytest.mark.parametrize("missing", [key for key in LAYOUT if key != "v_template"] + ["v_template"])
def test_missing_array_is_named(folder, tmp_path, missing):
    arrays = tiny_flame_arrays()
    del arrays[missing]
    np.savez(tmp_path / "flame.npz", **arrays)
    with pytest.raises(InputError, match=rf"'{missing}' is missing, expected shape \("):
        load_face_model(tmp_path / "flame.npz", landmarks=folder / "flame_static_embedding_68_v4.npz")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("shapedirs", lambda a: a[..., :150], r"'shapedirs' has shape \(\d+, 3, 150\), expected \(\d+, 3, 400\)"),
        ("weights", lambda a: a[:, :4], r"'weights' has shape \(\d+, 4\), expected \(\d+, 5\)"),
        ("posedirs", lambda a: a[:-1], r"'posedirs' has shape"),
        ("f", lambda a: a + 1, "'f' has values from 1 to 60, expected 0..59"),
        ("kintree_table", lambda a: a[:, ::-1], "'kintree_table' has the parents"),
    ],
)
def test_wrong_array_is_named(folder, tmp_path, key, change, message):
    arrays = tiny_flame_arrays()
    arrays[key] = change(arrays[key])
    np.savez(tmp_path / "flame.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_face_model(tmp_path / "flame.npz", landmarks=folder / "flame_static_embedding_68_v4.npz")


def test_another_unit_is_noticed(folder):
    arrays = flame_arrays()
    arrays["v_template"] = arrays["v_template"] * 1000
    with pytest.raises(InputError, match="outer eye corners are .* m apart"):
        from_flame("f.pkl", arrays, str(folder / "flame_static_embedding_68_v4.npz"), None, False)


def test_wrong_embeddings_are_named(folder, tmp_path):
    good = embedding()
    path = tmp_path / "e.npz"
    for change, message in (
        ({"lmk_face_idx": good["lmk_face_idx"][:60], "lmk_b_coords": good["lmk_b_coords"][:60]}, r"expected \(68,\)"),
        ({"lmk_face_idx": good["lmk_face_idx"] + 10**6}, "'lmk_face_idx' has values"),
        ({"lmk_b_coords": good["lmk_b_coords"][:, :2]}, r"'lmk_b_coords' has shape \(68, 2\), expected \(68, 3\)"),
    ):
        np.savez(path, **(good | change))
        with pytest.raises(InputError, match=message):
            read_embedding(str(path), len(face_mesh()[1]), False)
