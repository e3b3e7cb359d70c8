import numpy as np
import pytest

from models.face import rig
from models.face.model import JOINT_NAMES, deform, landmarks68, load_face_model
from models.labels import LABEL_INDEX


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def _points(model, **coefficients):
    return deform(model, np.zeros(model.num_shape, np.float32), model.expression(**coefficients)) * 1000


def _landmarks(model, **coefficients):
    return landmarks68(model, _points(model, **coefficients))


def _gap(points):
    return points[[61, 62, 63], 1].mean() - points[[65, 66, 67], 1].mean()


def test_joints_are_where_they_are_said_to_be(model):
    np.testing.assert_allclose(model.joints * 1000, [rig.JOINTS[name] for name in JOINT_NAMES], atol=1e-3)


def test_weights_are_shares(model):
    assert model.skin_weights.min() >= 0 and model.skin_weights.sum(1).max() < 1 + 1e-6
    for name, joint in (("teeth", 1), ("tongue", 1), ("pupil", 2), ("pupil", 3)):
        assert model.skin_weights[model.labels == LABEL_INDEX[name], joint].max() > 0.8
    cheek = (model.labels == LABEL_INDEX["face"]) & (model.vertices[:, 1] > -0.04)
    assert model.skin_weights[cheek, 1].max() < 0.5 and model.skin_weights[cheek, 2:].max() == 0


def test_the_jaw_opens_the_mouth_and_takes_the_chin_along(model):
    rest, open_ = _landmarks(model), _landmarks(model, jaw_x=0.2)
    assert 14 < _gap(open_) - _gap(rest) < 24
    assert 12 < rest[8, 1] - open_[8, 1] < 26
    np.testing.assert_allclose(open_[17:48], rest[17:48], atol=1.0)  # brows, nose and eyes stay
    assert np.abs(open_[[50, 51, 52]] - rest[[50, 51, 52]]).max() < 1.5  # so does the upper lip
    gaps = [_gap(_landmarks(model, jaw_x=angle)) for angle in np.linspace(0, 0.4, 9)]
    assert (np.diff(gaps) > 2).all()


def test_the_lower_teeth_keep_their_shape_as_the_jaw_turns(model):
    teeth = (model.labels == LABEL_INDEX["teeth"]) & (model.skin_weights[:, 1] == 1)
    rest, moved = _points(model)[teeth], _points(model, jaw_x=0.4, jaw_y=0.1)[teeth]

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    assert teeth.sum() > 100 and np.abs(moved - rest).max() > 15
    np.testing.assert_allclose(distances(moved), distances(rest), atol=1e-3)


@pytest.mark.parametrize(("name", "axis", "sign"), [("jaw_y", 0, 1), ("jaw_x", 1, -1)])
def test_the_jaw_turns_about_its_axes(model, name, axis, sign):
    moved = _landmarks(model, **{name: 0.08}) - _landmarks(model)
    assert (sign * moved[[6, 7, 8, 9, 10, 57], axis] > 3).all()


def test_jaw_z_lifts_the_left_side(model):
    moved = _landmarks(model, jaw_z=0.05) - _landmarks(model)
    assert moved[12, 1] > 0.5 and moved[4, 1] < -0.5


@pytest.mark.parametrize(("name", "axis"), [("gaze_x", 0), ("gaze_y", 1)])
@pytest.mark.parametrize("angle", [-0.35, 0.35])
def test_gaze_turns_the_pupils_and_not_the_face(model, name, axis, angle):
    rest, moved = _points(model), _points(model, **{name: angle})
    for sign in (1, -1):
        pupil = (model.labels == LABEL_INDEX["pupil"]) & (sign * model.vertices[:, 0] > 0)
        travel = (moved - rest)[pupil].mean(0)
        assert travel[axis] == pytest.approx(12.2 * np.sin(angle), abs=0.2) and abs(travel[1 - axis]) < 0.05
    other = np.isin(model.labels, [LABEL_INDEX[n] for n in ("nose", "lips", "brows", "ears", "neck")])
    assert np.abs((moved - rest)[other]).max() == 0


def test_lids_follow_the_eyes(model):
    def margins(gaze):
        points = _landmarks(model, gaze_y=gaze)
        return points[[37, 38, 43, 44], 1].mean(), points[[40, 41, 46, 47], 1].mean()

    (up, low), (high_up, high_low), (down_up, down_low) = margins(0.0), margins(0.35), margins(-0.35)
    assert 1.5 < high_up - up < 3 and 2.8 < up - down_up < 4.5  # further down than up
    assert high_low > low > down_low and abs(down_low - low) < 1.5
    sideways = _landmarks(model, gaze_x=0.35)
    np.testing.assert_allclose(sideways[36:48], _landmarks(model)[36:48], atol=0.05)


def test_lids_stay_on_the_eyeballs_when_they_follow(model):
    for gaze in (-0.5, -0.25, 0.25, 0.5):
        skin = _points(model, gaze_y=gaze)[model.labels == LABEL_INDEX["face"]]
        for x in (-31.5, 31.5):
            offset = skin - [x, 0, 66]
            near = (np.hypot(offset[:, 0], offset[:, 1]) < 11) & (offset[:, 2] > 0)
            assert np.linalg.norm(offset[near], axis=1).min() > 12.2


def test_the_regressor_follows_an_eye_that_moves_as_one(model):
    shape = np.random.default_rng(0).normal(size=model.num_shape).astype(np.float32)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    centre = model.joints[2] + model.joint_basis[2] @ shape
    iris = (model.labels == LABEL_INDEX["iris"]) & (model.vertices[:, 0] > 0)
    np.testing.assert_allclose(np.linalg.norm(person[iris] - centre, axis=1), 0.0122, atol=1e-5)


def test_the_neck_passes_the_heads_motion_on():
    heights = np.linspace(0, -300, 50)
    follow = rig.follow_head(heights)
    assert follow[0] == 1 and follow[-1] == 0 and (np.diff(follow) <= 0).all() and rig.follow_head(-90.0) == 1
