"""How hard a source was compressed, seen in its own pixels: blocks, and bits spent.

Pixels come from a few key frames as they are coded (before rotation), since only there does the grid of blocks lie
where the encoder laid it. Reading key frames alone costs a seek and a handful of pictures.
"""

import numpy as np

from pipelines.stages import video
from pipelines.stages.limits import DecodeError

KEY_FRAMES = 2
# Block sizes of the codecs in use are powers of two from 4 to 64: every sixteenth edge is one of the larger ones'.
MACROBLOCK, BLOCK = 16, 8
# Mean step between neighbouring pixels under which a picture is too flat to tell.
_FLAT = 0.05


def compression_scores(info: video.VideoInfo, start: int, end: int) -> dict[str, float]:
    """Scores of frames [start, end) of a source; what cannot be told (no key frame that can be read alone, a picture
    that is nearly flat, a container that does not say its bit rate) is left out.
    """
    scores = {}
    try:
        pictures = video.key_frames(info, start, end, KEY_FRAMES)
    except DecodeError:
        pictures = []
    found = [value for value in map(block_contrast, pictures) if value is not None]
    if found:
        scores["compression_quality"] = 1 / (1 + max(0.0, float(np.mean(found))))
    if info.bit_rate and info.fps:
        scores["bits_per_pixel"] = info.bit_rate / (info.width * info.height * info.fps)
    return scores


def block_contrast(luma: np.ndarray) -> float | None:
    """uint8 (height, width) as coded -> by how much steps across macroblock edges exceed those elsewhere, relative.

    A step is the difference of two neighbours less the mean of the differences on both sides of it. Of each line
    between two columns (rows) the mean step counts, of the lines their median, so that one real edge of the scene that
    falls on the grid, such as a letterbox's, does not. None for a picture that is nearly flat or too small.
    """
    if min(luma.shape) < 4 * MACROBLOCK:
        return None
    import cv2

    out = []
    for first, second, along in ((luma[:, 1:], luma[:, :-1], 0), (luma[1:], luma[:-1], 1)):
        # Mean step between each two columns, then between each two rows.
        lines = cv2.reduce(cv2.absdiff(first, second), along, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
        step = lines[1:-1] - (lines[:-2] + lines[2:]) / 2
        at = np.arange(len(step)) + 2  # the line lies before this column
        level = float(lines.mean())
        if level < _FLAT:
            return None
        out.append(float(np.median(step[at % MACROBLOCK == 0]) - np.median(step[at % BLOCK != 0])) / level)
    return float(np.mean(out))
