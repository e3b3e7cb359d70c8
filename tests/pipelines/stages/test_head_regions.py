import numpy as np

from pipelines.stages.face_fit import fit_clip
from pipelines.stages.head_regions import BACKGROUND, SKIN, head_frames, log_prior


def test_priors_add_up_and_put_the_face_in_the_outline(person, model):
    _, landmarks, _ = person
    heads = head_frames(landmarks, fit_clip(landmarks, model), model)
    prior = np.exp(log_prior(heads[0], 128))
    assert prior.shape == (4, 128, 128) and abs(prior.sum(0).mean() - 1) < 0.03
    x, y = (landmarks[0, 30] / 2).astype(int)
    assert prior[SKIN, y, x] > 0.8 and prior[BACKGROUND, 2, 2] > 0.8
