"""What a video's header and first picture say, read by a process of its own.

PyAV parses whatever bytes it is given inside the process that calls it, and a parser that crashes takes that process
along. So a worker starts one helper, which probes source after source under the kernel's limits; if a source kills it,
that source is a ProbeCrashed, and the next one gets a new helper. Requests and answers are lines of JSON.
"""

import atexit
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, field

from pipelines.stages import limits as errors
from pipelines.stages import processes
from pipelines.stages.limits import (
    DecodeTimeout,
    Limits,
    MediaError,
    NoVideoStream,
    OutOfMemory,
    ProbeCrashed,
    TooLarge,
    TooLong,
    TooManyStreams,
    UnreadableVideo,
)

# Real media containers only: a playlist named .mp4 can otherwise make ffmpeg open other files or addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf"
PROTOCOLS = "file,pipe"
# How many pictures are looked at for the interlaced flag: a stream may begin with a progressive one.
_PICTURES = 4
_FLAGS_PICTURES = {"h264", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3", "ffv1", "dvvideo"}
# AVFieldOrder (libavcodec/defs.h) by the field that is shown first; 4 and 5 are stored in the other order.
_FIELD_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
_BT709 = 1  # AVCOL_SPC_BT709
_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header and first pictures say.

    Attributes:
        width, height: display size in pixels (after rotation, with square pixels).
        fps: pictures a second, 0 if unknown.
        seconds: length of the video stream, 0 if the header does not say.
        longest: seconds until the last stream ends on the container's clock, 0 if unknown.
        rotation: degrees.
        scan: "progressive"; "interlaced" (the pictures say so, and which field is first); or "tff" / "bff" (only the
            header says so: top / bottom field first).
        pixel_format: ffmpeg's name of it.
        matrix: "bt709" or "smpte170m", which turns RGB to the picture's luma and chroma (also where the file says
            neither: ffmpeg then takes the latter).
        bit_rate: of the video stream, bits per second; of the whole file where only that is known, 0 if neither is.
        size: of the file, in bytes.
        started: when the source was probed, on the monotonic clock.
    """

    path: str
    width: int
    height: int
    fps: float
    seconds: float
    longest: float
    rotation: int
    codec: str
    has_audio: bool
    square_pixels: bool
    scan: str
    pixel_format: str
    matrix: str
    bit_rate: int
    size: int
    started: float = 0.0
    limits: Limits = field(default_factory=Limits)


def url(path: str) -> str:
    """A local file's name as ffmpeg must be given it: the prefix keeps "concat:a", "-i" or "http:b" file names."""
    return f"file:{os.path.abspath(path)}"


def input_options(streams: int = 1000) -> dict[str, str]:
    """What every opening of a source is told: only local files, only media containers, few streams."""
    return {"protocol_whitelist": PROTOCOLS, "format_whitelist": CONTAINERS, "max_streams": str(streams)}


# --- In the helper ---


