"""Reading and writing video: the one decoder that every stage uses, so that a frame index means one thing.

The clock. Frame ``n`` of a source is what its picture shows ``n / 30`` seconds after the container's start time, made
by ffmpeg's ``fps`` filter; sample ``s`` of its sound is ``s / 16000`` seconds after the same instant. A stream that
starts late is padded at the front (the first picture, silence), so picture and sound stay together. Variable frame
rates and 25 fps sources fall on the same clock. Sizes are display sizes: rotated as the file says, with square pixels.

PyAV only probes (the ffmpeg that `imageio-ffmpeg` ships has no ffprobe); every picture and sample comes from that
ffmpeg. Files are untrusted: only local files may be opened and only real media containers are recognised, since a
playlist named .mp4 can otherwise make ffmpeg open other files or addresses. Every process has a deadline.
"""

import contextlib
import functools
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.signals import AUDIO_RATE, CROP_SIZE, VIDEO_FPS, audio_samples

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf"
PROTOCOLS = "file,pipe"
MAX_PIXELS = 8192 * 8192
# A source may decode to this much less than its header promises before it counts as cut short.
TRUNCATION_SHARE, TRUNCATION_SECONDS = 0.1, 1.0


class MediaError(Exception):
    """A file that cannot be used as a video. The class name is the reason that the rejects table shows."""


class UnreadableVideo(MediaError):
    """Not a media container, or damaged so that nothing can be decoded."""


class NoVideoStream(MediaError):
    """A media file without moving pictures."""


class TruncatedVideo(MediaError):
    """The file holds much less video than its header says."""


class DecodeTimeout(MediaError):
    """ffmpeg did not finish within its deadline."""


class DecodeError(MediaError):
    """ffmpeg ended with an error."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header and first picture say. ``width`` x ``height`` is the display size in pixels (after rotation,
    square pixels); ``seconds`` is the length of the video stream (0 if the header does not say); ``rotation`` in
    degrees; ``bit_rate`` of the video stream in bits per second, of the whole file where only that is known (0:
    neither).
    """

    path: str
    width: int
    height: int
    fps: float
    seconds: float
    rotation: int
    codec: str
    has_audio: bool
    square_pixels: bool
    size: int
    bit_rate: int = 0

    @property
    def deadline(self) -> float:
        """Seconds that one ffmpeg pass over the whole file may take: far more than it needs, on any machine."""
        return 120 + 30 * self.seconds * max(1.0, self.width * self.height / (1920 * 1080))


def probe(path: str) -> VideoInfo:
    """Opens a file and decodes its first picture. Raises MediaError if it is not a video that can be decoded."""
    import av

    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": CONTAINERS}
    size = os.path.getsize(path)
    if size == 0:
        raise UnreadableVideo("the file is empty")
    try:
        with av.open(_url(path), options=options, metadata_errors="replace") as container:
            # A cover picture is a video stream too, but not a video.
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                raise NoVideoStream("the file has no video stream")
            stream = streams[0]
            frame = next(container.decode(stream), None)
            if frame is None:
                raise UnreadableVideo("no picture can be decoded")
            width, height, rotation = frame.width, frame.height, round(frame.rotation) % 360
            aspect = stream.sample_aspect_ratio or 1
            seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
            if not seconds and container.duration:
                seconds = container.duration / av.time_base
            info = VideoInfo(
                path=path,
                width=max(1, round(width * aspect)),
                height=height,
                fps=float(stream.average_rate or stream.guessed_rate or 0),
                seconds=max(0.0, seconds),
                rotation=rotation,
                codec=stream.codec_context.name,
                has_audio=bool(container.streams.audio),
                square_pixels=aspect == 1,
                size=size,
                bit_rate=int(stream.bit_rate or container.bit_rate or (8 * size / seconds if seconds else 0)),
            )
    except (av.FFmpegError, ValueError, StopIteration) as error:
        raise UnreadableVideo(f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}") from error
    if info.width * info.height > MAX_PIXELS:
        raise UnreadableVideo(f"{info.width}x{info.height} is more than {MAX_PIXELS} pixels")
    if rotation in (90, 270):
        return VideoInfo(**{**info.__dict__, "width": info.height, "height": info.width})
    return info


