import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages import landmarks, video
from tests.pipelines.media import talking_head

# The iBUG points that swap when the picture is mirrored.
MIRROR = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
MIRROR += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
MIRROR += [64, 63, 62, 61, 60, 67, 66, 65]


@pytest.fixture(scope="module")
def head():
    """Four frames of a rendered clip, evenly spaced, and how far the mouth is open in each by the truth, in pixels."""
    from pipelines.measure.corpus import read_corpus
    from pipelines.stages.faces import detect_faces

    path, _, arrays = next(read_corpus(talking_head().parent))
    wanted = np.linspace(5, len(arrays["landmarks"]) - 5, 4).astype(int)
    opening = (arrays["landmarks"][wanted, 65:68, 1] - arrays["landmarks"][wanted, 63:60:-1, 1]).mean(1)
    info = video.probe(str(path))
    frames = [frame for i, frame in enumerate(video.decode_frames(info, 256, 256)) if i in wanted]
    return frames, np.stack([detect_faces(frame)[0].box for frame in frames]), opening


def check_layout(points, lips_cross: float = 1.0):
    """The order of the 68 points: jaw around, brows above eyes, nose in between, mouth below, chin lowest. The inner
    edges of the lips may cross by ``lips_cross`` pixels.
    """
    x, y = points[:, 0], points[:, 1]
    assert np.all(np.diff(x[0:17]) > -3) and y[8] == pytest.approx(y[:17].max(), abs=4)
    assert np.all(np.diff(x[17:27]) > 0) and y[17:27].max() < y[36:48].mean()
    assert x[36] < x[39] < x[42] < x[45] and x[48] < x[54] and x[60] < x[64]
    assert np.all(np.diff(y[27:31]) > 0) and y[30] < y[33] < y[51] < y[57] < y[8]
    assert y[37] < y[41] and y[44] < y[46] and y[62] <= y[66] + lips_cross


def test_dlib_lays_the_points_out(head):
    frames, boxes, opening = head
    points = landmarks.find_landmarks(frames, boxes, "dlib")
    assert points.shape == (4, 68, 2) and points.dtype == np.float32
    for frame, opened in zip(points, opening, strict=True):
        # Which of two closed lips is the upper one dlib does not know.
        check_layout(frame, lips_cross=1 if opened > 4 else 3)


def test_the_mediapipe_table_names_68_vertices():
    table = landmarks.MEDIAPIPE_TO_IBUG
    assert len(table) == 68 and len(set(table)) == 68 and 0 <= min(table) and max(table) < 468


@pytest.mark.slow
def test_mediapipe_agrees_with_dlib_on_a_real_face(real_clips, shared_models):
    weights = str(shared_models / "face_landmarker.task")
    info = video.probe(str(real_clips / "sadtalker_wda_hill.mp4"))
    frames = [frame for i, frame in enumerate(video.decode_frames(info, 480, 480)) if i in (0, 40)]
    from pipelines.stages.faces import detect_faces

    boxes = np.stack([detect_faces(frame)[0].box for frame in frames])
    ours = landmarks.find_landmarks(frames, boxes, "mediapipe", weights)
    theirs = landmarks.find_landmarks(frames, boxes, "dlib")
    height = np.linalg.norm(theirs[:, 8] - theirs[:, 27], axis=-1).mean()
    for frame in ours:
        check_layout(frame)
    # The jaw is drawn differently by the two; the inner points mean the same places.
    assert np.linalg.norm(ours[:, 17:] - theirs[:, 17:], axis=-1).mean() < 0.06 * height
    # Mirrored picture, mirrored points: the table has no left and right mixed up.
    flipped = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = 480 - boxes[:, [2, 0]]
    back = landmarks.find_landmarks(flipped, mirrored, "mediapipe", weights)[:, MIRROR]
    back[..., 0] = 479 - back[..., 0]
    assert np.linalg.norm(back - ours, axis=-1).mean() < 0.03 * height
    # Where there is no face there are no points.
    blank = landmarks.find_landmarks([np.full_like(frames[0], 80)], boxes[:1], "mediapipe", weights)
    assert np.isnan(blank).all()
    with pytest.raises(InputError, match="not a MediaPipe face landmarker"):
        landmarks.find_landmarks(frames, boxes, "mediapipe", __file__)
    landmarks.close_backends()


