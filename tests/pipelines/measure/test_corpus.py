import argparse

import numpy as np
import pytest

from models.errors import InputError
from models.labels import NUM_LABELS
from pipelines.measure.corpus import detection_figures, label_figures, measure, read_corpus, read_frames, register
from pipelines.synthesize import SynthesizeConfig, synthesize


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    output = tmp_path_factory.mktemp("corpus")
    synthesize(SynthesizeConfig(clips=2, output=str(output), seed=11, size=384, workers=1, quiet=True))
    return output


def test_clips_are_read_with_their_truth(small):
    clips = list(read_corpus(small))
    assert len(clips) == 2
    for path, truth, arrays in clips:
        assert path.is_file() and len(arrays["labels"]) == truth["frames"]
        numbers = [number for number, _ in read_frames(path, 7)]
        assert numbers == list(range(0, truth["frames"], 7))
    with pytest.raises(InputError, match="no \\*.truth.json"):
        next(read_corpus(small / "nothing"))


def test_the_detector_finds_people_and_its_landmarks_are_near(small):
    figures = detection_figures(small, every=15)
    assert figures["dlib_found_share"] == 1.0 and figures["clips_with_a_miss"] == 0
    assert figures["frames_searched"] >= 2 * 90 // 15 and figures["dlib_landmark_error"] < 0.09


def test_a_face_where_there_is_none_is_a_miss(small, tmp_path):
    """A truth that says the face is elsewhere is not met by a detection of the real one."""
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        arrays["landmarks"] += 300
        np.savez(path, **arrays)
    figures = detection_figures(tmp_path, every=30)
    assert figures["dlib_found_share"] == 0 and figures["clips_with_a_miss"] == 2


def test_label_shares_sum_to_one(small):
    figures = label_figures(small)
    shares = [value for name, value in figures.items() if name.startswith("share_")]
    assert sum(shares) == pytest.approx(1) and 15 <= figures["labels_present"] <= NUM_LABELS


def test_the_step_must_be_positive():
    parser = argparse.ArgumentParser()
    register(parser)
    with pytest.raises(InputError, match="--every 0"):
        measure(parser.parse_args(["--every", "0"]))


@pytest.mark.slow
def test_a_corpus_meets_its_targets(tmp_path):
    """dlib finds at least 98 % of the frontal faces; all 21 classes occur."""
    synthesize(SynthesizeConfig(clips=12, output=str(tmp_path), seed=0, workers=1, quiet=True))
    assert detection_figures(tmp_path, every=12)["dlib_found_share"] >= 0.98
    assert label_figures(tmp_path)["labels_present"] == NUM_LABELS
