"""The network backend's own work, with networks whose answers are known: windows win, still places are averaged."""

import numpy as np
import pytest

from pipelines.stages.segment_network import NetworkConfig, largest, likeness, segment_clip

K = 21


class Net:
    """Says the same of every pixel: class 0, in windows class 7, each with noise of its own."""

    def __init__(self, noise=0.0):
        self.noise, self.rng, self.batches = noise, np.random.default_rng(0), []

    def _shares(self, shape, winner):
        shares = np.full((*shape[:-2], K, *shape[-2:]), 0.1 / (K - 2), np.float32)
        shares[..., winner, :, :], shares[..., 1, :, :] = 0.5, 0.4
        shares[..., 1, :, :] += self.noise * self.rng.normal(size=shape)
        return shares

    def map(self, pictures):
        self.batches.append(len(pictures))
        return self._shares((len(pictures), 128, 128), 0)

    def windows(self, windows):
        return self._shares(windows.shape[:4], 7)


@pytest.fixture
def clip(person):
    return person[0], person[1]


def test_windows_win_where_they_are(clip):
    frames, landmarks = clip
    net = Net()
    labels = segment_clip(frames, landmarks, net, NetworkConfig(batch=4))
    assert labels.shape == frames.shape[:3] and labels.dtype == np.uint8
    # Nine frames, in full batches: a network is compiled for one size.
    assert net.batches == [4, 4, 4]
    for t in (0, 4, 8):
        for part in (slice(36, 42), slice(42, 48), slice(48, 60)):
            x, y = landmarks[t, part].mean(0).round().astype(int)
            assert labels[t, y, x] == 7
        assert labels[t, 5, 5] == 0


def test_still_places_are_averaged_in_time(clip):
    frames, landmarks = clip
    still, points = np.repeat(frames[:1], 9, 0), np.repeat(landmarks[:1], 9, 0)

    def wrong(frames, points, reach):
        return (segment_clip(frames, points, Net(0.15), NetworkConfig(reach=reach)) == 1).mean()

    alone = wrong(still, points, 0)
    assert alone > 0.1
    assert wrong(still, points, 3) < 0.55 * alone
    # Frames that have nothing in common do not count for each other.
    rng = np.random.default_rng(1)
    other = rng.integers(0, 2, (9, 1, 1, 1), np.uint8) * 200 + np.arange(9, dtype=np.uint8)[:, None, None, None] * 6
    other = np.broadcast_to(other, still.shape).astype(np.uint8).copy()
    assert wrong(other, points, 3) > 0.75 * alone


def test_likeness_is_one_for_equal_places_and_falls_with_their_difference():
    a = np.zeros((3, 2, 2), np.float32)
    b = a.copy()
    b[:, 0, 0], b[:, 1, 1] = 5, 50
    weight = likeness(a, b, 5.0)
    assert weight[0, 1] == 1 and weight[0, 0] == pytest.approx(np.exp(-1)) and weight[1, 1] < 1e-10


def test_the_same_clip_gives_the_same_labels(clip):
    one, two = (segment_clip(*clip, Net(0.1)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_the_largest_share_wins_and_the_first_of_equal_ones():
    shares = np.random.default_rng(0).integers(0, 6, (21, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(largest(shares), shares.argmax(0))
