"""``archon measure corpus``: whether the embedded corpus is what the detectors and the parser need."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.labels import LABELS, NUM_LABELS

# Frames that count as frontal: yaw within this many degrees.
FRONTAL_YAW = 30.0
TARGETS = {"dlib_found_share": (">=", 0.98), "labels_present": (">=", NUM_LABELS)}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--corpus", type=Path, required=True, help="directory of `archon synthesize`")
    parser.add_argument("--every", type=int, default=5, help="look at every N-th frame (default 5)")


def read_corpus(directory: Path) -> Iterator[tuple[Path, dict, dict]]:
    """Yields (video path, truth, arrays) of every clip of a corpus, in order of names.

    Raises:
      InputError: the directory holds no clip.
    """
    paths = sorted(Path(directory).glob("*.truth.json"))
    if not paths:
        raise InputError(f"{directory}: no *.truth.json here; expected the output of `archon synthesize`")
    for path in paths:
        base = str(path).removesuffix(".truth.json")
        with np.load(f"{base}.truth.npz") as file:
            arrays = {key: file[key] for key in file.files}
        yield Path(f"{base}.mp4"), json.loads(path.read_text(encoding="utf-8")), arrays


def measure(args: argparse.Namespace) -> dict:
    """Returns the figures of a corpus."""
    counts = np.zeros(NUM_LABELS, np.int64)
    for _, _, arrays in read_corpus(args.corpus):
        counts += np.bincount(arrays["labels"].ravel(), minlength=NUM_LABELS)
    figures = {"labels_present": int((counts > 0).sum())}
    return figures | {f"share_{name}": float(counts[k] / counts.sum()) for k, name in enumerate(LABELS)}