@pytest.mark.slow
def test_face_alignment_is_what_the_package_computes(tmp_path, head):
    """Random weights in the distributed format, loaded by path: our batched run is the package's own."""
    import torch
    from face_alignment.api import FaceAlignment, LandmarksType
    from face_alignment.models import FAN

    torch.manual_seed(0)
    network = FAN(4).eval()
    path = tmp_path / "2DFAN4-random.pth.tar"
    torch.save(network.state_dict(), path)
    frames, boxes = head[0][:2], head[1][:2]
    points = landmarks.find_landmarks(frames, boxes, "face_alignment", str(path))

    package = object.__new__(FaceAlignment)  # without its detector, whose weights would be downloaded
    package.face_alignment_net, package.device, package.dtype = network, "cpu", torch.float32
    package.flip_input, package.max_batch_size, package.landmarks_type = False, 1, LandmarksType.TWO_D
    package.face_detector = type("Detector", (), {"reference_scale": 195})()
    for ours, frame, box in zip(points, frames, boxes, strict=True):
        theirs = package.get_landmarks_from_image(frame, detected_faces=[[*box, 1.0]])[0]
        # The package cuts and answers on whole pixels; random heat maps have several near-equal peaks.
        distance = np.linalg.norm(ours - theirs, axis=-1)
        assert np.median(distance) < 3


def test_heat_map_peaks_are_where_the_map_is_highest():
    heat = np.zeros((1, 68, 64, 64), np.float32)
    heat[0, :, 20, 30] = 1
    heat[0, :, 20, 31] = 0.5
    heat[0, :, 19, 30] = 0.5
    assert np.allclose(landmarks.heatmap_peaks(heat), [30.75, 20.25])


def test_backends_say_what_they_need(tmp_path):
    landmarks.check_backend("dlib", None)
    with pytest.raises(InputError, match="expected one of dlib"):
        landmarks.check_backend("opencv", None)
    with pytest.raises(InputError, match="face_landmarker.task"):
        landmarks.check_backend("mediapipe", None)
    with pytest.raises(InputError, match="no such file"):
        landmarks.check_backend("face_alignment", str(tmp_path / "none.pth"))
    wrong = tmp_path / "wrong.dat"
    wrong.write_bytes(b"not weights")
    frame, box = np.zeros((64, 64, 3), np.uint8), np.array([[8, 8, 56, 56]])
    with pytest.raises(InputError, match="not a dlib shape predictor"):
        landmarks.find_landmarks([frame], box, "dlib", str(wrong))


def test_short_gaps_are_filled_and_long_ones_refused():
    rng = np.random.default_rng(0)
    track = np.linspace(0, 30, 60)[:, None, None] + np.zeros((60, 68, 2))
    noisy = (track + rng.normal(0, 0.5, track.shape)).astype(np.float32)
    noisy[20:24] = np.nan
    filled = landmarks.fill_and_smooth(noisy)
    assert filled.shape == noisy.shape and not np.isnan(filled).any()
    assert np.abs(filled - track).mean() < 0.9 * np.abs(np.nan_to_num(noisy, nan=0.0) - track)[:18].mean()
    noisy[20:30] = np.nan
    assert landmarks.fill_and_smooth(noisy) is None
    assert landmarks.fill_and_smooth(np.full((9, 68, 2), np.nan, np.float32)) is None


def test_smoothing_keeps_a_lip_that_moves_five_times_a_second():
    t = np.arange(90) / 30
    moving = np.sin(2 * np.pi * 5 * t)[:, None, None] * np.ones((90, 68, 2))
    assert np.abs(landmarks.fill_and_smooth(moving)).max() > 0.8
