import numpy as np

from pipelines.stages.shots import ShotDetector


def scene(seed, count):
    """A textured picture that moves slowly."""
    rng = np.random.default_rng(seed)
    base = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    return [np.roll(base, step, axis=1) for step in range(count)]


def test_cuts_are_found_at_the_frame():
    detector = ShotDetector()
    for frame in scene(0, 40) + scene(1, 25) + scene(2, 50):
        detector.add(frame)
    assert detector.shots() == [(0, 40), (40, 65), (65, 115)]


def test_one_scene_is_one_shot_even_with_repeated_frames():
    detector = ShotDetector()
    for index, frame in enumerate(scene(3, 60)):
        detector.add(frame)
        if index % 5 == 0:  # a 25 fps source on a 30 fps clock
            detector.add(frame)
    assert detector.shots() == [(0, 72)]


def test_nothing_seen():
    assert ShotDetector().shots() == []


def test_the_change_reaches_one_at_a_cut_and_nowhere_else():
    detector = ShotDetector()
    for frame in scene(0, 40) + scene(1, 25):
        detector.add(frame)
    changes = detector.changes()
    assert changes.shape == (65,) and np.flatnonzero(changes >= 1).tolist() == [40]
    assert 0 < changes[20] < 1


def test_a_cut_that_the_detector_passes_over_shows_in_the_changes():
    """Three frames of another scene: too short to be a shot of its own."""
    detector = ShotDetector()
    for frame in scene(0, 40) + scene(1, 3) + scene(0, 40):
        detector.add(frame)
    inside = [index for start, end in detector.shots() for index in range(start + 1, end)]
    assert detector.changes()[inside].max() >= 1
    assert ShotDetector().changes().shape == (0,)
