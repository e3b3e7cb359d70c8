import argparse

import numpy as np
import pytest

from models.errors import InputError
from pipelines.measure import tracking
from pipelines.stages import faces
from tests.pipelines.media import make_video, talking_head


@pytest.fixture
def drawn(monkeypatch):
    """A face whose place is known: it moves two pixels a frame, and the detector misses two of every thirty frames."""
    count = 61

    def detections(path, most):
        samples = {}
        for index in range(min(count, most)):
            box = np.array([20, 30, 120, 130], float) + [2 * index, 0, 2 * index, 0]
            samples[index] = [] if index % 30 in (3, 4) else [faces.Face(box, 1.0)]
        return tracking.curation.Scan(len(samples), [(0, len(samples))], samples, {}, np.zeros(len(samples)))

    def points(path, frames, boxes):
        """A face that fills its box: brows at its upper edge, the chin at its lower one."""
        out = []
        for these in boxes:
            marks = np.repeat(these[:, None, :2], 68, axis=1)
            marks[:, 8, 1] = these[:, 3]
            out.append(marks)
        return out

    monkeypatch.setattr(tracking, "detect_all", detections)
    monkeypatch.setattr(tracking, "landmarks_of", points)


def test_a_steady_movement_is_followed_and_gaps_are_bridged(drawn):
    figures = tracking.measure(argparse.Namespace(clips=["a.mp4", "b.mp4"], seconds=2))
    assert figures["videos"] == 2 and figures["frames"] == 2 * 56
    # Exact between the first and the last detection; the track's ends are smoothed with what stands still beyond them,
    # and after the last detection of the stride the box stands still for up to five frames (10 of its 100 pixels).
    assert figures["box_iou"] == pytest.approx(0.987, abs=0.002)
    assert figures["landmark_percent"] < 1 and figures["box_percent"] < 1
    assert figures["frames_detector_lost"] == pytest.approx(4 / 60) and figures["frames_track_lost"] == 0
    assert figures["box_iou_a"] == figures["box_iou"]


def test_a_jump_between_detections_is_an_error(drawn, monkeypatch):
    """Between two searched frames the face goes away and comes back: only detection in every frame sees it."""
    detections = tracking.detect_all

    def jumping(path, most):
        scan = detections(path, most)
        for index, found in scan.samples.items():
            if index % 6 in (2, 3, 4) and found:
                scan.samples[index] = [faces.Face(found[0].box + [20, 0, 20, 0], 1.0)]
        return scan

    calm = tracking.compare("a.mp4", 60)
    monkeypatch.setattr(tracking, "detect_all", jumping)
    figures = tracking.compare("a.mp4", 60)
    assert figures["box_iou"] < calm["box_iou"] - 0.1 and figures["landmark_percent"] > 5 + calm["landmark_percent"]
    assert figures["landmark_percent_smooth"] > 2


def test_a_rendered_head_is_followed():
    figures = tracking.measure(argparse.Namespace(clips=[str(talking_head())], seconds=1.5))
    assert figures["box_iou"] > 0.8 and 0 < figures["landmark_percent"] < 5
    assert figures["frames_detector_lost"] == figures["frames_track_lost"] == 0


def test_what_cannot_be_measured_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    slides = make_video(tmp_path / "slides.mp4")
    for path, why in ((tmp_path / "text.mp4", "can be read"), (slides, "no face is followed")):
        with pytest.raises(InputError, match=f"--clips {path}.*{why}"):
            tracking.measure(argparse.Namespace(clips=[str(path)], seconds=1))
    with pytest.raises(InputError, match="--seconds"):
        tracking.measure(argparse.Namespace(clips=[str(slides)], seconds=0.5))
