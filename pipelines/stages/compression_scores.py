"""How hard a source was compressed, seen in its own pixels: blocks, and bits spent.

Pixels come from a few key frames as they are coded (before rotation), since only there does the grid of blocks lie
where the encoder laid it. Reading key frames alone costs a seek and a handful of pictures.
"""

import numpy as np

from models.signals import VIDEO_FPS
from pipelines.stages import video

KEY_FRAMES = 3
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
        pictures = key_frames(info, start, end, KEY_FRAMES)
    except video.DecodeError:
        pictures = []
    found = [value for value in map(block_contrast, pictures) if value is not None]
    if found:
        scores["compression_quality"] = 1 / (1 + max(0.0, float(np.mean(found))))
    if info.bit_rate and info.fps:
        scores["bits_per_pixel"] = info.bit_rate / (info.width * info.height * info.fps)
    return scores


def key_frames(info: video.VideoInfo, start: int, end: int, count: int) -> list[np.ndarray]:
    """Returns the luma, uint8 (height, width) each, of up to ``count`` key frames around frames [start, end).

    The first is at or before ``start``, where the container's seeking leads. Pictures are as coded: not rotated, pixels
    as they are stored.

    Raises:
        video.MediaError: ffmpeg fails, or finds no key frame.
    """
    import ffmpeg

    second = start / VIDEO_FPS
    options = video._input_options() | {
        "noautorotate": None,
        "skip_frame": "nokey",
        "ss": second,
        "noaccurate_seek": None,
    }
    stream = ffmpeg.input(video._url(info.path), **options, t=max(0.1, end / VIDEO_FPS - second))["v:0"]
    # Pictures before the seek point have negative times and would be dropped: times are made anew.
    stream = stream.filter("setpts", "N")
    output = stream.output(
        "pipe:", format="image2pipe", vcodec="pgm", pix_fmt="gray", vframes=count, fps_mode="passthrough"
    )
    return _read_pgm(b"".join(video._read_pieces(output, 1 << 16, info.deadline)))


def _read_pgm(data: bytes) -> list[np.ndarray]:
    """Splits binary PGM pictures (P5, size, 255) that follow one another."""
    pictures = []
    while data:
        kind, size, most, rest = data.split(b"\n", 3)
        width, height = map(int, size.split())
        if kind != b"P5" or most != b"255":
            raise video.DecodeError(f"ffmpeg wrote {kind[:8]!r} {most[:8]!r}, expected a PGM picture of 8 bits")
        pictures.append(np.frombuffer(rest, np.uint8, width * height).reshape(height, width))
        data = rest[width * height :]
    return pictures


def block_contrast(luma: np.ndarray) -> float | None:
    """uint8 (height, width) as coded -> by how much steps across macroblock edges exceed those elsewhere, relative.

    A step is the difference of two neighbours less the mean of the differences on both sides of it. Of each line
    between two columns (rows) the mean step counts, of the lines their median, so that one real edge of the scene that
    falls on the grid, such as a letterbox's, does not. None for a picture that is nearly flat or too small.
    """
    if min(luma.shape) < 4 * MACROBLOCK:
        return None
    out = []
    for values in (luma.astype(np.int16), luma.T.astype(np.int16)):
        change = np.abs(np.diff(values, axis=1))
        lines = change.mean(axis=0)
        step = lines[1:-1] - (lines[:-2] + lines[2:]) / 2
        at = np.arange(len(step)) + 2  # the line lies before this column
        level = float(lines.mean())
        if level < _FLAT:
            return None
        out.append(float(np.median(step[at % MACROBLOCK == 0]) - np.median(step[at % BLOCK != 0])) / level)
    return float(np.mean(out))
