import numpy as np
import pytest

from pipelines.stages import faces
from pipelines.stages.faces import STRIDE, Face
from tests.pipelines.media import talking_head


def face(x, y, size=100, score=1.0):
    return Face(np.array([x, y, x + size, y + size], float), score)


def at(step):
    return step * STRIDE


def test_the_detector_finds_a_rendered_head():
    from pipelines.stages import video

    info = video.probe(str(talking_head()))
    frame = next(iter(video.decode_frames(info, info.width, info.height)))
    found = faces.detect_faces(frame)
    assert len(found) == 1 and found[0].score > faces.START_SCORE
    centre = (found[0].box[:2] + found[0].box[2:]) / 2
    assert np.abs(centre - 128).max() < 50
    assert faces.detect_faces(np.full_like(frame, 90)) == []


def test_threads_find_what_one_finds():
    """The detector works in memory of its own and without Python's lock; one that threads share kills the process."""
    from concurrent.futures import ThreadPoolExecutor

    from pipelines.stages import video

    info = video.probe(str(talking_head()))
    frame = next(iter(video.decode_frames(info, info.width, info.height)))
    sizes = [(side, side + 40) for side in (160, 200, 240)] * 8
    pictures = [np.ascontiguousarray(np.resize(frame[:height], (height, width, 3))) for height, width in sizes]
    alone = [[(face.box.tolist(), face.score) for face in faces.detect_faces(picture)] for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(faces.detect_faces, pictures))
        detectors = set(pool.map(lambda _: id(faces._detector()), range(3)))
    assert [[(face.box.tolist(), face.score) for face in some] for some in found] == alone
    assert id(faces._detector()) not in detectors


def test_a_moving_face_is_one_track_and_a_weak_face_starts_none():
    samples = {at(i): [face(10 * i, 50, score=1.0 if i % 3 else -0.2)] for i in range(1, 10)}
    tracks = faces.build_tracks(samples)
    assert len(tracks) == 1 and len(tracks[0].faces) == 9
    weak = faces.build_tracks({at(i): [face(0, 0, score=-0.2)] for i in range(5)})
    assert weak == []


def test_two_faces_keep_their_tracks_and_the_larger_is_followed():
    samples = {at(i): [face(300, 0, 90), face(0, 0, 130)][:: 1 if i % 2 else -1] for i in range(8)}
    tracks = faces.build_tracks(samples)
    main = faces.main_track(tracks)
    assert len(tracks) == 2 and main.size == 130
    assert faces.other_faces(main, tracks, 0.5) == {at(i): 1 for i in range(8)}
    assert faces.other_faces(main, tracks, 0.8) == {}


def test_a_face_that_flashes_up_does_not_count():
    samples = {at(i): [face(0, 0)] + ([face(300, 0)] if i == 4 else []) for i in range(8)}
    tracks = faces.build_tracks(samples)
    assert faces.other_faces(faces.main_track(tracks), tracks, 0.5) == {}


def test_spans_bridge_short_gaps_only():
    seen = [0, 1, 2, 5, 6, 20, 21]
    track = faces.Track({at(i): face(0, 0) for i in seen})
    assert faces.track_spans(track) == [(0, at(7)), (at(20), at(22))]


def test_boxes_between_detections_are_smooth_and_pass_near_them():
    track = faces.Track({at(i): face(20 * i, 50 + (i % 2)) for i in range(10)})
    boxes = faces.boxes_between(track, 12, 40)
    assert boxes.shape == (28, 4)
    expected = 20 * np.arange(12, 40) / STRIDE
    assert np.abs(boxes[6:-6, 0] - expected[6:-6]).max() < 1
    assert np.abs(np.diff(boxes[:, 0])).max() < 5


def test_overlap():
    assert faces.overlap(face(0, 0).box, face(0, 0).box) == 1
    assert faces.overlap(face(0, 0).box, face(200, 0).box) == 0
    assert faces.overlap(face(0, 0).box, face(50, 0).box) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_profile_is_a_face_for_the_other_detector(real_clips):
    from pipelines.stages import video

    def pictures(name):
        info = video.probe(str(real_clips / name))
        return [frame for i, frame in enumerate(video.decode_frames(info, *video.scaled_size(info, 240))) if i == 45]

    assert faces.find_any_face(pictures("speakervid_side3.mp4"))
    assert not faces.find_any_face(pictures("cosmos_30s.mp4"))
