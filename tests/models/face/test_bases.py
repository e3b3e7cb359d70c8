import numpy as np
import pytest

from models.face.model import deform, dense_landmarks, landmarks68, load_face_model
from models.labels import LABEL_INDEX


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def _landmarks(model, **coefficients):
    shape, expression = np.zeros(model.num_shape, np.float32), np.zeros(model.num_expression, np.float32)
    for name, value in coefficients.items():
        if name in model.shape_names:
            shape[model.shape_names.index(name)] = value
        else:
            expression[model.expression_index(name)] = value
    return landmarks68(model, deform(model, shape, expression)) * 1000


def _gap(points):
    return points[[61, 62, 63], 1].mean() - points[[65, 66, 67], 1].mean()


def _mouth_width(points):
    return points[54, 0] - points[48, 0]


def _eye_height(points, first):
    return points[[first + 1, first + 2], 1].mean() - points[[first + 4, first + 5], 1].mean()


def test_lips_close_over_an_open_jaw(model):
    open_ = _landmarks(model, jaw_x=0.07)
    assert _gap(_landmarks(model, jaw_x=0.07, lip_close=0.6)) < 0.5 * _gap(open_)


def test_lip_round_narrows_and_spread_widens(model):
    rest = _landmarks(model)
    rounded, spread = _landmarks(model, lip_round=1), _landmarks(model, lip_spread=1)
    assert _mouth_width(rounded) < 0.75 * _mouth_width(rest)
    assert _mouth_width(spread) > 1.12 * _mouth_width(rest)
    assert rounded[[51, 57], 2].min() > rest[[51, 57], 2].max()  # pushed forward


def test_lip_press_thins_the_lips(model):
    def thickness(p):
        return p[51, 1] - p[57, 1]

    assert thickness(_landmarks(model, lip_press=1)) < 0.75 * thickness(_landmarks(model))


@pytest.mark.parametrize(
    ("name", "ids", "sign"), [("upper_lip_raise", [50, 51, 52, 62], 1), ("lower_lip_lower", [56, 57, 58, 66], -1)]
)
def test_one_lip_moves_and_the_other_stays(model, name, ids, sign):
    rest, moved = _landmarks(model), _landmarks(model, **{name: 1})
    assert (sign * (moved - rest)[ids, 1] > 2).all()
    other = [56, 57, 58, 66] if sign > 0 else [50, 51, 52, 62]
    assert np.abs((moved - rest)[other]).max() < 0.3


def test_smile_moves_the_corners_out_and_up_and_lifts_the_cheeks(model):
    rest, moved = _landmarks(model), _landmarks(model, smile=1)
    assert (moved - rest)[54, 0] > 3 and (moved - rest)[48, 0] < -3
    points = [deform(model, np.zeros(model.num_shape, np.float32), model.expression(smile=k)) for k in (0.0, 1.0)]
    cheeks = np.isin(model.dense_regions, ("cheek_left", "cheek_right"))
    lifted = (dense_landmarks(model, points[1]) - dense_landmarks(model, points[0]))[cheeks] * 1000
    assert lifted[:, 1].max() > 2.5 and lifted[:, 1].min() > -0.5


@pytest.mark.parametrize(("name", "sign"), [("smile", 1), ("frown", -1)])
def test_mouth_corners(model, name, sign):
    rest, moved = _landmarks(model), _landmarks(model, **{name: 1})
    assert (sign * (moved - rest)[[48, 54], 1] > 4).all()
    assert np.abs((moved - rest)[[51, 57], 1]).max() < 1.5


@pytest.mark.parametrize(("name", "first", "other"), [("blink_right", 36, 42), ("blink_left", 42, 36)])
def test_blink_closes_one_eye(model, name, first, other):
    rest, closed = _landmarks(model), _landmarks(model, **{name: 1})
    assert _eye_height(rest, first) > 8 and _eye_height(closed, first) < 1.5
    assert _eye_height(closed, other) == pytest.approx(_eye_height(rest, other), abs=1e-3)


