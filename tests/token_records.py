"""Made-up token records in which targets depend on conditions, for tests of the language side.

One hidden identity decides shape, image and description; one hidden phrase per clip decides speech, script and
expression; semantics follow shape and expression; pose follows semantics.
"""

import json

import numpy as np

from models.signals import latent_steps, speech_steps
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
EOS = 2
BYTES = 3  # the first id of a byte
SMALL = PAPER_CODEBOOKS | {"text": (BYTES + 256,), "image": (512,)}


class ByteText:
    """A lossless text tokenizer: bytes, after <pad>, <unk> and the end token."""

    codebook_sizes = (BYTES + 256,)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + BYTES

    def decode(self, ids: np.ndarray) -> str:
        ids = np.asarray(ids)
        return bytes((ids[ids >= BYTES] - BYTES).astype(np.uint8)).decode(errors="replace")


def vocabulary(codebooks=SMALL) -> Vocabulary:
    return Vocabulary.of_codebooks(codebooks, EOS)


def record(index: int, frames: int = 61, image_codes: int = 512) -> dict:
    rng = np.random.default_rng(index)
    steps, sounds = latent_steps(frames), speech_steps(frames)
    person = int(rng.integers(4))
    phrase = rng.integers(len(WORDS), size=steps)
    word_of_sound = phrase[np.minimum(np.arange(sounds) * steps // sounds, steps - 1)]
    speech = np.stack([(word_of_sound * 16 + level * 7 + person) % 1024 for level in range(4)])
    expression = np.stack([(phrase * 32 + level * 5) % 2048 for level in range(8)])
    grid = np.arange(64).reshape(8, 8)
    semantics = (grid[None] * 4 + person * 256 + (phrase % 4)[:, None, None]) % 1024
    pose = np.stack([(semantics[:, 0, 0] + level) % 512 for level in range(6)])
    return {
        "clip_id": f"clip{index:04d}",
        "error": "",
        "num_frames": frames,
        "speech": speech.astype(np.int16),
        "image": ((np.arange(256).reshape(16, 16) + person * 97) % image_codes).astype(np.int32),
        "semantics": semantics.astype(np.int16),
        "shape": ((np.arange(8) * 11 + person * 100) % 512).astype(np.int16),
        "expression": expression.astype(np.int16),
        "pose": pose.astype(np.int16),
        "description": json.dumps({"person": f"number {person}", "hair": ["dark", "fair", "red", "grey"][person]}),
        "script": " ".join(WORDS[w] for w in phrase[::4]),
        "tokenizers": "{}",
        "split": "heldout" if index % 6 == 0 else "train",
    }
