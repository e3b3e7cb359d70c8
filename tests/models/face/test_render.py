import numpy as np

from models.face.camera import default_camera, default_pose, project, rotation_matrix
from models.face.model import deform, landmarks68, load_face_model
from models.face.render import (
    blend_rows,
    halve,
    motion,
    render,
    render_labels,
    render_preview,
    shade,
    sheet_faces,
    skin_to_camera,
    vertex_normals,
)
from models.labels import LABEL_INDEX


def _flat(values):
    return np.repeat(np.asarray(values, np.float32)[:, None], 3, 1)


def test_a_triangle_covers_the_pixels_whose_centres_it_holds():
    points = np.array([[1, 1, 1], [1, 5, 1], [5, 1, 1]], np.float32)  # counter-clockwise with y up: shows its front
    color, label, depth = render(
        points, [[0, 1, 2]], _flat([200] * 3), _flat([50] * 3), [3, 3, 3], np.zeros((6, 7, 3), np.uint8)
    )
    expected = np.zeros((6, 7), bool)
    for i in range(6):
        for j in range(7):
            x, y = j + 0.5 - 1, i + 0.5 - 1
            expected[i, j] = x >= 0 and y >= 0 and x + y <= 4
    np.testing.assert_array_equal(label == 3, expected)
    assert (color[expected] >= 199).all() and (color[~expected] == 0).all()
    assert np.isinf(depth[~expected]).all() and np.allclose(depth[expected], 1)


def test_neighbours_leave_no_crack():
    rng = np.random.default_rng(0)
    inner = rng.uniform(5, 35, 2)
    corners = np.array([[0, 0], [40, 0], [40, 40], [0, 40]], float)
    points = np.concatenate([corners, inner[None]]).astype(np.float32)
    points = np.concatenate([points, np.ones((5, 1), np.float32)], 1)
    _, label, _ = render(
        points,
        [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]],
        _flat([9] * 5),
        _flat([9] * 5),
        [1] * 5,
        np.zeros((40, 40, 3)),
    )
    assert (label == 1).all()


def test_the_nearer_surface_wins_in_either_order():
    square = [[0, 0], [0, 8], [8, 8], [8, 0]]
    near, far = ([[*p, z] for p in square] for z in (1.0, 2.0))
    points = np.array(near + far, np.float32)
    front = _flat([250] * 4 + [10] * 4)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    for order in (faces, faces[::-1]):
        color, label, depth = render(points, order, front, front, [1] * 4 + [2] * 4, np.zeros((8, 8, 3)))
        assert (label == 1).all() and (color >= 249).all() and (depth == 1).all()


def test_sides_and_culling():
    points = np.array([[0, 0, 1], [8, 0, 1], [0, 8, 1]], np.float32)  # shows its back
    shown, _, _ = render(points, [[0, 1, 2]], _flat([200] * 3), _flat([60] * 3), [1] * 3, np.zeros((8, 8, 3)))
    assert 59 <= shown[1, 1, 0] <= 60
    _, label, _ = render(
        points, [[0, 1, 2]], _flat([200] * 3), _flat([60] * 3), [1] * 3, np.zeros((8, 8, 3)), np.zeros(1)
    )
    assert (label == 0).all()


def test_colours_are_interpolated():
    points = np.array([[0, 0, 1], [0, 20, 1], [20, 0, 1]], np.float32)
    front = np.array([[0, 0, 0], [0, 200, 0], [200, 0, 0]], np.float32)
    color, _, _ = render(points, [[0, 1, 2]], front, front, [0] * 3, np.zeros((20, 20, 3)))
    assert abs(int(color[0, 10, 0]) - 105) <= 1 and abs(int(color[10, 0, 1]) - 105) <= 1


def test_behind_the_camera_is_not_drawn():
    points = np.array([[0, 0, -1], [0, 8, 1], [8, 0, 1]], np.float32)
    assert (render(points, [[0, 1, 2]], _flat([9] * 3), _flat([9] * 3), [1] * 3, np.zeros((8, 8, 3)))[1] == 0).all()


