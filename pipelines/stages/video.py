"""Reading and writing video: the one decoder that every stage uses, so that a frame index means one thing.

The clock. Frame ``n`` of a source is what its picture shows ``n / 30`` seconds after the container's start time, made
by ffmpeg's ``fps`` filter; sample ``s`` of its sound is ``s / 16000`` seconds after the same instant. A stream that
starts late is padded at the front (the first picture, silence), so picture and sound stay together. Variable frame
rates and 25 fps sources fall on the same clock. Sizes are display sizes: rotated as the file says, with square pixels.
Interlaced pictures are made whole first, one from each pair of fields.

The ffmpeg that `imageio-ffmpeg` ships makes every picture and sample of a source; PyAV only reads clips that we wrote,
and headers in a process of their own (pipelines/stages/probing.py). Files are untrusted: see
pipelines/stages/limits.py.
"""

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from models.signals import AUDIO_RATE, CROP_SIZE, VIDEO_FPS, audio_samples
from pipelines.stages import probing, processes
from pipelines.stages.limits import DecodeTimeout, Limits, TooLong, TruncatedVideo, UnreadableVideo, check_size
from pipelines.stages.probing import VideoInfo, input_options, url

# A source may decode to this much less than its header promises before it counts as cut short; more by as much and it
# is not what it says.
TRUNCATION_SHARE, TRUNCATION_SECONDS = 0.1, 1.0
SURPLUS_SHARE, SURPLUS_SECONDS = 0.2, 60.0
# Pixel formats by the grid of their chroma samples, in pixels along the coarser axis. Only those in which a part of the
# picture is turned to RGB as it is in the whole; colours of 10-bit pictures are interpolated across the part's edge.
_CHROMA_GRID = {
    **dict.fromkeys(("yuv420p", "yuvj420p", "nv12", "yuv422p", "yuvj422p"), 2),
    **dict.fromkeys(("yuv444p", "yuvj444p", "rgb24", "gbrp", "gray"), 1),
}
_SOURCE = "file:source"  # stands for the source's name in a graph
_DEFAULT_LIMITS = Limits()


def probe(path: str, limits: Limits = _DEFAULT_LIMITS) -> VideoInfo:
    """Reads a file's header and first pictures in the helper process.

    Raises MediaError if it is not a video that can be decoded, or one beyond the limits.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise UnreadableVideo("the file is empty")
    check_size(size, limits)
    facts = probing.PROBER.ask(os.path.abspath(path), limits)
    info = VideoInfo(path=path, size=size, started=time.monotonic(), limits=limits, **facts)
    probing.check(info)
    return info


def deadline(info: VideoInfo) -> float:
    """Seconds that one ffmpeg pass over the whole file may take: far more than it needs, on any machine, but no more
    than what is left of the source's time. Raises DecodeTimeout if nothing is.
    """
    seconds = info.longest or info.size / info.limits.min_bytes_per_second
    one_pass = 120 + 30 * seconds * max(1.0, info.width * info.height / (1920 * 1080))
    left = info.started + 60 * info.limits.max_minutes - time.monotonic()
    if left <= 0:
        raise DecodeTimeout(f"the source took more than {info.limits.max_minutes:g} minutes")
    return min(one_pass, left)


def most_seconds(info: VideoInfo) -> float:
    """How much may be decoded of a source: what its header says and some, or the limit if it says nothing."""
    limit = info.limits.max_hours * 3600
    return min(limit, info.longest * (1 + SURPLUS_SHARE) + SURPLUS_SECONDS) if info.longest else limit


def scaled_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Returns (width, height), even, of the picture scaled down so that its short side is at most ``short_side``."""
    scale = min(1.0, short_side / min(info.width, info.height))
    return max(2, round(info.width * scale / 2) * 2), max(2, round(info.height * scale / 2) * 2)


