import numpy as np
import pytest

from pipelines.stages import head_scores


def generic_head(yaw=0.0, pitch=0.0, roll=0.0):
    """The filter's own generic head seen from afar after a turn (degrees): every other point at the origin."""
    y, p, r = np.radians([yaw, pitch, roll])
    # Camera axes: x right, y down, z away. A positive yaw points the nose to the right, a positive pitch up.
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = np.zeros((68, 3))
    for index, place in head_scores._RIGID.items():
        points[index] = place
    return (points @ (about_z @ about_y @ about_x).T)[:, :2] * 0.8 + 128


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 20, 0), (0, -15, 0), (0, 0, 25), (20, 10, 0)]
)
def test_head_angles(angles):
    found = head_scores.head_angles(generic_head(*angles)[None])[0]
    assert np.abs(found - angles).max() < 4


def test_the_head_s_speed_is_that_of_its_rotation():
    """A turn of 60 degrees per second, then rest; tilting counts as turning to the side does."""
    for axis in ("yaw", "roll"):
        turning = [generic_head(**{axis: 2.0 * frame - 30}) for frame in range(30)]
        still = [turning[-1]] * 60
        speeds = head_scores.head_speeds(np.stack(turning + still))
        assert np.abs(speeds[:20] - 60).max() < 6 and np.abs(speeds[40:]).max() < 0.01
        scores = head_scores.movement_scores(np.stack(turning + still))
        assert scores["head_speed"] < 0.01 and scores["head_speed_peak"] == pytest.approx(60, abs=6)
    assert set(head_scores.movement_scores(np.stack(turning[:20]))) == {"motion"}


def test_motion_is_in_face_heights():
    marks = np.repeat(generic_head()[None], 30, axis=0)
    marks[:, 8], marks[:, 17:27] = (128, 200), (128, 90)
    assert head_scores.movement_scores(marks)["motion"] == 0
    moved = head_scores.movement_scores(marks + np.arange(30)[:, None, None])
    assert moved["motion"] == pytest.approx(30 * np.sqrt(2) / 110)
    assert head_scores.angle_scores(marks * 2)["face_size"] == pytest.approx(220)


def test_a_head_is_complete_where_its_box_lies_inside():
    heads = np.array([[100, 50, 180, 150], [110, 60, 190, 160]], float)
    scores = head_scores.box_scores(heads, (40, 20, 200), 640, 480)
    assert scores["head_inside"] == 1
    # Nearest edge of the crop: its upper one, 30 pixels of a head of 100; then with the picture ending sooner.
    assert scores["head_margin"] == scores["head_margin_top"] == pytest.approx(0.3)
    assert head_scores.box_scores(heads, (40, 20, 200), 200, 480)["head_margin"] == pytest.approx(0.1)
    cut = head_scores.box_scores(heads - [0, 75, 0, 75], (40, -55, 200), 640, 480)
    assert cut["head_inside"] == pytest.approx((0.75 + 0.85) / 2)
    assert cut["head_margin"] == cut["head_margin_top"] == pytest.approx(-0.25)


def test_landmarks_inside_the_picture():
    points = np.zeros((2, 68, 2)) + 10
    points[0, :17, 1] = -3
    assert head_scores.landmarks_inside(points, 20, 20) == pytest.approx(1 - 17 / 136)
    # The centre of the first pixel is 0: half a pixel outside its centre is still inside the picture.
    assert head_scores.landmarks_inside(points * 0 - 0.4, 20, 20) == 1
    assert head_scores.landmarks_inside(points * 0 + 19.6, 20, 20) == 0