def test_normals_and_light():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    normals = vertex_normals(points, np.array([[0, 2, 1]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, -1]] * 3)
    light = np.array([0, 0, -1], np.float32)
    front, back = shade(
        normals, np.full((3, 3), 0.5, np.float32), np.zeros(3, np.float32), light, np.ones(3, np.float32), 0.2
    )
    assert (front > 1.5 * back).all() and front.max() <= 255


def test_halve_is_the_mean():
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
    expected = np.floor(image.reshape(4, 2, 5, 2, 3).sum((1, 3)) / 4 + 0.5)
    np.testing.assert_array_equal(halve(image), expected)


def test_a_posed_head_in_camera_axes_is_the_deformed_model():
    """The compiled pass gives what ``deform`` gives, for the face's vertices and for what rides on the head."""
    model = load_face_model()
    rng = np.random.default_rng(0)
    low, high = model.expression_range.T
    shape = rng.normal(size=model.num_shape).astype(np.float32)
    expression = (low + (high - low) * rng.random((2, model.num_expression))).astype(np.float32)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    extra = rng.normal(size=(5, 3)).astype(np.float32)
    vertices = np.concatenate([person, extra])
    follow = rng.random(len(vertices)).astype(np.float32)
    head, torso = (rotation_matrix(rng.normal(size=3).astype(np.float32)) for _ in range(2))
    a, b = rng.normal(size=(2, 3)).astype(np.float32)
    coefficients, transforms = motion(model, shape, expression)
    for t in range(2):
        moved = np.concatenate([deform(model, shape, expression[t]), extra]) * [1, -1, -1]
        expected = follow[:, None] * (moved @ head.T + a) + (1 - follow[:, None]) * (moved @ torso.T + b)
        points = skin_to_camera(
            vertices,
            blend_rows(model),
            coefficients[t],
            model.skin_weights,
            transforms[t],
            follow,
            head,
            a,
            torso,
            b,
        )
        np.testing.assert_allclose(points, expected, atol=1e-5)


def test_preview_shows_a_face_that_opens_its_mouth():
    model = load_face_model()
    expression = np.zeros((2, model.num_expression), np.float32)
    expression[1, model.expression_index("jaw_x")] = 0.2
    shape = np.zeros(model.num_shape, np.float32)
    frames = render_preview(model, shape, expression, size=128)
    assert frames.shape == (2, 128, 128, 3) and frames.dtype == np.uint8
    assert (frames[0, 0, 0] == frames[0, 0, -1]).all() and frames[0, 64, 64].mean() > 100
    changed = np.abs(frames[1].astype(int) - frames[0]).max(-1) > 8
    rows = np.where(changed.any(1))[0]
    assert rows.min() > 70  # below the nose only


def test_labels_lie_where_the_landmarks_are():
    model = load_face_model()
    shape, expression = np.zeros(model.num_shape, np.float32), np.zeros((1, model.num_expression), np.float32)
    labels = render_labels(model, shape, expression, size=256)
    assert labels.shape == (1, 256, 256) and labels.dtype == np.uint8
    points = project(landmarks68(model, model.vertices), default_pose(), default_camera(256))

    def at(ids):
        x, y = points[ids].mean(0).astype(int)
        return labels[0, y, x]

    assert at(range(36, 42)) in (LABEL_INDEX["iris"], LABEL_INDEX["pupil"])
    assert at([51, 62]) == at([57, 66]) == LABEL_INDEX["lips"]
    assert (
        at([19]) == LABEL_INDEX["brows"] and at([28]) == LABEL_INDEX["nose"] and at([27, 19, 24]) == LABEL_INDEX["face"]
    )
    assert labels[0, 2, 2] == LABEL_INDEX["background"]
    expression[0, model.expression_index("jaw_x")] = 0.2
    inside = render_labels(model, shape, expression, size=256)[0]
    for name in ("teeth", "tongue", "other-in-mouth"):
        assert (inside == LABEL_INDEX[name]).sum() > 5


def test_sheets_are_the_parts_without_a_back():
    model = load_face_model()
    sheets = sheet_faces(model)
    corners = model.labels[model.faces]
    for name, sheet in (("teeth", True), ("lashes", True), ("face", False), ("sclera", False)):
        assert (sheets[(corners == LABEL_INDEX[name]).all(1)] == sheet).all()
