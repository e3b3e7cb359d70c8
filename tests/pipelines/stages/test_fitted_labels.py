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


def test_brows_are_bands_below_the_points_with_open_rims_and_never_hair():
    codes, points = np.full((256, 256), drawing._FACE, np.uint8), np.zeros((68, 2))
    for brow, eye, x in ((slice(17, 22), slice(36, 42), 40), (slice(22, 27), slice(42, 48), 140)):
        points[brow] = np.stack([np.linspace(x, x + 48, 5), np.full(5, 90.0)], -1)
        points[eye] = [x + 24, 115]
    codes[:, :42] = drawing._HAIR
    drawing._draw_brows(codes, points, 100.0)
    assert (codes[:, :42] == drawing._HAIR).all()
    sure, rim = codes == drawing._BROW, codes == drawing._BROW_EDGE
    # Below the points, as high as a brow, longest at the inner ends.
    assert sure[90:94, 60:80].all() and not sure[:88].any() and not sure[96:].any()
    assert sure[92, 80:84].all() and not sure[92, 90:].all() and rim[92, 42] and sure[92, 148:180].all()
    assert np.nonzero(sure.any(0))[0].max() < 188 and not sure[:, 92:138].any()
    # Every sure place has the rim around it; farther away the face stays.
    assert rim[88, 60:80].all() and rim[96, 60:80].all()
    assert (codes[102, 50:90] == drawing._FACE).all() and (codes[82, 50:90] == drawing._FACE).all()
