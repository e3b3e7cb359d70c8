"""Damaged media files for tests: seeded changes to small real containers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.pipelines.media import ffmpeg

PICTURE = "testsrc2=size=64x64:rate=30:duration=0.4"
SOUND = "sine=frequency=330:sample_rate=16000:duration=0.4"
# Container -> encoder options.
KINDS = {
    "mp4": ("-c:v", "libx264", "-c:a", "aac", "-movflags", "+faststart"),
    "mov": ("-c:v", "mjpeg", "-q:v", "9", "-c:a", "pcm_s16le"),
    "mkv": ("-c:v", "libx265", "-x265-params", "log-level=none", "-c:a", "flac"),
    "webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"),
    "avi": ("-c:v", "mpeg4", "-c:a", "pcm_s16le"),
    "ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "flv": ("-c:v", "libx264", "-c:a", "aac"),
}
LARGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x00FFFFFF, 0xFFFF, 1, 0)


def small_files(folder: Path) -> list[Path]:
    """Makes one file of each container: 64x64, 0.4 s, with sound."""
    paths = []
    for kind, options in KINDS.items():
        path = folder / f"small.{kind}"
        ffmpeg("-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", SOUND, "-pix_fmt", "yuv420p", *options, path)
        paths.append(path)
    return paths


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages a file in one to three ways, most often near its header."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        out = bytearray(WAYS[rng.integers(len(WAYS))](out, rng))
    return bytes(out)


def mutated_files(originals: list[Path], folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Writes ``count`` damaged files, the containers in turn."""
    for index in range(count):
        original = originals[index % len(originals)]
        rng = np.random.default_rng([seed, index])
        path = folder / f"{index:04d}{original.suffix}"
        path.write_bytes(mutate(original.read_bytes(), rng))
        yield path


def _place(data, rng) -> int:
    """A position: half the time in the first 2 kB, where headers are."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 2048)
    return int(rng.integers(max(1, end)))


def _flip_bits(data, rng):
    for _ in range(int(rng.integers(1, 40))):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _truncate(data, rng):
    return data[: _place(data, rng)]


def _lose(data, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 400)) :]


def _double(data, rng):
    at = _place(data, rng)
    piece = data[at : at + int(rng.integers(1, 2000))]
    return data[:at] + piece * int(rng.integers(2, 5)) + data[at:]


def _noise(data, rng):
    at = _place(data, rng)
    noise = rng.integers(0, 256, int(rng.integers(1, 200)), np.uint8).tobytes()
    data[at : at + len(noise)] = noise
    return data


def _huge_number(data, rng):
    """A 32- or 64-bit field, of either byte order, becomes an extreme."""
    at, width = _place(data, rng), int(rng.choice([2, 4, 8]))
    value = LARGE[rng.integers(len(LARGE))] & ((1 << 8 * width) - 1)
    data[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.7 else "little")
    return data


def _box_size(data, rng):
    """The size in front of a box of an mp4 or mov file becomes zero, one, or huge; its name stays."""
    names = [n for n in (b"moov", b"trak", b"mdia", b"stbl", b"stsd", b"stts", b"stsz", b"stco", b"mdat") if n in data]
    if not names:
        return _huge_number(data, rng)
    at = data.index(names[rng.integers(len(names))])
    data[max(0, at - 4) : at] = int(rng.choice(LARGE)).to_bytes(4, "big")
    return data


def _declared(data, rng):
    """A declared duration, size or count is multiplied: fields after the names that containers give them."""
    marks = {
        b"mvhd": 16, b"mdhd": 16, b"tkhd": 76, b"avc1": 24, b"jpeg": 24, b"stts": 4, b"stsz": 8, b"elst": 8,
        b"\x44\x89\x88": 3, b"\xb0": 1, b"avih": 32, b"strh": 32, b"duration": 9, b"width": 6, b"onMetaData": 20,
    }  # fmt: skip
    found = [mark for mark in marks if mark in data]
    if not found:
        return _noise(data, rng)
    mark = found[rng.integers(len(found))]
    at = data.index(mark) + marks[mark]
    value = int(rng.choice([0x7FFFFFFF, 0x4EFFFFFF, 0x00100000, 0xFFFF0000, 30_000]))
    data[at : at + 4] = value.to_bytes(4, "big" if rng.random() < 0.7 else "little")
    return data


WAYS = (_flip_bits, _truncate, _lose, _double, _noise, _huge_number, _box_size, _declared)