def test_closed_lids_lie_over_the_eyeball(model):
    expression = np.zeros(model.num_expression, np.float32)
    for amount in (0.0, 0.25, 0.5, 0.75, 1.0):
        expression[[model.expression_index("blink_left"), model.expression_index("blink_right")]] = amount
        points = deform(model, np.zeros(model.num_shape, np.float32), expression) * 1000
        skin = points[model.labels == LABEL_INDEX["face"]]
        for x in (-31.5, 31.5):
            offset = skin - [x, 0, 66]
            near = (np.hypot(offset[:, 0], offset[:, 1]) < 11) & (offset[:, 2] > 0)
            assert np.linalg.norm(offset[near], axis=1).min() > 12.2


@pytest.mark.parametrize(("name", "sign"), [("brow_raise", 1), ("brow_lower", -1)])
def test_brows(model, name, sign):
    rest, moved = _landmarks(model), _landmarks(model, **{name: 1})
    assert (sign * (moved - rest)[17:27, 1] > 1).all()
    assert np.abs((moved - rest)[36:48]).max() < 1.5


def test_every_direction_moves_something_and_no_two_are_the_same(model):
    for basis in (model.shape_basis, model.expression_basis):
        flat = basis.reshape(-1, basis.shape[-1]).astype(np.float64)
        size = np.linalg.norm(flat, axis=0)
        assert (size > 0).all()
        cosine = np.abs((flat / size).T @ (flat / size)) - np.eye(flat.shape[1])
        assert cosine.max() < 0.97


@pytest.mark.parametrize(
    ("name", "measure", "low", "high"),
    [
        ("face_width", lambda p: p[16, 0] - p[0, 0], 3, 8),
        ("nose_length", lambda p: p[27, 1] - p[33, 1], 1.5, 4),
        ("nose_width", lambda p: p[35, 0] - p[31, 0], 2, 6),
        ("eye_distance", lambda p: p[42, 0] - p[39, 0], 2, 5),
        ("mouth_width", _mouth_width, 2, 6),
        ("jaw_width", lambda p: p[12, 0] - p[4, 0], 3, 10),
        ("chin_length", lambda p: p[57, 1] - p[8, 1], 2, 6),
        ("brow_height", lambda p: p[17:27, 1].mean() - p[36:48, 1].mean(), 1, 4),
        ("eye_opening", lambda p: _eye_height(p, 36), 0.6, 2.5),
        ("upper_lip", lambda p: p[51, 1] - p[62, 1], 0.7, 2.5),
        ("lower_lip", lambda p: p[66, 1] - p[57, 1], 0.7, 2.5),
    ],
)
def test_identity_directions_say_what_they_do(model, name, measure, low, high):
    assert low < measure(_landmarks(model, **{name: 1})) - measure(_landmarks(model)) < high


def test_eyeballs_stay_round_under_any_identity(model):
    rng = np.random.default_rng(0)
    eye = np.isin(model.labels, [LABEL_INDEX["iris"], LABEL_INDEX["pupil"]]) & (model.vertices[:, 0] > 0)
    points = deform(
        model,
        rng.normal(size=(20, model.num_shape)).astype(np.float32),
        np.zeros((20, model.num_expression), np.float32),
    )
    moved = points[:, eye] - model.vertices[eye]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "measure", "low", "high"),
    [
        ("jaw_forward", lambda p: p[8, 2], 4, 6),
        ("lip_funnel", _gap, 5, 10),
        ("lip_funnel", lambda p: p[[51, 57], 2].mean(), 2, 6),
        ("mouth_side", lambda p: p[[51, 57], 0].mean(), 4, 6),
        ("nose_wrinkle", lambda p: p[[31, 35], 1].mean(), 1.5, 4),
        ("brow_inner_raise", lambda p: p[[21, 22], 1].mean() - p[[17, 26], 1].mean(), 2.5, 6),
        ("brow_outer_raise", lambda p: p[[17, 26], 1].mean() - p[[21, 22], 1].mean(), 2.5, 6),
        ("brow_lower", lambda p: p[21, 0] - p[22, 0], 1, 4),
        ("squint", lambda p: -_eye_height(p, 36) - _eye_height(p, 42), 5, 12),
        ("eyes_wide", lambda p: _eye_height(p, 36) + _eye_height(p, 42), 4, 8),
        ("lip_close", lambda p: -_gap(p), 6, 12),
    ],
)
def test_expression_directions_say_what_they_do(model, name, measure, low, high):
    assert low < measure(_landmarks(model, **{name: 1})) - measure(_landmarks(model)) < high


