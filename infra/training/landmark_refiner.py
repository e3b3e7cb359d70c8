"""Trains the embedded landmark refiner (models/landmark_refiner.py) on curated clips of a rendered corpus.

archon synthesize --clips 40 --seed 21 --output C21 --imperfections blur,noise,compression,hand,microphone \\
    --imperfection-share 0.2
archon curate --input 'C21/*.mp4' --output D21
python -m infra.training.landmark_refiner --data D21 --output models/embedded/landmark_refiner

A clip's truth lies beside its source; its landmarks are those of the detector that curated it.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.landmark_refiner import EMBEDDED, Refiner, RefinerConfig, luma, save_refiner, train


def read_samples(roots: Sequence[str], every: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Returns luma (N, 256, 256), detected and true landmarks (N, 68, 2), and the sources, of every N-th frame.

    Raises:
        InputError: a dataset without clips, or a clip whose source has no truth beside it.
    """
    from pipelines.dataset import Dataset
    from pipelines.measure.fits import cut_truth
    from pipelines.stages.frames import clip_frames

    light, detected, truth, sources = [], [], [], []
    for root in roots:
        for clip in Dataset(root).column("clips"):
            path = Path(clip["source"].removesuffix(".mp4") + ".truth.npz")
            if not path.is_file():
                raise InputError(f"{root}: clip {clip['clip_id']} has no {path}; expected clips of `archon synthesize`")
            with np.load(path) as arrays:
                true = cut_truth(dict(arrays), clip)["landmarks"] - np.float32(0.5)
            light.append(luma(clip_frames(clip)[::every]))
            detected.append(clip["landmarks"][::every])
            truth.append(true[::every])
            sources.append(clip["source"])
    if not light:
        raise InputError(f"{', '.join(roots)}: no clips to train on")
    return np.concatenate(light), np.concatenate(detected), np.concatenate(truth), sources


def percent(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean distance as a share of each picture's face size, in percent."""
    extent = truth.max(1) - truth.min(1)
    size = np.sqrt(extent[:, 0] * extent[:, 1])
    return float(100 * (np.linalg.norm(landmarks - truth, axis=-1) / size[:, None]).mean())


def run(roots: Sequence[str], output: str, every: int = 8, seed: int = 0) -> Refiner:
    """Trains and saves a refiner; prints what it does to the pictures that it was trained on."""
    start = time.monotonic()
    light, detected, truth, sources = read_samples(roots, every)
    refiner = train(light, detected, truth, RefinerConfig(), seed)
    frames = np.repeat(light[..., None], 3, -1).astype(np.uint8)
    before, after = percent(detected, truth), percent(refiner.refine(frames, detected), truth)
    print(
        f"landmark refiner: {len(light)} frames of {len(set(sources))} rendered people, "
        f"{before:.2f} % of face size before, {after:.2f} % after, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    extra = {"frames": len(light), "clips": len(sources), "people": len(set(sources)), "every": every, "seed": seed}
    save_refiner(output, refiner, extra)
    return refiner


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="datasets that `archon curate` made of corpora")
    parser.add_argument("--output", default=str(EMBEDDED), help="directory (default: the embedded one)")
    parser.add_argument("--every", type=int, default=8, help="take every N-th frame (default 8)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    run(args.data, args.output, args.every, args.seed)


if __name__ == "__main__":
    main()
