"""Labels drawn on frames from landmarks, fit and colours: what they name is right, what they cannot know is open."""

import numpy as np
import pytest

from models.labels import LABEL_INDEX
from pipelines.stages import fitted_labels as drawing
from pipelines.stages.face_fit import fit_clip
from pipelines.stages.fitted_labels import fitted_labels


@pytest.mark.slow
def test_sets_hold_the_true_class_and_name_the_sure_places(person, model):
    frames, landmarks, truth = person
    labels = fitted_labels(frames, landmarks, fit_clip(landmarks, model), model, [0, 4])
    assert len(labels) == 2
    for made, true in zip(labels, (truth[0], truth[4]), strict=True):
        sets = made.as_sets()
        # The drawn person has a flat face without parts: parts that landmarks place there stand for its face.
        skin = true == LABEL_INDEX["face"]
        holds = (sets >> true.astype(np.uint32)) & 1 > 0
        assert holds[~skin].mean() > 0.97
        assert holds[true == LABEL_INDEX["lips"]].mean() > 0.9
        alone = np.bitwise_count(sets) == 1
        assert (alone & holds)[true == LABEL_INDEX["background"]].mean() > 0.6
        assert (sets[true == LABEL_INDEX["lips"]] == 1 << LABEL_INDEX["lips"]).mean() > 0.3
        x, y = np.argwhere(skin)[:, ::-1].mean(0).round().astype(int)
        assert not (sets[y, x] >> LABEL_INDEX["background"]) & 1


@pytest.mark.parametrize("beside", [-8, 0, 6])
def test_brows_are_named_where_they_are_seen(beside):
    """The points run ``beside`` pixels lower than the brows."""
    light, points = np.full((256, 256), 150, np.float32), np.zeros((68, 2))
    for brow, eye, x in ((slice(17, 22), slice(36, 42), 40), (slice(22, 27), slice(42, 48), 140)):
        light[88:93, x : x + 50] = 80
        light[112:118, x + 5 : x + 45] = 60  # the eye is darker still
        points[brow] = np.stack([np.linspace(x - 2, x + 52, 5), np.full(5, 90.0 + beside)], -1)
        points[eye] = [x + 25, 115]
    light[78:80, 40:90] = 75  # a wrinkle above one of them
    codes = np.full(light.shape, drawing._FACE, np.uint8)
    drawing._draw_brows(codes, light, points, 100.0)
    rows, columns = np.nonzero(codes == drawing._BROW)
    assert rows.min() >= 87 and rows.max() <= 93 and columns.min() >= 38 and columns.max() <= 192
    for x in (40, 140):
        assert (codes[88:93, x + 6 : x + 44] == drawing._BROW).mean() > 0.8
        assert (codes[96:99, x + 10 : x + 40] == drawing._FACE).all()
    # Without any to be seen, nothing is said.
    codes = np.full(light.shape, drawing._FACE, np.uint8)
    drawing._draw_brows(codes, np.full_like(light, 150), points, 100.0)
    assert not (codes == drawing._BROW).any() and (codes == drawing._BROW_EDGE).any()
