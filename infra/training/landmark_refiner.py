"""Trains the embedded landmark refiner (models/landmark_refiner.py) on a rendered corpus, whose landmarks are known.

archon synthesize --clips 240 --seed 100 --size 768 --output corpus
python -m infra.training.landmark_refiner --corpus corpus --output models/embedded/landmark_refiner

The segmenter's training reads the same corpus. Frames are cut as `archon curate` cuts them, and shown to its detector:
the refiner learns from what that detector finds.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.landmark_refiner import EMBEDDED, Refiner, RefinerConfig, luma, save_refiner, train

_FACE_SIDE = 480  # pixels of the picture's short side that faces are searched at


def read_samples(corpus: str, per_clip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Returns what a detector and the truth say of frames of a corpus.

    Args:
        corpus: directory of ``archon synthesize``. per_clip: frames taken of a clip, spread evenly.

    Returns:
        luma float32 (N, 256, 256); detected and true landmarks float32 (N, 68, 2), crop pixels (the centre of a first
        pixel is 0); the number of the clip of each.

    Raises:
        InputError: no clips there, or none with a face that the detector finds.
    """
    from pipelines.measure.corpus import read_corpus
    from pipelines.parsing_examples import frames_at, spread
    from pipelines.stages.crop import clip_box, cut_crop, to_crop
    from pipelines.stages.landmarks import find_landmarks

    light, detected, truth, clips = [], [], [], []
    for number, (path, _, arrays) in enumerate(read_corpus(Path(corpus))):
        wanted = spread(len(arrays["landmarks"]), per_clip)
        true = arrays["landmarks"][wanted] - np.float32(0.5)
        box = None
        for landmarks, frame in zip(true, frames_at(str(path), wanted), strict=True):
            box = box or clip_box(true, frame.shape[1], frame.shape[0], stride=len(arrays["landmarks"]) // len(wanted))
            face = _face_at(frame, landmarks)
            if face is None:
                continue
            found = find_landmarks([frame], face[None])[0]
            light.append(luma(cut_crop(frame, box)))
            detected.append(to_crop(found, box))
            truth.append(to_crop(landmarks, box))
            clips.append(number)
    if not light:
        raise InputError(f"{corpus}: no face found in any clip")
    return np.stack(light), np.stack(detected).astype(np.float32), np.stack(truth).astype(np.float32), clips


def plain_samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns luma, landmarks and true landmarks, as ``read_samples`` does, of ``count`` heads drawn without texture.

    No detector errs on them: their landmarks are right but for a pixel's noise. From them the refiner learns that a
    face without pores, beard and make-up is no reason to move anything.
    """
    from models.face.camera import default_camera, project
    from models.face.model import deform, load_face_model
    from models.face.render import render_preview

    model, rng = load_face_model(), np.random.default_rng(seed)
    lower, upper = model.expression_range.T
    light, truth = [], []
    for _ in range(count):
        shape = rng.normal(0, 0.7, model.num_shape).astype(np.float32)
        share = rng.random((1, model.num_expression)) * (rng.random((1, model.num_expression)) < 0.3)
        expression = np.where(rng.random(model.num_expression) < 0.5, lower, upper) * share * 0.6
        pose = np.array([[*rng.normal(0, (0.12, 0.25, 0.1)), *rng.normal(0, 0.02, 2), rng.uniform(1.3, 2.1)]])
        expression, pose = expression.astype(np.float32), pose.astype(np.float32)
        light.append(luma(render_preview(model, shape, expression, pose)[0]))
        seen = project(deform(model.landmark_model(), shape, expression), pose, default_camera())[0]
        truth.append(seen - 0.5)
    truth = np.stack(truth).astype(np.float32)
    return np.stack(light), truth + rng.normal(0, 0.7, truth.shape).astype(np.float32), truth


def _face_at(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray | None:
    """Returns the detector's box (4,) of the face that has these landmarks, or None."""
    import cv2

    from pipelines.stages.faces import detect_faces

    scale = _FACE_SIDE / min(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    middle = landmarks[17:].mean(0) * scale
    for face in detect_faces(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)):
        if (face.box[:2] < middle).all() and (middle < face.box[2:]).all():
            return face.box / scale
    return None


def percent(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean distance as a share of each picture's face size, in percent."""
    extent = truth.max(1) - truth.min(1)
    size = np.sqrt(extent[:, 0] * extent[:, 1])
    return float(100 * (np.linalg.norm(landmarks - truth, axis=-1) / size[:, None]).mean())


def run(corpus: str, output: str, per_clip: int = 10, heldout_clips: int = 12, seed: int = 0) -> Refiner:
    """Trains and saves a refiner; prints what it does to people that it was not trained on.

    Raises:
        InputError: as ``read_samples``, or no clip is left to train on.
    """
    start = time.monotonic()
    light, detected, truth, clips = read_samples(corpus, per_clip)
    # The last clips' people are held out.
    first_held = max(clips) + 1 - heldout_clips
    trained, held = np.array(clips) < first_held, np.array(clips) >= first_held
    if not trained.any():
        raise InputError(f"{corpus}: {max(clips) + 1} clips, {heldout_clips} of them held out, none to train on")
    read = time.monotonic() - start
    # First, because what is known is measured on the last ones.
    plain = plain_samples(-(-int(trained.sum()) // 10), seed)
    parts = zip(plain, (light[trained], detected[trained], truth[trained]), strict=True)
    refiner = train(*(np.concatenate(part) for part in parts), RefinerConfig(), seed)
    people = len(set(np.array(clips)[trained]))
    figures = {
        "frames": int(trained.sum()),
        "clips": people,
        "plain": len(plain[0]),
        "per_clip": per_clip,
        "seed": seed,
    }
    for name, part in (("trained", trained), ("heldout", held)):
        if part.any():
            frames = np.repeat(light[part][..., None], 3, -1).astype(np.uint8)
            refined = refiner.refine(frames, detected[part])
            figures[f"{name}_percent_before"] = round(percent(detected[part], truth[part]), 3)
            figures[f"{name}_percent_after"] = round(percent(refined, truth[part]), 3)
    print(
        f"landmark refiner: {json.dumps(figures)}; read in {read:.0f} s, all in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    save_refiner(output, refiner, figures)
    return refiner


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="directory of `archon synthesize`")
    parser.add_argument("--output", default=str(EMBEDDED), help="directory (default: the embedded one)")
    parser.add_argument("--per-clip", type=int, default=10, help="frames of a clip (default 10)")
    parser.add_argument("--heldout-clips", type=int, default=12, help="last clips that are only measured (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    run(args.corpus, args.output, args.per_clip, args.heldout_clips, args.seed)


if __name__ == "__main__":
    main()
