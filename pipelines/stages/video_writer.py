"""Writing a rendered clip: frames and sound to an mp4 through ffmpeg, the same bytes for the same frames."""

import os
import wave
from pathlib import Path

import numpy as np

from models.signals import VIDEO_FPS

_BIT_EXACT = {"flags:v": "+bitexact", "flags:a": "+bitexact", "fflags": "+bitexact", "filter_threads": 1}
_AUDIO = {"acodec": "aac", "ar": 48000, "audio_bitrate": "96k"}


class VideoWriter:
    """An H.264 + AAC mp4 (a context manager): one thread and bit-exact flags, so that the same frames give the same
    bytes.

    Args:
      path: where to write; its name may end in anything.
      width, height: of the frames, even numbers of pixels.
      audio: int16 (N,), mono.
      rate: its rate.
      quality: x264's constant rate factor; larger is worse.
    """

    def __init__(self, path: Path, width: int, height: int, audio: np.ndarray, rate: int, quality: int = 18):
        self.path, self.width, self.height, self.audio, self.rate = path, width, height, audio, rate
        self.quality = quality
        self.wave = Path(f"{path}.wav")

    def __enter__(self):
        import ffmpeg
        import imageio_ffmpeg

        with wave.open(str(self.wave), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(self.audio.tobytes())
        size = f"{self.width}x{self.height}"
        video = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="yuv420p", s=size, framerate=VIDEO_FPS)
        self.process = (
            ffmpeg.output(
                video,
                ffmpeg.input(str(self.wave)),
                str(self.path),
                format="mp4",
                vcodec="libx264",
                preset="veryfast",
                crf=self.quality,
                pix_fmt="yuv420p",
                threads=1,
                map_metadata=-1,
                **_AUDIO,
                **_BIT_EXACT,
            )
            .global_args("-loglevel", "error", "-nostdin")
            .overwrite_output()
            .run_async(cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdin=True, pipe_stderr=True)
        )
        return self

    def write(self, image: np.ndarray) -> None:
        """Writes a frame (H, W, 3) uint8."""
        import cv2

        # Here and not in ffmpeg: its exact conversion of RGB costs as much as half of the encoding.
        planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
        try:
            self.process.stdin.write(planes.data)
        except BrokenPipeError:
            self._finish()

    def _finish(self):
        self.process.stdin.close()
        message = self.process.stderr.read().decode(errors="replace")
        self.process.stderr.close()
        if self.process.wait():
            raise RuntimeError(f"{self.path}: ffmpeg failed: {message.strip()[-800:]}")

    def __exit__(self, kind, error, trace):
        try:
            if error is not None:
                self.process.kill()
                self.process.stdin.close()
                self.process.stderr.close()
                self.process.wait()
            else:
                self._finish()
        finally:
            self.wave.unlink(missing_ok=True)


def compress(path: Path, width: int, height: int, quality: int, shrink: float) -> None:
    """Encodes a video of ``width`` x ``height`` again in place as a service that saves bandwidth would: shrunk to
    ``shrink`` of its size, at a low quality (x264's constant rate factor), and enlarged again.

    Raises:
      RuntimeError: ffmpeg failed; its message is included.
    """
    import ffmpeg
    import imageio_ffmpeg

    worse = Path(f"{path}.worse")
    source = ffmpeg.input(str(path), f="mp4")
    small = [max(2, round(side * shrink / 2) * 2) for side in (width, height)]
    video = source.video.filter("scale", *small, flags="bicubic+bitexact")
    video = video.filter("scale", width, height, flags="bicubic+bitexact")
    try:
        ffmpeg.output(
            video,
            source.audio,
            str(worse),
            format="mp4",
            vcodec="libx264",
            preset="veryfast",
            crf=quality,
            pix_fmt="yuv420p",
            threads=1,
            acodec="copy",
            map_metadata=-1,
            **_BIT_EXACT,
        ).global_args("-loglevel", "error", "-nostdin").overwrite_output().run(
            cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stderr=True
        )
    except ffmpeg.Error as error:
        worse.unlink(missing_ok=True)
        raise RuntimeError(f"{path}: ffmpeg failed: {error.stderr.decode(errors='replace').strip()[-800:]}") from error
    os.replace(worse, path)
