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
def test_a_brow_is_named_where_it_is_seen(beside):
    """The points run ``beside`` pixels lower than the brow."""
    light = np.full((256, 256), 150, np.float32)
    light[88:93, 60:110] = 80
    light[112:118, 65:105] = 60  # the eye is darker still
    points = np.stack([np.linspace(58, 112, 5), np.full(5, 90.0 + beside)], -1)
    codes = np.full(light.shape, drawing._FACE, np.uint8)
    drawing._draw_brow(codes, light, points, np.array([85.0, 115.0]), 100.0)
    rows, columns = np.nonzero(codes == drawing._BROW)
    assert rows.min() >= 87 and rows.max() <= 93 and columns.min() >= 58 and columns.max() <= 112
    assert (codes[88:93, 66:104] == drawing._BROW).mean() > 0.8
    assert (codes[97:105, 70:100] == drawing._FACE).all()
    # Without one to be seen, nothing is said.
    codes = np.full(light.shape, drawing._FACE, np.uint8)
    drawing._draw_brow(codes, np.full_like(light, 150), points, np.array([85.0, 115.0]), 100.0)
    assert not (codes == drawing._BROW).any() and (codes == drawing._BROW_EDGE).any()
