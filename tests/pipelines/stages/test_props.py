import numpy as np

from pipelines.stages.props import draw_hand, draw_microphone

SKIN, SLEEVE = (0.8, 0.6, 0.5), (0.2, 0.2, 0.5)


def poses(frames=90):
    return np.tile(np.array([0, 0, 0, 0.02, 0.01, 2.0], np.float32), (frames, 1))


def check(prop, frames):
    assert prop.faces.min() >= 0 and prop.faces.max() < len(prop.vertices)
    assert prop.turns.shape == (frames, 3, 3) and prop.shifts.shape == (frames, 3) and prop.shown.shape == (frames,)
    np.testing.assert_allclose(np.linalg.det(prop.turns), 1, atol=1e-5)
    assert np.isfinite(prop.vertices).all() and np.abs(prop.vertices).max() < 0.8


def test_a_hand_comes_up_to_the_face_and_goes():
    places = set()
    for k in range(12):
        prop, where = draw_hand(np.random.default_rng(k), poses(), SKIN, SLEEVE)
        check(prop, 90)
        places.add(where["place"])
        assert 0 < where["start"] < where["end"] <= 90
        shown = np.flatnonzero(prop.shown)
        assert where["start"] <= shown.min() and shown.max() < where["end"]
        middle = (where["start"] + where["end"]) // 2
        near = prop.shifts[middle] - poses()[0, 3:]
        assert np.abs(near[:2]).max() < 0.17 and -0.2 < near[2] < -0.08  # before the face, not in it
        assert prop.shifts[shown[0], 1] > prop.shifts[middle, 1] + 0.1  # it comes from below
    assert len(places) >= 3


def test_a_microphone_stands_before_the_chin_in_every_shot():
    rest = poses()
    rest[45:, 3] += 0.2
    forms = set()
    for k in range(8):
        prop, where = draw_microphone(np.random.default_rng(k), rest, rest, SKIN, SLEEVE)
        check(prop, 90)
        assert prop.shown.all() and (where["start"], where["end"]) == (0, 90)
        forms.add(where["place"])
        offset = prop.shifts - rest[:, 3:]
        assert (offset[:, 1] > 0.05).all() and (offset[:, 2] < -0.08).all()
        assert prop.shifts[60, 0] - prop.shifts[30, 0] > 0.15  # it follows a cut
    assert forms == {"held in a hand", "on an arm"}