def decode_frames(info: VideoInfo, width: int, height: int) -> Iterator[np.ndarray]:
    """Streams the whole video at 30 fps as uint8 (height, width, 3) RGB frames, one at a time.

    Raises MediaError if ffmpeg fails, hangs or the file turns out to be cut short.
    """
    stream = _whole(_input(info), info)
    if info.fps > VIDEO_FPS:  # the cheaper order: fewer pictures to scale
        stream = _clock(stream).filter("scale", width, height, flags="area")
    else:
        stream = _clock(stream.filter("scale", width, height, flags="area"))
    stream = stream.filter("setsar", 1)
    count, most = 0, most_seconds(info) * VIDEO_FPS
    for data in _run_raw(stream, width * height * 3, info, pix_fmt="rgb24"):
        count += 1
        if count > most:
            raise TooLong(f"more than {count / VIDEO_FPS:.0f} s of video, the header says {info.longest:.2f} s")
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    expected = info.seconds * VIDEO_FPS
    if count == 0:
        raise UnreadableVideo("no picture can be decoded")
    if expected - count > max(TRUNCATION_SECONDS * VIDEO_FPS, TRUNCATION_SHARE * expected):
        raise TruncatedVideo(f"the header says {info.seconds:.2f} s of video, {count / VIDEO_FPS:.2f} s can be decoded")


