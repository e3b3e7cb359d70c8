import numpy as np
import pytest

from pipelines.stages.backdrops import _PAINTERS, KINDS, draw_backdrop


def test_every_kind_is_drawn_and_repeats():
    seen = {}
    for k in range(60):
        image, kind = draw_backdrop(np.random.default_rng(k), 64, 48)
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        seen[kind] = k
    assert set(seen) == set(KINDS) == set(_PAINTERS)
    k = seen["window"]
    again = draw_backdrop(np.random.default_rng(k), 64, 48)[0]
    np.testing.assert_array_equal(again, draw_backdrop(np.random.default_rng(k), 64, 48)[0])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_pictures_are_exposed(kind):
    image = _PAINTERS[kind](np.random.default_rng(1), 80, 60)
    assert np.isfinite(image).all() and 0.02 < image.mean() < 1.05


def test_kinds_look_different():
    means = [np.array(_PAINTERS[kind](np.random.default_rng(3), 64, 64)).std((0, 1)).mean() for kind in KINDS]
    assert max(means) > 4 * min(means)  # from a plain wall to a shelf of books
