"""The reference image is the first frame, as its own array."""

import numpy as np

from pipelines.stages.reference import reference_image


def test_first_frame_is_taken():
    frames = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    image, frame = reference_image(frames)
    assert frame == 0 and np.array_equal(image, frames[0])
    assert np.array_equal(reference_image(frames, 2)[0], frames[2])
