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