def decode_picture(info: VideoInfo, frame: int, width: int, height: int) -> np.ndarray:
    """Returns frame ``frame`` of the 30 fps clock as uint8 (height, width, 3), without decoding what lies far before.

    The first picture, if the video ends earlier. Raises MediaError if nothing can be decoded.
    """
    for start in dict.fromkeys((frame, 0)):
        second = max(0, start // VIDEO_FPS - 1)
        first = start - second * VIDEO_FPS
        stream = _clock(_whole(_input(info, second), info)).filter("trim", end_frame=first + 1)
        stream = stream.filter("scale", width, height, flags="area").filter("setsar", 1)
        last = None
        for data in _run_raw(stream, width * height * 3, info, pix_fmt="rgb24"):
            last = data
        if last is not None:
            return np.frombuffer(last, np.uint8).reshape(height, width, 3)
    raise UnreadableVideo("no picture can be decoded")


def decode_audio(info: VideoInfo) -> np.ndarray:
    """Returns the sound as int16 (samples,) at 16 kHz mono on the video's clock; gaps in it are silence.

    The array is a read-only map of an anonymous file, so hours of sound cost no memory that cannot be given back.
    """
    import ffmpeg

    stream = ffmpeg.input(_SOURCE, **_options(info))["a:0"]
    # "async" keeps the samples at their time stamps; the layout's mix-down is ffmpeg's.
    stream = stream.filter("aresample", AUDIO_RATE, **{"async": 1, "first_pts": 0})
    output = stream.output("pipe:", format="s16le", acodec="pcm_s16le", ac=1, ar=AUDIO_RATE)
    most = most_seconds(info) * AUDIO_RATE * 2
    with tempfile.TemporaryFile() as file:
        for data in processes.read_pieces(_command(output, info), 1 << 18, deadline(info), info.limits):
            file.write(data)
            if file.tell() > most:
                raise TooLong(f"more than {most / AUDIO_RATE / 2:.0f} s of sound, the header says {info.longest:.2f} s")
        file.truncate(file.tell() // 2 * 2)
        if not file.tell():
            return np.zeros(0, np.int16)
        return np.memmap(file, np.dtype("<i2"), mode="r")


def cut_audio(audio: np.ndarray, start: int, frames: int) -> np.ndarray:
    """Returns int16 (audio_samples(frames),).

    The sound of ``frames`` frames from frame ``start``, silence past the end.
    """
    begin = round(start * AUDIO_RATE / VIDEO_FPS)
    piece = audio[begin : begin + audio_samples(frames)]
    return np.pad(piece, (0, audio_samples(frames) - len(piece)))


def write_crop(
    info: VideoInfo, start: int, frames: int, box: tuple[int, int, int], audio: np.ndarray, crf: int = 17
) -> bytes:
    """Cuts the square ``box`` = (x0, y0, side) out of frames [start, start + frames), scales to 256x256, encodes.

    Returns mp4 bytes: H.264 at 30 fps with ``audio`` (int16, 16 kHz mono) as AAC. The same input gives the same bytes.
    A box beyond the picture is filled with black there.
    """
    import ffmpeg

    with _anonymous_file("sound") as sound, _anonymous_file("clip") as target:
        os.write(sound, np.ascontiguousarray(audio, dtype="<i2").tobytes())
        picture = _cropped(info, start, frames, box).filter("format", "yuv420p")
        voice = ffmpeg.input(
            f"file:/proc/self/fd/{sound}", format="s16le", ar=AUDIO_RATE, ac=1, protocol_whitelist=probing.PROTOCOLS
        )
        output = ffmpeg.output(
            picture,
            voice["a:0"],
            f"file:/proc/self/fd/{target}",
            format="mp4",
            vcodec="libx264",
            preset="veryfast",
            crf=crf,
            acodec="aac",
            audio_bitrate="96k",
            threads=1,
            map_metadata=-1,
            movflags="+faststart",
            **{
                "flags:v": "+bitexact",
                "flags:a": "+bitexact",
                "fflags": "+bitexact",
                "colorspace": info.matrix,
                "color_primaries": info.matrix,
                "color_trc": info.matrix,
                "color_range": "tv",
            },
        )
        for _ in processes.read_pieces(_command(output, info), 1 << 16, deadline(info), info.limits, (sound, target)):
            pass
        with open(target, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()


@contextlib.contextmanager
def _anonymous_file(name: str) -> Iterator[int]:
    """Yields the descriptor of a file in memory that has no name in any folder: nothing is left of it, ever."""
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def decode_crop(info: VideoInfo, start: int, frames: int, box: tuple[int, int, int]) -> np.ndarray:
    """Returns uint8 (frames, 256, 256, 3): the pixels that write_crop gives to the encoder."""
    size = CROP_SIZE * CROP_SIZE * 3
    pieces = list(_run_raw(_cropped(info, start, frames, box), size, info, pix_fmt="rgb24"))
    return np.frombuffer(b"".join(pieces), np.uint8).reshape(-1, CROP_SIZE, CROP_SIZE, 3)


def key_frames(info: VideoInfo, start: int, end: int, count: int) -> list[np.ndarray]:
    """Returns the luma, uint8 (height, width) each, of up to ``count`` key frames around frames [start, end).

    The first is at or before ``start``, where the container's seeking leads. Pictures are as coded: not rotated, pixels
    as they are stored.

    Raises MediaError if ffmpeg fails or finds no key frame.
    """
    import ffmpeg

    second = start / VIDEO_FPS
    options = _options(info) | {"noautorotate": None, "skip_frame": "nokey", "ss": second, "noaccurate_seek": None}
    stream = ffmpeg.input(_SOURCE, **options, t=max(0.1, end / VIDEO_FPS - second))["v:0"]
    # Pictures before the seek point have negative times and would be dropped: times are made anew.
    stream = stream.filter("setpts", "N")
    output = stream.output(
        "pipe:", format="image2pipe", vcodec="pgm", pix_fmt="gray", vframes=count, fps_mode="passthrough"
    )
    data = b"".join(processes.read_pieces(_command(output, info), 1 << 18, deadline(info), info.limits))
    return _read_pgm(data)


def _read_pgm(data: bytes) -> list[np.ndarray]:
    """Splits binary PGM pictures of 8 bits (P5, size, 255), as ffmpeg writes one after the other."""
    pictures = []
    while data:
        _, size, _, rest = data.split(b"\n", 3)
        width, height = map(int, size.split())
        pictures.append(np.frombuffer(rest, np.uint8, width * height).reshape(height, width))
        data = rest[width * height :]
    return pictures


def decode_clip(video: bytes) -> np.ndarray:
    """Returns uint8 (T, 256, 256, 3) RGB: every picture of a clip's mp4 bytes."""
    import io

    import av

    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _cropped(info: VideoInfo, start: int, frames: int, box: tuple[int, int, int]):
    x0, y0, side = (int(value) for value in box)
    # Seeking by whole seconds keeps the frame clock's rounding exactly as it is without seeking. Pictures between the
    # key frame and the seek point keep their (negative) times, so a picture that is held across that point is not lost.
    second = max(0, start // VIDEO_FPS - 1)
    first = start - second * VIDEO_FPS
    stream = _clock(_whole(_input(info, second), info))
    stream = stream.filter("trim", start_frame=first, end_frame=first + frames).filter("setpts", "PTS-STARTPTS")
    return cut_square(stream, info, (x0, y0, side))


def cut_square(stream, info: VideoInfo, box: tuple[int, int, int]):
    """Adds to an ffmpeg-python stream of full pictures what cuts ``box`` from them: 256x256, in the source's colours or
    RGB.
    """
    x0, y0, side = box
    if not info.square_pixels:
        stream = stream.filter("scale", info.width, info.height, flags="bicubic").filter("setsar", 1)
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(info.width, x0 + side), min(info.height, y0 + side)
    if right - left < 2 or bottom - top < 2:
        raise ValueError(f"box {box} does not meet the {info.width}x{info.height} picture")
    # ffmpeg's crop moves a box that sticks out back inside, and rounds to whole chroma samples, both silently. A box on
    # whole chroma samples (those of `crop.clip_box` are) is cut as it is. Of another, a part that is inside and on
    # whole samples is cut, turned to RGB, and cut exactly. What lies outside is added last.
    grid, colours = _CHROMA_GRID.get(info.pixel_format), info.pixel_format
    if grid is None or any(edge % grid for edge in (x0, y0, side, right - left, bottom - top)):
        margin = 8
        outer_x, outer_y = max(0, left - margin) // 2 * 2, max(0, top - margin) // 2 * 2
        outer_right, outer_bottom = min(info.width, right + margin), min(info.height, bottom + margin)
        outer_right += (outer_right - outer_x) % 2 and outer_right < info.width
        outer_bottom += (outer_bottom - outer_y) % 2 and outer_bottom < info.height
        stream = stream.filter("crop", outer_right - outer_x, outer_bottom - outer_y, outer_x, outer_y, exact=1)
        stream, colours = stream.filter("format", "rgb24"), "rgb24"
        left, top, right, bottom = left - outer_x, top - outer_y, right - outer_x, bottom - outer_y
        x0, y0 = x0 - outer_x, y0 - outer_y
    stream = stream.filter("crop", right - left, bottom - top, left, top, exact=1)
    if (right - left, bottom - top) != (side, side):
        stream = stream.filter("pad", side, side, left - x0, top - y0, color="black")
    # As crop.cut_crop does. Wider kernels and exact rounding cost more than the rest of the cut (see the benchmarks).
    flags = "area" if side > CROP_SIZE else "bicubic"
    stream = stream.filter("scale", CROP_SIZE, CROP_SIZE, flags=flags).filter("setsar", 1)
    return stream.filter("format", colours)


def _options(info: VideoInfo, second: int = 0) -> dict:
    options = {
        **input_options(info.limits.max_streams),
        "threads": 1,
        "max_pixels": info.limits.pixels,
        # A change of size in the middle would restart the filters, and with them the clock. Such pictures are dropped
        # instead, and ffmpeg says so.
        "drop_changed": 1,
    }
    if second:
        options |= {"ss": second, "noaccurate_seek": None}
    return options


def _input(info: VideoInfo, second: int = 0):
    import ffmpeg

    return ffmpeg.input(_SOURCE, **_options(info, second))["v:0"]


def _whole(stream, info: VideoInfo):
    """Makes interlaced pictures whole: one from each pair of fields, at the first one's time."""
    if info.scan == "progressive":
        return stream
    if info.scan == "interlaced":  # pictures between that are not are left as they are
        return stream.filter("bwdif", mode="send_frame", deint="interlaced")
    return stream.filter("bwdif", mode="send_frame", parity=info.scan, deint="all")


def _clock(stream):
    return stream.filter("fps", fps=VIDEO_FPS, start_time=0, round="near").filter("setpts", "PTS-STARTPTS")


@functools.lru_cache(maxsize=1)
def ffmpeg_executable() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def _command(output, info) -> list[str]:
    """The command line of an ffmpeg-python graph. No shell ever sees it."""
    import ffmpeg

    output = output.global_args(
        "-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-filter_threads", "1", "-y"
    )
    command = ffmpeg.compile(output, cmd=ffmpeg_executable())
    # ffmpeg-python cannot hold a name that is not UTF-8.
    return [url(info.path) if word == _SOURCE else word for word in command]


def _run_raw(stream, frame_bytes: int, info: VideoInfo, pix_fmt: str) -> Iterator[bytes]:
    output = stream.output("pipe:", format="rawvideo", pix_fmt=pix_fmt, fps_mode="passthrough")
    for data in processes.read_pieces(_command(output, info), frame_bytes, deadline(info), info.limits):
        if len(data) == frame_bytes:
            yield data
