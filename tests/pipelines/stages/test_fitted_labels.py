"""Labels drawn on frames from landmarks, fit and colours: what they name is right, what they cannot know is open."""

import numpy as np
import pytest

from models.labels import LABEL_INDEX
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
