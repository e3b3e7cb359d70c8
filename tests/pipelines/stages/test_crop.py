import numpy as np
import pytest

from models.face.camera import project
from models.face.model import deform, load_face_model
from pipelines.stages import crop


def face(cx=300.0, cy=250.0, height=100.0, roll=0.0, yaw=0.0):
    """Landmarks of the mean head in source pixels; height is from the brows to the chin, (cx, cy) between the two."""
    model = load_face_model()
    points = deform(model.landmark_model(), np.zeros(model.num_shape), np.zeros(model.num_expression))
    seen = project(points, np.array([0, yaw, roll, 0, 0, 2.0]), np.array([1000.0, 0, 0]))
    brows, chin = seen[17:27].mean(0), seen[8]
    return (seen - (brows + chin) / 2) * (height / np.linalg.norm(brows - chin)) + [cx, cy]


def boxes(*faces, margins=crop.ROOMY):
    return crop.head_boxes(np.stack(faces))[0 if margins is crop.ROOMY else 1]


def test_the_head_box_holds_hair_chin_and_sides():
    left, top, right, bottom = boxes(face())[0]
    # The head's middle lies behind its face, so perspective makes the ellipsoid a little smaller than the face's plane.
    assert top == pytest.approx(250 - 50 - 85, abs=12) and bottom == pytest.approx(250 + 50 + 55, abs=12)
    assert left == pytest.approx(300 - 115, abs=12) and right == pytest.approx(300 + 115, abs=12)
    tight = boxes(face(), margins=crop.TIGHT)[0]
    assert (tight[:2] > [left, top]).all() and (tight[2:] < [right, bottom]).all()
    points = face()
    assert (points.min(0) > tight[:2]).all() and (points.max(0) < tight[2:]).all()


def test_a_tilted_head_keeps_its_size():
    upright, tilted = boxes(face())[0], boxes(face(roll=0.5))[0]
    assert np.allclose(tilted[2:] - tilted[:2], upright[2:] - upright[:2], rtol=0.06)
    assert tilted[0] < 300 < tilted[2]


def test_a_turned_head_reaches_back():
    # It looks to the image's left: the back of the head is on the right of its face.
    left, _, right, _ = boxes(face(yaw=0.6))[0]
    assert (left + right) / 2 > 300 + 10


def test_the_clip_box_is_square_whole_and_holds_every_frame():
    heads = [face(cx=300 + 3 * i, cy=250 - i) for i in range(30)]
    box = crop.clip_box(heads, 1280, 720)
    assert all(isinstance(value, int) for value in box)
    x0, y0, side = box
    union = crop.union_boxes(boxes(*heads))
    assert x0 <= union[0] + 1 and y0 <= union[1] + 1 and x0 + side >= union[2] - 1 and y0 + side >= union[3] - 1
    assert crop.pad_share(box, 1280, 720) == 0


def test_one_wild_frame_does_not_widen_the_box():
    heads = [face() for _ in range(20)]
    wild = [*heads[:10], face(cx=900), *heads[10:]]
    assert np.allclose(crop.clip_box(wild, 1280, 720), crop.clip_box(heads, 1280, 720), atol=12)


def test_the_size_of_the_source_does_not_matter():
    small, large = boxes(face(cx=80, cy=70, height=40))[0], boxes(face(cx=800, cy=700, height=400))[0]
    assert np.allclose(large / 10, small, atol=0.5)


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


def test_the_square_is_cut_to_the_pixel_and_padded_with_black():
    rng = np.random.default_rng(0)
    frame = rng.integers(1, 255, (300, 400, 3), np.uint8)
    np.testing.assert_array_equal(crop.cut_crop(frame, (50, 20, 256)), frame[20:276, 50:306])
    over = crop.cut_crop(frame, (-10, 100, 256))
    assert (over[:, :10] == 0).all() and (over[200:] == 0).all()
    np.testing.assert_array_equal(over[:200, 10:], frame[100:300, :246])
