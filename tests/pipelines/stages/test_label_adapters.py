"""Other label sets in our classes."""

import cv2
import numpy as np
import pytest

from models.errors import InputError
from models.labels import LABELS, label_set
from pipelines.stages.label_adapters import (
    CELEBAMASK,
    FACE_OVAL,
    LIPS_OUTER,
    MESH_SETS,
    celebamask_pictures,
    mesh_labels,
    mesh_regions,
    read_celebamask,
    truth_labels,
    unsupplied,
)


def celebamask(root, number=2001):
    """A folder of the data set's layout with one picture: a square face with hair, glasses and an open mouth."""
    (root / "CelebA-HQ-img").mkdir(parents=True)
    cv2.imwrite(str(root / "CelebA-HQ-img" / f"{number}.jpg"), np.full((1024, 1024, 3), (30, 60, 200), np.uint8))
    folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
    folder.mkdir(parents=True)
    places = {
        "hair": (50, 100, 150, 300),
        "skin": (100, 120, 400, 380),
        "l_eye": (200, 180, 220, 230),
        "eye_g": (190, 170, 230, 240),
        "mouth": (320, 200, 340, 300),
        "u_lip": (310, 200, 320, 300),
        "ear_r": (300, 400, 310, 410),
    }
    for name, (y0, x0, y1, x1) in places.items():
        mask = np.zeros((512, 512), np.uint8)
        mask[y0:y1, x0:x1] = 255
        cv2.imwrite(str(folder / f"{number:05d}_{name}.png"), mask)
    return root


def test_celebamask_has_all_nineteen_and_says_what_it_cannot_supply():
    assert len(CELEBAMASK) == 19
    assert set(unsupplied(list(CELEBAMASK.values()))) == {
        *("background", "face", "lashes", "pupil", "iris", "sclera", "beard", "glasses", "teeth", "tongue"),
        *("nostrils", "other-in-mouth", "nose"),
    }
    # Everything of ours is allowed somewhere.
    assert np.bitwise_or.reduce(np.array(list(CELEBAMASK.values()))) == (1 << len(LABELS)) - 1


def test_celebamask_pictures_are_read_with_later_masks_over_earlier_ones(tmp_path):
    root = celebamask(tmp_path)
    assert celebamask_pictures(root) == [2001]
    picture, labels = read_celebamask(root, 2001)
    assert picture.shape == (512, 512, 3) and picture[0, 0].tolist()[0] > 150
    sets = labels.as_sets()
    assert sets[60, 150] == label_set("hair") and sets[380, 350] == label_set("face", "beard", "lashes")
    assert sets[140, 200] == label_set("hair")  # hair falls over skin
    assert sets[210, 200] == label_set("sclera", "iris", "pupil", "lashes")
    assert sets[330, 250] == label_set("teeth", "tongue", "other-in-mouth")
    assert sets[305, 405] == label_set("accessory") and sets[500, 500] == label_set("background", "accessory")


def test_a_folder_of_another_layout_is_named(tmp_path):
    with pytest.raises(InputError, match="CelebA-HQ-img is missing"):
        celebamask_pictures(tmp_path)
    root = celebamask(tmp_path / "d")
    bad = root / "CelebAMask-HQ-mask-anno" / "1" / "02001_skin.png"
    cv2.imwrite(str(bad), np.zeros((64, 64), np.uint8))
    with pytest.raises(InputError, match="02001_skin.png: expected a mask of 512 x 512"):
        read_celebamask(root, 2001)


def mesh() -> np.ndarray:
    """478 points of which the rings are ellipses where a face has its parts."""
    from pipelines.stages import label_adapters as a

    points = np.full((478, 2), 100.0)

    def ring(ids, cx, cy, rx, ry):
        angle = np.linspace(0, 2 * np.pi, len(ids), endpoint=False)
        points[list(ids)] = np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)

    ring(FACE_OVAL, 100, 100, 60, 80)
    ring(LIPS_OUTER, 100, 145, 25, 12)
    ring(a.LIPS_INNER, 100, 145, 18, 6)
    for (eye, brow, iris), x in zip(zip(a.EYES, a.BROWS, a.IRISES, strict=True), (75, 125), strict=True):
        ring(eye, x, 85, 14, 6)
        ring(brow, x, 65, 16, 4)
        points[iris[0]] = (x, 85)
        ring(iris[1:], x, 85, 5, 5)
    return points


def test_a_mesh_becomes_labels():
    labels = mesh_labels(mesh(), (200, 200))
    sets = labels.as_sets()
    assert sets[85, 75] == sets[85, 125] == label_set("iris", "pupil")
    assert sets[85, 84] == label_set("sclera", "lashes")
    assert sets[65, 75] == label_set("brows") and sets[136, 100] == label_set("lips")
    assert sets[145, 100] == label_set("teeth", "tongue", "other-in-mouth")
    assert sets[115, 100] & label_set("nose") and not sets[115, 100] & label_set("background", "lips", "iris")
    assert sets[5, 5] & label_set("background") and sets[5, 5] & label_set("hair")
    assert not sets[5, 5] & label_set("lips", "iris", "brows", "teeth")
    assert {"pupil", "tongue", "hair", "clothes"} <= set(unsupplied(MESH_SETS))


def test_a_mesh_without_irises_leaves_the_eye_open():
    sets = mesh_labels(mesh()[:468], (200, 200)).as_sets()
    assert sets[85, 75] & label_set("iris") and sets[85, 75] & label_set("sclera")
    with pytest.raises(InputError, match=r"mesh: shape \(400, 2\)"):
        mesh_labels(mesh()[:400], (200, 200))


def test_regions_are_the_parts():
    regions = mesh_regions(mesh(), (200, 200))
    assert regions["face"].sum() == pytest.approx(np.pi * 60 * 80, rel=0.03)
    assert regions["lips"].sum() == pytest.approx(np.pi * (25 * 12 - 18 * 6), rel=0.12)
    assert not (regions["lips"] & regions["mouth"]).any()
    assert regions["eyes"].sum() == pytest.approx(2 * np.pi * 14 * 6, rel=0.15)


def test_truth_is_one_class_a_pixel():
    labels = np.arange(21, dtype=np.uint8).reshape(3, 7)
    np.testing.assert_array_equal(truth_labels(labels).as_sets(), 1 << labels.astype(np.uint32))
