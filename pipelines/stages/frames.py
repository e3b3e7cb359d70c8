"""A clip's pictures: the H.264 crop inside a clip record becomes an array of frames."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.errors import InputError
from models.signals import CROP_SIZE


def decode_video(video: bytes, name: str = "clip") -> np.ndarray:
    """Decodes every frame of a video held in memory, in presentation order.

    Args:
        video: the bytes of an mp4 file.
        name: what error messages call it.

    Returns:
        uint8 (T, height, width, 3), RGB.

    Raises:
        InputError: the bytes are no video that can be decoded.
    """
    import av

    frames = []
    try:
        # PyAV leaks memory when a container is left open (PyAV #317, #1117), hence the context manager.
        with av.open(io.BytesIO(video), mode="r") as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            f"{name}: field video: expected an mp4 with a video stream, got {len(video)} bytes: {error}"
        ) from error
    if not frames:
        raise InputError(f"{name}: field video: expected at least one frame, decoded none")
    return np.stack(frames)


def clip_frames(record: Mapping[str, Any]) -> np.ndarray:
    """Decodes the crop of a record of the clips column.

    Returns:
        uint8 (T, 256, 256, 3), RGB, T = ``num_frames`` of the record.

    Raises:
        InputError: the video cannot be decoded, or has another size or another number of frames than the record says.
    """
    name = str(record.get("clip_id", "clip"))
    frames = decode_video(record["video"], name)
    expected = (int(record["num_frames"]), CROP_SIZE, CROP_SIZE, 3)
    if frames.shape != expected:
        raise InputError(f"{name}: field video: expected frames of shape {expected}, decoded {frames.shape}")
    return frames
