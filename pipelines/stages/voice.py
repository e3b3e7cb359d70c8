"""Speech from espeak-ng with the times of its words and phonemes, by the library's C interface.

espeak-ng carries state from one utterance to the next, so each utterance is spoken by a fresh process (this module run
as a program): the same text and voice then give the same samples. Voices whose breath noise starts from uninitialised
memory (f2, f3, f5, Alicia, Andrea) are not offered, since nothing makes them repeat.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING

# The speaking process needs no numpy, and starts in a third of the time without it.
if TYPE_CHECKING:
    import numpy as np

# Variants of espeak-ng that give the same samples in every fresh process.
FEMALE_VARIANTS = ("f1", "f4", "Annie", "linda", "belinda", "steph")
MALE_VARIANTS = ("m1", "m2", "m3", "m4", "m6", "m7", "michael", "adam", "david")
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland")

_SYNCHRONOUS = 2  # audio goes to the callback, espeak_Synth returns when it is done
_PHONEME_EVENTS, _PHONEME_IPA, _NO_EXIT = 0x0001, 0x0002, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_WORD, _PHONEME = 1, 7
_UTF8 = 1


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker: espeak-ng accent and variant, words a minute, pitch and pitch range (0-100)."""

    accent: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int


@dataclasses.dataclass(frozen=True)
class Speech:
    """An utterance.

    Attributes: audio int16 (N,) at ``rate``; words: list of {word, start, end}; phonemes: list of {phoneme, start, end,
    stress}; IPA symbols, "" for a pause; seconds from the first sample; stress 1 where the syllable carries it.
    """

    audio: np.ndarray
    rate: int
    words: list
    phonemes: list


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


def speak(text: str, voice: Voice) -> Speech:
    """Speaks ``text`` in a fresh process; the same arguments give the same samples.

    Raises:
      RuntimeError: espeak-ng failed (its message is included).
    """
    import subprocess

    import espeakng_loader

    files = {"library": espeakng_loader.get_library_path(), "data": espeakng_loader.get_data_path()}
    request = json.dumps({"text": text, **files, **dataclasses.asdict(voice)})
    # Told where the library is, the process needs no packages: without them it starts in half the time.
    command = [sys.executable, "-S", "-E", "-P", os.path.abspath(__file__)]
    done = subprocess.run(command, input=request.encode(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"espeak-ng could not speak {text!r} as {voice}: {done.stderr.decode(errors='replace')[-500:]}"
        )
    import numpy as np

    header, samples = done.stdout.split(b"\n", 1)
    header = json.loads(header)
    return _speech(text, np.frombuffer(samples, np.int16), header["rate"], header["events"])


def _speech(text, audio, rate, events):
    duration = len(audio) / rate
    words = [(e["sample"] / rate, e["position"] - 1, e["length"]) for e in events if e["type"] == _WORD]
    phonemes = [(e["sample"] / rate, e["string"]) for e in events if e["type"] == _PHONEME]
    out = []
    for k, (start, symbol) in enumerate(phonemes):
        end = phonemes[k + 1][0] if k + 1 < len(phonemes) else duration
        if end > start:
            stress = int("ˈ" in symbol)
            out.append(
                {"phoneme": symbol.strip("ˈˌ"), "start": round(start, 4), "end": round(end, 4), "stress": stress}
            )
    pauses = [p["start"] for p in out if not p["phoneme"]]
    spoken = []
    for k, (start, position, length) in enumerate(words):
        end = words[k + 1][0] if k + 1 < len(words) else duration
        end = min([end] + [p for p in pauses if start < p < end])
        spoken.append({"word": text[position : position + length], "start": round(start, 4), "end": round(end, 4)})
    return Speech(audio, rate, spoken, out)


def _synthesize(text: str, voice: Voice, library: str, data: str):
    """Returns int16 audio as bytes, its rate and the raw events; to be called once in a process.

    Args:
      text, voice: what is said, and by whom.
      library, data: paths of espeak-ng's shared library and of its data.
    """
    library = ctypes.CDLL(library)
    chunks, events = [], []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def on_audio(samples, count, event):
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        k = 0
        while event[k].type:
            e = event[k]
            if e.type in (_WORD, _PHONEME):
                string = e.id.string.decode(errors="replace") if e.type == _PHONEME else ""
                events.append(
                    {
                        "type": e.type,
                        "sample": e.sample,
                        "position": e.text_position,
                        "length": e.length,
                        "string": string,
                    }
                )
            k += 1
        return 0

    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _PHONEME_EVENTS | _PHONEME_IPA | _NO_EXIT)
    if rate <= 0:
        raise RuntimeError(f"espeak_Initialize failed with {rate}")
    library.espeak_SetSynthCallback(on_audio)
    name = f"{voice.accent}+{voice.variant}"
    if library.espeak_SetVoiceByName(name.encode()):
        raise RuntimeError(f"espeak-ng has no voice {name}")
    for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)
    said = text.encode()
    if library.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None) or not chunks:
        raise RuntimeError("espeak_Synth gave no audio")
    library.espeak_Synchronize()
    return b"".join(chunks), rate, events


def main() -> None:
    """Reads a request of ``speak`` from stdin; writes a line of JSON {rate, events} and the int16 samples to stdout."""
    request = json.load(sys.stdin)
    text, library, data = (request.pop(name) for name in ("text", "library", "data"))
    audio, rate, events = _synthesize(text, Voice(**request), library, data)
    sys.stdout.buffer.write(json.dumps({"rate": rate, "events": events}).encode() + b"\n" + audio)


if __name__ == "__main__":
    main()
