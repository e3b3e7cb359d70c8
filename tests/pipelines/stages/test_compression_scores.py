import numpy as np

from pipelines.stages import compression_scores, video
from pipelines.stages.compression_scores import block_contrast
from tests.pipelines.media import ffmpeg, talking_head


def test_quality_falls_as_x264_spends_less(tmp_path):
    scores = []
    for crf in (12, 20, 28, 36, 44):
        path = tmp_path / f"{crf}.mp4"
        # At another size, since the head's own file was compressed on this grid before.
        options = ("-an", "-t", "1", "-vf", "scale=500:500", "-c:v", "libx264", "-preset", "veryfast")
        ffmpeg("-i", talking_head(), *options, "-crf", str(crf), "-pix_fmt", "yuv420p", path)
        scores.append(compression_scores.compression_scores(video.probe(str(path)), 10, 30))
    quality = [score["compression_quality"] for score in scores]
    assert (np.diff(quality) < -0.005).all() and quality[-1] < 0.6 < 0.8 < quality[0] < 1
    assert (np.diff([score["bits_per_pixel"] for score in scores]) < 0).all()


def picture(seed=0):
    """Smoothed noise: steps everywhere, none of them on a grid."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 40, (164, 244))
    kernel = np.ones(5) / 5
    for axis in (0, 1):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel, mode="valid")
    return np.clip(128 + 3 * noise, 0, 255).astype(np.uint8)


def test_blocks_are_seen_on_the_coded_grid_only():
    plain = picture()
    assert abs(block_contrast(plain)) < 0.1
    rows, columns = np.indices(plain.shape)
    block = (rows // 16 * 31 + columns // 16 * 17) % 7 * 4
    blocky = np.clip(plain + block, 0, 255).astype(np.uint8)
    assert block_contrast(blocky) > 0.3
    assert block_contrast(blocky[5:, 5:]) < 0.05  # the same blocks, off the grid: not the encoder's


def test_one_straight_edge_is_not_a_grid():
    letterbox = picture()
    letterbox[:32] = 0
    letterbox[-32:] = 0
    assert abs(block_contrast(letterbox)) < 0.15


def test_what_cannot_be_told_is_left_out():
    assert block_contrast(np.full((128, 128), 60, np.uint8)) is None
    assert block_contrast(picture()[:40]) is None
