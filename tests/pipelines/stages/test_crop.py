import numpy as np
import pytest

from pipelines.stages import crop


def face(cx=300.0, cy=250.0, height=100.0, roll=0.0):
    """A plain frontal layout of the points that crop uses; height is from the brows to the chin."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.6 * np.cos(angle), -0.1 + 0.6 * np.sin(angle)], axis=1)
    points[17:27] = np.stack([np.linspace(-0.4, 0.4, 10), np.full(10, -0.5)], axis=1)
    points[27:] = 0
    points[8] = (0, 0.5)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return points @ turn.T * height + [cx, cy]


def test_the_head_box_holds_hair_chin_and_sides():
    left, top, right, bottom = crop.head_box(face())
    assert top == pytest.approx(250 - 50 - 85) and bottom == pytest.approx(250 + 50 + 55)
    assert left == pytest.approx(300 - 115) and right == pytest.approx(300 + 115)


def test_a_tilted_head_keeps_its_size():
    box = crop.head_box(face(roll=0.5))
    assert box[2] - box[0] == pytest.approx(230) and box[3] - box[1] == pytest.approx(240)
    assert box[0] < 300 < box[2]


def test_the_clip_box_is_square_whole_and_holds_every_frame():
    heads = [face(cx=300 + 3 * i, cy=250 - i) for i in range(30)]
    box = crop.clip_box(heads, 1280, 720)
    assert all(isinstance(value, int) for value in box)
    x0, y0, side = box
    union = crop.union_boxes([crop.head_box(points) for points in heads])
    assert x0 <= union[0] + 1 and y0 <= union[1] + 1 and x0 + side >= union[2] - 1 and y0 + side >= union[3] - 1
    assert crop.pad_share(box, 1280, 720) == 0


def test_one_wild_frame_does_not_widen_the_box():
    heads = [face() for _ in range(20)]
    wild = [*heads[:10], face(cx=900), *heads[10:]]
    assert crop.clip_box(wild, 1280, 720) == crop.clip_box(heads, 1280, 720)


def test_the_box_moves_into_the_picture_before_anything_is_padded():
    box = crop.clip_box([face(cx=110, cy=130)], 1280, 720)
    assert crop.pad_share(box, 1280, 720) == 0 and box[0] == 0 and box[1] >= 0
    close = crop.clip_box([face(cx=256, cy=260, height=240)], 512, 512)
    assert close == (0, 0, 512)


def test_a_head_that_is_cut_off_is_padded_and_scored():
    box = crop.clip_box([face(cx=20, cy=200)], 640, 480)
    assert box[0] < 0
    expected = 1 - (box[0] + box[2]) / box[2]
    assert crop.pad_share(box, 640, 480) == pytest.approx(expected) and expected > 0.1


def test_points_go_to_the_crop_as_the_scaler_moves_pixels():
    box = (100, 50, 512)
    # The centre of the crop's first pixel is the middle of the source's first two by two pixels.
    assert np.allclose(crop.to_crop(np.array([[100.5, 50.5]]), box), [[0, 0]])
    assert np.allclose(crop.to_crop(np.array([[100 + 511.5 - 1, 50 + 510.5]]), box), [[255, 255]])
    assert np.allclose(crop.boxes_to_crop(np.array([[100, 50, 612, 562.0]]), box), [[0, 0, 256, 256]])