def scaled_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Returns (width, height), even, of the picture scaled down so that its short side is at most ``short_side``."""
    scale = min(1.0, short_side / min(info.width, info.height))
    return max(2, round(info.width * scale / 2) * 2), max(2, round(info.height * scale / 2) * 2)


def decode_frames(info: VideoInfo, width: int, height: int) -> Iterator[np.ndarray]:
    """Streams the whole video at 30 fps as uint8 (height, width, 3) RGB frames, one at a time.

    Raises MediaError if ffmpeg fails, hangs or the file turns out to be cut short.
    """
    stream = _input(info)
    if info.fps > VIDEO_FPS:  # the cheaper order: fewer pictures to scale
        stream = _clock(stream).filter("scale", width, height, flags="area")
    else:
        stream = _clock(stream.filter("scale", width, height, flags="area"))
    stream = stream.filter("setsar", 1)
    count = 0
    for data in _run_raw(stream, width * height * 3, info.deadline, pix_fmt="rgb24"):
        count += 1
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    expected = info.seconds * VIDEO_FPS
    if count == 0:
        raise UnreadableVideo("no picture can be decoded")
    if expected - count > max(TRUNCATION_SECONDS * VIDEO_FPS, TRUNCATION_SHARE * expected):
        raise TruncatedVideo(f"the header says {info.seconds:.2f} s of video, {count / VIDEO_FPS:.2f} s can be decoded")


def decode_audio(info: VideoInfo) -> np.ndarray:
    """Returns the sound as int16 (samples,) at 16 kHz mono on the video's clock; gaps in it are silence."""
    import ffmpeg

    stream = ffmpeg.input(_url(info.path), **_input_options())["a:0"]
    # "async" keeps the samples at their time stamps; the layout's mix-down is ffmpeg's.
    stream = stream.filter("aresample", AUDIO_RATE, **{"async": 1, "first_pts": 0})
    output = stream.output("pipe:", format="s16le", acodec="pcm_s16le", ac=1, ar=AUDIO_RATE)
    data = b"".join(_read_pieces(output, 1 << 16, info.deadline))
    return np.frombuffer(data[: len(data) // 2 * 2], np.int16)


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

    with tempfile.TemporaryDirectory(prefix="archon-crop-") as folder:
        sound, target = os.path.join(folder, "sound.s16le"), os.path.join(folder, "clip.mp4")
        np.ascontiguousarray(audio, dtype="<i2").tofile(sound)
        picture = _cropped(info, start, frames, box).filter("format", "yuv420p")
        voice = ffmpeg.input(_url(sound), format="s16le", ar=AUDIO_RATE, ac=1, protocol_whitelist=PROTOCOLS)
        output = ffmpeg.output(
            picture,
            voice["a:0"],
            target,
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
                "colorspace": "smpte170m",
                "color_primaries": "smpte170m",
                "color_trc": "smpte170m",
                "color_range": "tv",
            },
        )
        for _ in _read_pieces(output, 1 << 16, info.deadline):
            pass
        with open(target, "rb") as file:
            return file.read()


def decode_crop(info: VideoInfo, start: int, frames: int, box: tuple[int, int, int]) -> np.ndarray:
    """Returns uint8 (frames, 256, 256, 3): the pixels that write_crop gives to the encoder."""
    size = CROP_SIZE * CROP_SIZE * 3
    pieces = list(_run_raw(_cropped(info, start, frames, box), size, info.deadline, pix_fmt="rgb24"))
    return np.frombuffer(b"".join(pieces), np.uint8).reshape(-1, CROP_SIZE, CROP_SIZE, 3)


def decode_clip(video: bytes) -> np.ndarray:
    """Returns uint8 (T, 256, 256, 3) RGB: every picture of a clip's mp4 bytes."""
    import io

    import av

    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _cropped(info: VideoInfo, start: int, frames: int, box: tuple[int, int, int]):
    x0, y0, side = (int(value) for value in box)
    # Seeking by whole seconds keeps the frame clock's rounding exactly as it is without seeking. Pictures between the
    # key
    # frame and the seek point keep their (negative) times, so a picture that is held across that point is not lost.
    second = max(0, start // VIDEO_FPS - 1)
    first = start - second * VIDEO_FPS
    stream = _clock(_input(info, second))
    stream = stream.filter("trim", start_frame=first, end_frame=first + frames).filter("setpts", "PTS-STARTPTS")
    if not info.square_pixels:
        stream = stream.filter("scale", info.width, info.height, flags="bicubic").filter("setsar", 1)
    # ffmpeg's crop moves a box that sticks out back inside, and rounds to even pixels in 4:2:0, both silently. So: cut
    # a part that is inside on even pixels, turn that to RGB, cut exactly, then add the part that lies outside.
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(info.width, x0 + side), min(info.height, y0 + side)
    if right - left < 2 or bottom - top < 2:
        raise ValueError(f"box {box} does not meet the {info.width}x{info.height} picture")
    margin = 8
    outer_x, outer_y = max(0, left - margin) // 2 * 2, max(0, top - margin) // 2 * 2
    outer_right, outer_bottom = min(info.width, right + margin), min(info.height, bottom + margin)
    outer_right += (outer_right - outer_x) % 2 and outer_right < info.width
    outer_bottom += (outer_bottom - outer_y) % 2 and outer_bottom < info.height
    stream = stream.filter("crop", outer_right - outer_x, outer_bottom - outer_y, outer_x, outer_y, exact=1)
    stream = stream.filter("format", "rgb24")
    stream = stream.filter("crop", right - left, bottom - top, left - outer_x, top - outer_y, exact=1)
    if (right - left, bottom - top) != (side, side):
        stream = stream.filter("pad", side, side, left - x0, top - y0, color="black")
    flags = "area" if side > 2 * CROP_SIZE else "bicubic"
    return stream.filter("scale", CROP_SIZE, CROP_SIZE, flags=f"{flags}+accurate_rnd").filter("setsar", 1)


def _url(path: str) -> str:
    # The prefix keeps a name like "concat:a" or "http:b" a file name.
    return f"file:{os.path.abspath(path)}"


def _input_options(second: int = 0) -> dict:
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": CONTAINERS, "threads": 1}
    if second:
        options |= {"ss": second, "noaccurate_seek": None}
    return options


def _input(info: VideoInfo, second: int = 0):
    import ffmpeg

    return ffmpeg.input(_url(info.path), **_input_options(second))["v:0"]


def _clock(stream):
    return stream.filter("fps", fps=VIDEO_FPS, start_time=0, round="near").filter("setpts", "PTS-STARTPTS")


@functools.lru_cache(maxsize=1)
def ffmpeg_executable() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def _run_raw(stream, frame_bytes: int, deadline: float, pix_fmt: str) -> Iterator[bytes]:
    output = stream.output("pipe:", format="rawvideo", pix_fmt=pix_fmt, fps_mode="passthrough")
    for data in _read_pieces(output, frame_bytes, deadline):
        if len(data) == frame_bytes:
            yield data


def _read_pieces(output, size: int, deadline: float) -> Iterator[bytes]:
    """Runs an ffmpeg-python graph and yields its output in pieces of ``size`` bytes (the last may be shorter)."""
    import ffmpeg

    output = output.global_args("-hide_banner", "-nostdin", "-v", "error", "-filter_threads", "1", "-y")
    command = ffmpeg.compile(output, cmd=ffmpeg_executable())
    expired = threading.Event()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)

        def stop() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(deadline, stop)
        timer.daemon = True
        timer.start()
        finished = False
        try:
            while data := process.stdout.read(size):
                yield data
            finished = True
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                if not finished:
                    process.kill()
            process.stdout.close()
            code = process.wait()
        if expired.is_set():
            raise DecodeTimeout(f"ffmpeg did not finish in {deadline:.0f} s")
        if code != 0:
            errors.seek(0)
            lines = errors.read()[-2000:].decode(errors="replace").strip().splitlines()
            raise DecodeError(f"ffmpeg ended with status {code}: {' | '.join(lines[-3:])}")
