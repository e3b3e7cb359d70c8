"""The refiner is trained on frames of a corpus, cut and detected as curation does it."""

import numpy as np
import pytest

from infra.training.landmark_refiner import percent, plain_samples, read_samples, run
from models.errors import InputError
from models.landmark_refiner import load_refiner
from models.signals import CROP_SIZE
from pipelines.inspect import write_video
from pipelines.synthesize import SynthesizeConfig, synthesize
from tests.corpus_clip import write_clip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two rendered people of a second each or more."""
    path = tmp_path_factory.mktemp("corpus")
    synthesize(SynthesizeConfig(2, str(path), seed=7, size=320, quiet=True, workers=1))
    return str(path)


def test_samples_are_aligned_with_their_truth(corpus):
    light, detected, truth, clips = read_samples(corpus, per_clip=3)
    assert light.shape == (len(clips), CROP_SIZE, CROP_SIZE) and set(clips) == {0, 1}
    # A detector trained on people finds rendered ones within a few percent; cut wrongly it would be tens.
    assert percent(detected, truth) < 6 < percent(detected + 20, truth)
    assert (truth.min(1) > 0).all() and (truth.max(1) < CROP_SIZE).all()


def test_a_refiner_is_trained_saved_and_read_again(corpus, tmp_path, capsys):
    trained = run(corpus, str(tmp_path / "refiner"), per_clip=3, heldout_clips=1)
    read = load_refiner(str(tmp_path / "refiner"))
    np.testing.assert_allclose(read.down, trained.down, rtol=2e-3, atol=1e-5)
    line = capsys.readouterr().out
    assert '"clips": 1' in line and "heldout_percent_after" in line


def test_plain_heads_have_their_landmarks_where_they_are_drawn():
    light, near, truth = plain_samples(3, 1)
    assert light.shape == (3, CROP_SIZE, CROP_SIZE) and light.dtype == np.float32
    assert percent(near, truth) < 1.5 and (truth.min(1) > 0).all() and (truth.max(1) < CROP_SIZE).all()
    # The inside of the landmarks' box differs from the plain grey around it.
    for picture, points in zip(light, truth, strict=True):
        (left, top), (right, bottom) = points.min(0).astype(int), points.max(0).astype(int)
        assert picture[top:bottom, left:right].std() > 10


def test_a_corpus_without_a_face_is_named(tmp_path):
    path = write_clip(tmp_path, frames=4)
    write_video(f"{path}.mp4", np.full((4, 256, 256, 3), 90, np.uint8))
    with pytest.raises(InputError, match=f"{tmp_path}: no face"):
        read_samples(str(tmp_path), per_clip=2)


def test_nothing_to_train_on_is_said(corpus, tmp_path):
    with pytest.raises(InputError, match="none to train on"):
        run(corpus, str(tmp_path / "refiner"), per_clip=1, heldout_clips=2)
