import numpy as np

from models.labels import LABEL_INDEX
from models.semantic_warp import control_points, displacement, follows_head, steady, warp


def face(dx=0, dy=0, opening=4, size=128):
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint8)

    def ellipse(name, cy, cx, ry, rx):
        labels[((y - cy - dy) / ry) ** 2 + ((x - cx - dx) / rx) ** 2 < 1] = LABEL_INDEX[name]

    ellipse("face", 64, 64, 34, 26)
    for side in (-11, 11):
        ellipse("brows", 48, 64 + side, 2, 7)
        ellipse("sclera", 55, 64 + side, 3, 5)
        ellipse("iris", 55, 64 + side, 2, 2)
    ellipse("nose", 66, 64, 6, 4)
    ellipse("lips", 82, 64, 3 + opening, 10)
    ellipse("other-in-mouth", 82, 64, opening, 7)
    return labels


def textured(size=128):
    y, x = np.mgrid[:size, :size]
    return np.stack([(x * 2) % 256, (y * 2) % 256, 128 + 60 * np.sin((x + y) / 9)], -1).astype(np.uint8)


def test_control_points_lie_where_the_regions_do():
    points = control_points(face())
    np.testing.assert_allclose(points[0] * 128, (64.5, 64.5), atol=0.6)
    assert points[1, 0] < points[0, 0] < points[2, 0] and points[3, 1] < points[0, 1] < points[4, 1]
    assert np.isfinite(points).all()
    shut = face()
    shut[shut == LABEL_INDEX["other-in-mouth"]] = LABEL_INDEX["lips"]
    closed = control_points(shut)
    assert np.isnan(closed).any() and np.isfinite(closed[0]).all()
    assert np.isnan(control_points(np.zeros((128, 128), np.uint8))).all()


def test_the_same_labels_leave_the_image_alone():
    image = textured()
    np.testing.assert_array_equal(warp(image, face(), face()[None])[0], image)
    nothing = np.zeros((1, 128, 128), np.uint8)
    np.testing.assert_array_equal(warp(image, face(), nothing)[0], image)


def test_a_moved_head_moves_its_pixels_and_not_the_border():
    image = textured()
    moved = warp(image, face(), face(dx=6, dy=-4)[None])[0].astype(int)
    expected = np.roll(image, (-4, 6), (0, 1)).astype(int)
    inside = (slice(45, 75), slice(60, 80))
    assert np.abs(moved[inside] - expected[inside]).mean() < 6 < np.abs(image[inside] - expected[inside]).mean()
    assert np.abs(moved[:3] - image[:3].astype(int)).mean() < 4


def test_an_opened_mouth_moves_the_lips_apart():
    field = displacement(control_points(face(opening=2)), control_points(face(opening=8)))
    column = field[:, 12, 1]  # the vertical displacement along the middle of the face, target to source
    assert column[14] > 0.01 and column[17] < -0.01  # from above the mouth downward, from below it upward


def test_a_wrong_point_does_not_bend_the_face():
    rng = np.random.default_rng(0)
    source = rng.uniform(0.3, 0.7, (20, 2))
    angle, scale = 0.1, 1.1
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = (source - 0.5) @ turn.T + 0.53 + rng.normal(0, 0.005, (20, 2))
    wrong = target.copy()
    wrong[[3, 7, 11]] += [[0.2, 0.0], [0.0, -0.15], [0.1, 0.1]]
    kept = follows_head(source, wrong)
    assert not kept[[3, 7, 11]].any() and kept.sum() == 17
    field = displacement(source[kept], wrong[kept])
    assert np.abs(field - displacement(np.delete(source, [3, 7, 11], 0), np.delete(target, [3, 7, 11], 0))).max() < 1e-9


def test_specks_do_not_move_a_point():
    specks = face()
    specks[np.random.default_rng(0).random(specks.shape) < 0.01] = LABEL_INDEX["nose"]
    np.testing.assert_allclose(control_points(specks)[:5], control_points(face())[:5], atol=0.02)
    nose = slice(22, 27)
    np.testing.assert_allclose(control_points(face())[22], (64.5 / 128, 66.5 / 128), atol=0.01)
    np.testing.assert_allclose(control_points(specks)[nose], control_points(face())[nose], atol=0.03)


def test_a_point_that_is_missed_for_a_frame_goes_on_between_its_neighbours():
    source = control_points(face())
    targets = np.stack([control_points(face(dx=t)) for t in range(9)])
    targets[4, 22:27] = np.nan  # missed
    targets[4, 10] += 0.3  # mistaken
    motion = steady(source, targets) - source
    np.testing.assert_allclose(motion[4, :, 0] * 128, 4, atol=0.5)
    np.testing.assert_allclose(motion[4, :, 1], 0, atol=1e-3)
    targets[:, 22:27] = np.nan
    assert np.isnan(steady(source, targets)[:, 22:27]).all()


def test_a_motion_that_no_head_makes_explains_nothing():
    source = control_points(face())
    turned = (source - 0.5) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 0.5
    for target in (turned, (source - 0.5) * 2 + 0.5):
        assert not follows_head(source, target).any()
    assert follows_head(source, (source - 0.5) * 1.2 + 0.55).all()
