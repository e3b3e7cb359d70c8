"""What one source may be and may use, and the errors of a source that is more than that or is no video.

Sources are untrusted. Three things keep a hostile one from harming a run: no process of ours parses its bytes in
itself (pipelines/stages/probing.py and ffmpeg do, each a process of its own), every such process lives under the
kernel's limits on memory, processor time and file size (pipelines/stages/processes.py), and what the header promises
is held against the limits below before anything is decoded, and again while it is.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import InputError

GIBIBYTE = 1 << 30


class MediaError(Exception):
    """A file that cannot be used as a video. The class name is the reason that the rejects table shows."""


class UnreadableVideo(MediaError):
    """Not a media container, or damaged so that nothing can be decoded."""


class NoVideoStream(MediaError):
    """A media file without moving pictures."""


class TruncatedVideo(MediaError):
    """The file holds much less video than its header says."""


class ChangingPicture(MediaError):
    """The size or format of the picture changes in the middle."""


class DecodeError(MediaError):
    """ffmpeg ended with an error."""


class DecodeTimeout(MediaError):
    """A decoder did not finish within its time, or the source used up all of its time."""


class ProbeCrashed(MediaError):
    """The process that reads headers died over this file."""


class OutOfMemory(MediaError):
    """A decoder wanted more memory than it may have."""


class TooLong(MediaError):
    """More hours than the limit, or more than a file of this size can hold, or more than its header says."""


class TooLarge(MediaError):
    """More pixels a picture, or more bytes, than the limit."""


class TooManyStreams(MediaError):
    """More streams than the limit."""


@dataclass(frozen=True)
class Limits:
    """What one source may be and may use; beyond it is a MediaError of the type in brackets.

    Attributes:
        max_hours: length of picture or sound [TooLong].
        max_megapixels: of one picture [TooLarge]; 36 lets 8K through.
        max_gigabytes: of the file [TooLarge].
        max_streams: picture, sound, subtitles and data together [TooManyStreams].
        memory_gigabytes: address space of each process that reads the source [OutOfMemory].
        max_minutes: from the probe to the last clip [DecodeTimeout]; single passes have shorter deadlines.
        probe_seconds: to read the header and the first picture [DecodeTimeout].
        min_bytes_per_second: a file that claims to be longer than this allows lies [TooLong].
    """

    max_hours: float = 6.0
    max_megapixels: float = 36.0
    max_gigabytes: float = 100.0
    max_streams: int = 32
    memory_gigabytes: float = 4.0
    max_minutes: float = 360.0
    probe_seconds: float = 30.0
    min_bytes_per_second: float = 250.0

    @property
    def memory(self) -> int:
        """Bytes of address space."""
        return int(self.memory_gigabytes * GIBIBYTE)

    @property
    def pixels(self) -> int:
        return int(self.max_megapixels * 1e6)


def check_size(size: int, limits: Limits) -> None:
    """Raises TooLarge for a file of ``size`` bytes that is larger than the limit."""
    if size > limits.max_gigabytes * 1e9:
        raise TooLarge(f"{size / 1e9:.1f} GB is more than {limits.max_gigabytes:g} GB")


def limits_with(changes: Sequence[str]) -> Limits:
    """Builds limits from NAME=VALUE texts; InputError for an unknown name or a value that is no positive number."""
    types = {field.name: type(field.default) for field in dataclasses.fields(Limits)}
    values = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in types:
            raise InputError(f"--limit {change}: expected NAME=VALUE with NAME one of {', '.join(types)}")
        try:
            values[name] = types[name](value)
        except ValueError:
            raise InputError(f"--limit {change}: expected a number after =") from None
        if not 0 < values[name] < float("inf"):
            raise InputError(f"--limit {change}: expected a number above 0")
    return Limits(**values)