def _part(model, label, **coefficients):
    points = deform(model, np.zeros(model.num_shape, np.float32), model.expression(**coefficients)) * 1000
    return points[model.labels == LABEL_INDEX[label]]


def test_the_tongue_rises_and_comes_out(model):
    rest = _part(model, "tongue", jaw_x=0.1)
    tip = rest[:, 2] > rest[:, 2].max() - 4
    assert (_part(model, "tongue", jaw_x=0.1, tongue_up=1) - rest)[tip, 1].min() > 4
    assert _part(model, "tongue", jaw_x=0.1, tongue_out=1)[:, 2].max() > rest[:, 2].max() + 10


def test_cheeks_puff_outward(model):
    points = [deform(model, np.zeros(model.num_shape, np.float32), model.expression(cheek_puff=k)) for k in (0.0, 1.0)]
    moved = (dense_landmarks(model, points[1]) - dense_landmarks(model, points[0])) * 1000
    side = np.sign(dense_landmarks(model, points[0])[:, 0])
    assert (moved[:, 0] * side).max() > 3.5 and (moved[:, 0] * side).min() > -0.1 and moved[:, 2].max() > 4


def test_blinks_close_the_eyes_to_their_corners(model):
    """From in front nothing of an eyeball is seen."""
    from models.face.render import render_labels

    camera = np.array([3600, 128, 128], np.float32)
    shape, eye = np.zeros(model.num_shape, np.float32), [LABEL_INDEX[n] for n in ("sclera", "iris", "pupil")]
    expression = np.stack([model.expression(), model.expression(blink_left=1, blink_right=1)])
    pose = np.array([0, 0, 0, 0, 0, 1.5], np.float32)
    open_, closed = (np.isin(labels, eye).sum() for labels in render_labels(model, shape, expression, pose, camera))
    assert open_ > 1500 and closed < 0.03 * open_


@pytest.mark.parametrize(
    "coefficients",
    [
        {},
        {"jaw_x": 0.1},
        {"jaw_x": 0.35},
        {"jaw_x": 0.05, "lip_round": 1.0},
        {"jaw_x": 0.1, "smile": 1.0},
        {"jaw_x": 0.1, "lip_funnel": 1.0},
        {"lip_press": 0.4},
    ],
)
@pytest.mark.parametrize("yaw", [0.0, 0.5])
def test_teeth_and_tongue_show_through_the_open_mouth_only(model, coefficients, yaw):
    """Nothing of the mouth's inside comes through the lips: what is seen of it lies between them."""
    from models.face.camera import project
    from models.face.render import render_labels
    from models.face.surface import inside_polygon

    camera = np.array([3400, 128, -30], np.float32)
    pose = np.array([0, yaw, 0, 0, 0, 1.5], np.float32)
    shape, expression = np.zeros(model.num_shape, np.float32), model.expression(**coefficients)
    labels = render_labels(model, shape, expression[None], pose, camera)[0]
    rows, columns = np.where(np.isin(labels, [LABEL_INDEX[n] for n in ("teeth", "tongue", "other-in-mouth")]))
    lips = project(deform(model.landmark_model(), shape, expression), pose, camera)[48:60]
    seen = np.stack([columns, rows], -1) + 0.5
    if coefficients.get("jaw_x"):
        assert len(seen) > 50
    else:
        assert len(seen) < 130  # closed lips leave at most a line
    assert inside_polygon(seen, lips).all()
