"""Made-up token records in which targets depend on conditions, for tests of the language side.

One hidden identity decides shape, image and description; one hidden phrase per clip decides speech, script and
expression; semantics follow shape and expression; pose follows semantics.
"""

import json

import numpy as np

from models.signals import latent_steps, speech_steps
from tasks.modalities import Vocabulary

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
EOS = 2
BYTES = 3  # the first id of a byte
SMALL = {
    "text": (BYTES + 256,),
    "image": (512,),
    "speech": (128,) * 4,
    "shape": (64,) * 8,
    "expression": (256,) * 8,
    "pose": (64,) * 6,
    "semantics": (128,),
}


class ByteText:
    """A lossless text tokenizer: bytes, after <pad>, <unk> and the end token."""

    codebook_sizes = (BYTES + 256,)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + BYTES

    def decode(self, ids: np.ndarray) -> str:
        ids = np.asarray(ids)
        return bytes((ids[ids >= BYTES] - BYTES).astype(np.uint8)).decode(errors="replace")

    def pieces(self) -> list[str]:
        return [""] * BYTES + [chr(byte) if byte < 128 else "" for byte in range(256)]


def vocabulary(codebooks=SMALL) -> Vocabulary:
    return Vocabulary.of_codebooks(codebooks, EOS)


def record(index: int, frames: int = 61, codebooks=SMALL) -> dict:
    rng = np.random.default_rng(index)
    steps, sounds = latent_steps(frames), speech_steps(frames)
    person = int(rng.integers(4))
    phrase = rng.integers(len(WORDS), size=steps)
    word_of_sound = phrase[np.minimum(np.arange(sounds) * steps // sounds, steps - 1)]
    speech = np.stack([word_of_sound * 16 + level * 7 + person for level in range(4)])
    expression = np.stack([phrase * 32 + level * 5 for level in range(8)])
    grid = np.arange(64).reshape(8, 8)
    semantics = grid[None] + person * 16 + (phrase % 4)[:, None, None]
    codes = {
        "speech": speech,
        "image": np.arange(256).reshape(16, 16) + person * 97,
        "semantics": semantics,
        "shape": np.arange(8) * 11 + person * 19,
        "expression": expression,
        "pose": np.stack([semantics[:, 0, 0] + level for level in range(6)]),
    }
    kept = {name: (value % codebooks[name][0]).astype(np.int32) for name, value in codes.items()}
    return {
        "clip_id": f"clip{index:04d}",
        "error": "",
        "num_frames": frames,
        **{name: value if name == "image" else value.astype(np.int16) for name, value in kept.items()},
        "description": json.dumps({"person": f"number {person}", "hair": ["dark", "fair", "red", "grey"][person]}),
        "script": " ".join(WORDS[w] for w in phrase[::4]),
        "tokenizers": "{}",
        "split": "heldout" if index % 6 == 0 else "train",
    }


def random_params(config, seed: int = 0) -> dict:
    """Parameters of a language model, drawn by NumPy: compiling the real initialisation takes a test seconds."""
    import functools

    import jax

    from models.language_model import init_params

    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    return jax.tree.map(lambda a: (rng.normal(size=a.shape) * a.shape[-1] ** -0.5).astype(np.float32), shapes)