def read_header(path: str, limits: Limits) -> dict:
    """Opens a file and decodes its first pictures, in this process. Returns VideoInfo's fields; raises MediaError."""
    import av

    try:
        with av.open(url(path), options=input_options(), metadata_errors="replace") as container:
            if len(container.streams) > limits.max_streams:
                raise TooManyStreams(f"{len(container.streams)} streams are more than {limits.max_streams}")
            # A cover picture is a video stream too, but not a video.
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                raise NoVideoStream("the file has no video stream")
            stream = streams[0]
            context = stream.codec_context
            if context is None:
                raise UnreadableVideo("no decoder for the picture")
            if context.width * context.height > limits.pixels:
                raise TooLarge(f"{context.width}x{context.height} is more than {limits.max_megapixels:g} megapixels")
            context.thread_count = 1
            frames = _first_pictures(container, stream)
            if not frames:
                raise UnreadableVideo("no picture can be decoded")
            frame, seconds, longest = frames[0], 0.0, 0.0
            aspect = stream.sample_aspect_ratio or 1
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            if container.duration:
                longest = container.duration / av.time_base
            width, height, rotation = max(1, round(frame.width * aspect)), frame.height, round(frame.rotation) % 360
            if rotation in (90, 270):
                width, height = height, width
            return {
                "width": width,
                "height": height,
                "fps": float(stream.average_rate or stream.guessed_rate or 0),
                "seconds": max(0.0, seconds or longest),
                "longest": max(0.0, seconds, longest),
                "rotation": rotation,
                "codec": context.name,
                "has_audio": bool(container.streams.audio),
                "square_pixels": aspect == 1,
                "scan": _scan(context.name, context.field_order, frames),
                "pixel_format": frame.format.name,
                "matrix": "bt709" if int(frame.colorspace) == _BT709 else "smpte170m",
                "bit_rate": int(stream.bit_rate or container.bit_rate or 0),
            }
    except MemoryError as error:
        raise OutOfMemory("the header or the first picture wants more memory than the limit") from error
    except (av.FFmpegError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise UnreadableVideo(f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}") from error


def _first_pictures(container, stream) -> list:
    import av

    frames = []
    try:
        for frame in container.decode(stream):
            frames.append(frame)
            if len(frames) == _PICTURES:
                break
    except av.FFmpegError:
        if not frames:
            raise
    return frames


def _scan(codec: str, order: int, frames: list) -> str:
    if any(frame.interlaced_frame for frame in frames):
        return "interlaced"
    # A header may call progressive pictures interlaced (some cameras do): it counts for codecs without a flag of their
    # own.
    if codec in _FLAGS_PICTURES:
        return "progressive"
    return _FIELD_ORDERS.get(int(order or 0), "progressive")


def serve() -> None:
    """The helper's loop: a line of JSON in, {"path", "limits"}; a line out, {"info"} or {"error", "detail"}."""
    requests, answers = sys.stdin.buffer, os.dup(sys.stdout.fileno())
    os.dup2(2, 1)  # what a library prints must not look like an answer
    for line in requests:
        request = json.loads(line)
        limits = Limits(**request["limits"])
        # Processor time is counted over the helper's life: each source gets its own share of it.
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowed = int(used.ru_utime + used.ru_stime + limits.probe_seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            answer = {"info": read_header(request["path"], limits)}
        except MediaError as error:
            answer = {"error": type(error).__name__, "detail": str(error)[:500]}
        os.write(answers, json.dumps(answer).encode() + b"\n")


# --- In the worker ---


class Prober:
    """The worker's side: one helper, started on first use and again whenever it has died. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner, self._memory = 0, 0

    def ask(self, path: str, limits: Limits) -> dict:
        """Returns VideoInfo's fields; raises MediaError."""
        with self._lock:
            process = self._running(limits)
            expired = threading.Event()

            def stop() -> None:
                expired.set()
                process.kill()

            timer = threading.Timer(limits.probe_seconds, stop)
            timer.daemon = True
            timer.start()
            try:
                request = json.dumps({"path": path, "limits": asdict(limits)})
                process.stdin.write(request.encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline(_ANSWER_BYTES)
            except OSError:
                line = b""
            finally:
                timer.cancel()
            if not line.endswith(b"\n") or expired.is_set():
                code = self._stop()
                if expired.is_set():
                    raise DecodeTimeout(f"the header could not be read in {limits.probe_seconds:g} s")
                raise ProbeCrashed(f"the reader of the header ended with status {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["detail"])
        return answer["info"]

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _running(self, limits: Limits) -> subprocess.Popen:
        if self._owner != os.getpid():  # a forked worker must not share its parent's helper
            self._process = None
        if self._process is not None and (self._process.poll() is not None or self._memory != limits.memory):
            self._stop()
        if self._process is None:
            # Python finds its modules as this process does, and knows nothing else of the environment.
            search = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
            environment = {"PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
            environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            code = "import av; from pipelines.stages.probing import serve; serve()"
            self._process = processes.start(
                [sys.executable, "-P", "-c", code],
                limits,
                env=environment,
                cwd=tempfile.gettempdir(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner, self._memory = os.getpid(), limits.memory
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return None
        processes.kill(process)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return process.returncode


PROBER = Prober()
atexit.register(PROBER.close)


def check(info: VideoInfo) -> None:
    """Holds what a header promises against the limits. Raises TooLong or TooLarge."""
    limits = info.limits
    # As displayed: pixels that are not square can make a small picture huge.
    if info.width * info.height > limits.pixels:
        raise TooLarge(f"{info.width}x{info.height} is more than {limits.max_megapixels:g} megapixels")
    if info.longest > limits.max_hours * 3600:
        raise TooLong(f"{info.longest / 3600:.2f} h is more than {limits.max_hours:g} h")
    if info.longest * limits.min_bytes_per_second > info.size:
        raise TooLong(f"{info.longest:.0f} s in {info.size} bytes: a header that cannot be true")
