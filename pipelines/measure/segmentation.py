"""``archon measure segmentation``: the 21 classes against truth on rendered people that training never saw, and against
MediaPipe's face mesh on real clips; how steady and how fast the labels are; and the segmenter's model card.
"""

import argparse
import functools
import os
import time
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.labels import LABEL_INDEX, LABELS, NUM_LABELS
from models.signals import CROP_SIZE

TARGETS = {
    "miou": (">=", 0.75),
    "classes_present": (">=", 21),
    "mesh_face": (">=", 0.6),
    "mesh_lips": (">=", 0.6),
    "mesh_eyes": (">=", 0.6),
    "mesh_brows": (">=", 0.6),
}

# What the mesh's regions are in our classes.
MESH_CLASSES = {
    "face": (
        *("face", "nose", "nostrils", "brows", "lashes", "pupil", "iris", "sclera", "lips", "teeth", "tongue"),
        *("other-in-mouth", "beard", "glasses"),
    ),
    "lips": ("lips",),
    "eyes": ("sclera", "iris", "pupil"),
    "brows": ("brows",),
}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.epilog = """examples:
  archon synthesize --clips 20 --seed 900 --output heldout
  archon measure segmentation --corpus heldout
  archon measure segmentation --corpus heldout --dataset D --mesh face_landmarker.task --card CARD.md
  archon measure segmentation --dataset D --mesh face_landmarker.task --backend geometry"""
    parser.add_argument("--corpus", type=Path, help="`archon synthesize`'s output, of a seed that was not trained on")
    parser.add_argument("--dataset", help="a dataset of real clips (`archon curate`'s output)")
    parser.add_argument("--mesh", help="MediaPipe's face_landmarker.task: the judge on real clips")
    parser.add_argument("--backend", choices=("network", "geometry"), default="network")
    parser.add_argument("--segmenter", help="a trained segmenter's directory (default: the embedded one)")
    parser.add_argument("--frames", type=int, default=24, help="frames looked at in a row, of each clip (default 24)")
    parser.add_argument("--card", type=Path, help="write the model card here")


def measure(args: argparse.Namespace) -> dict:
    """Returns mIoU and IoU per class on ``--corpus``, IoU with the mesh on ``--dataset``, flicker and rate."""
    if args.corpus is None and args.dataset is None:
        raise InputError("measure segmentation: give --corpus, or --dataset with --mesh, or both")
    if args.dataset is not None and args.mesh is None:
        raise InputError("measure segmentation: --dataset needs --mesh FILE.task")
    segment, facts = _segmenter(args.backend, args.segmenter)
    clock = _Clock()
    figures: dict[str, float] = {}
    if args.corpus is not None:
        figures |= _on_corpus(args.corpus, args.frames, segment, clock, facts.get("truth_seeds", ()))
    if args.dataset is not None:
        figures |= _on_clips(args.dataset, args.mesh, args.frames, segment, clock, facts.get("real_groups", ()))
    figures["frames_per_second"] = clock.rate()
    figures["cores"] = len(os.sched_getaffinity(0))
    if args.card is not None:
        from models.io import write_file

        write_file(args.card, model_card(figures, facts, args.backend).encode())
        print(f"measure: {args.card}", flush=True)
    return figures


def _segmenter(backend: str, directory: str | None):
    """Returns (frames, landmarks) -> labels, and what is known of what does it."""
    if backend == "geometry":
        return _by_geometry, {"what": "geometry: landmarks, fit and the clip's own colours; no network"}
    from models.segmenter import SegmenterModel
    from pipelines.stages.segment_network import segment_clip

    model = SegmenterModel(directory)
    return functools.partial(segment_clip, model=model), model.facts()


def _by_geometry(frames, landmarks):
    from models.face.model import load_face_model
    from pipelines.stages.face_fit import fit_clip
    from pipelines.stages.segment import segment_clip

    model = load_face_model()
    return segment_clip(frames, landmarks, fit_clip(landmarks, model), model)


class _Clock:
    """Frames and seconds of all calls but the first, which compiles."""

    def __init__(self):
        self.frames, self.seconds, self.calls = 0, 0.0, 0

    def run(self, segment, frames, landmarks):
        begin = time.perf_counter()
        labels = segment(frames, landmarks)
        if self.calls:
            self.frames, self.seconds = self.frames + len(frames), self.seconds + time.perf_counter() - begin
        self.calls += 1
        return labels

    def rate(self) -> float:
        return self.frames / self.seconds if self.seconds else float("nan")


# --- Rendered clips ---


def confusion(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Counts pixels by true (row) and made (column) class: int64 (21, 21)."""
    index = truth.astype(np.int64).ravel() * NUM_LABELS + made.ravel()
    return np.bincount(index, minlength=NUM_LABELS**2).reshape(NUM_LABELS, NUM_LABELS)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Returns intersection over union per class, float (21,); NaN for a class that is not in the truth."""
    both = np.diagonal(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - both
    return np.where(counts.sum(1) > 0, both / np.maximum(union, 1), np.nan)


def _middle(total: int, count: int) -> list[int]:
    begin = max((total - count) // 2, 0)
    return list(range(begin, min(begin + count, total)))


def _on_corpus(corpus, count, segment, clock, trained_seeds) -> dict[str, float]:
    from pipelines.measure.corpus import read_corpus
    from pipelines.parsing_examples import frames_at
    from pipelines.stages.crop import clip_box, cut_crop, to_crop
    from pipelines.stages.steadiness import label_flicker

    counts = np.zeros((NUM_LABELS, NUM_LABELS), np.int64)
    flicker, clips, unseen = [], 0, 0
    for path, truth, arrays in read_corpus(corpus):
        if truth["made_by"]["seed"] in trained_seeds:
            raise InputError(f"{path}: seed {truth['made_by']['seed']} was trained on; render people of another --seed")
        wanted = _middle(len(arrays["labels"]), count)
        # The truth has pixel edges at whole numbers, detectors have pixel centres there.
        true_points = arrays["landmarks"] - 0.5
        box, crops, labels = None, [], []
        for t, frame in zip(wanted, frames_at(str(path), wanted), strict=True):
            box = box or clip_box(true_points, frame.shape[1], frame.shape[0])
            crops.append(cut_crop(frame, box))
            labels.append(crop_labels(arrays["labels"][t], frame.shape[1], box))
        crops, labels = np.stack(crops), np.stack(labels)
        landmarks, missed = _found_landmarks(crops, to_crop(true_points[wanted], box))
        made = clock.run(segment, crops, landmarks)
        counts += confusion(labels, made)
        flicker.append(label_flicker(crops, made))
        clips, unseen = clips + 1, unseen + missed
        print(f"measure: {path.name}: right {np.mean(made == labels):.3f}", flush=True)
    iou = class_iou(counts)
    return {
        "miou": float(np.nanmean(iou)),
        "classes_present": int(np.isfinite(iou).sum()),
        "right": float(np.diagonal(counts).sum() / counts.sum()),
        **{f"iou_{name}": float(value) for name, value in zip(LABELS, iou, strict=True)},
        "rendered_flicker": float(np.nanmean(flicker)),
        "rendered_clips": clips,
        "rendered_frames_no_detector_saw": unseen,
    }


def crop_labels(labels: np.ndarray, width: int, box: tuple) -> np.ndarray:
    """Cuts labels (of any size, for a frame ``width`` pixels wide) as ``cut_crop`` cuts the frame."""
    x0, y0, side = box
    scale = labels.shape[1] / width
    centres = (np.arange(CROP_SIZE) + 0.5) * side / CROP_SIZE
    rows, columns = (np.floor((c + centres) * scale).astype(int) for c in (y0, x0))
    inside = (rows >= 0) & (rows < labels.shape[0]), (columns >= 0) & (columns < labels.shape[1])
    cut = labels[np.clip(rows, 0, labels.shape[0] - 1)][:, np.clip(columns, 0, labels.shape[1] - 1)]
    return np.where(inside[0][:, None] & inside[1][None], cut, LABEL_INDEX["background"])


def _found_landmarks(crops: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int]:
    """Landmarks as a pipeline has them (dlib's), and in how many frames the detector saw no face: there the true ones
    stand in, so that every frame is scored."""
    from pipelines.stages.faces import detect_faces
    from pipelines.stages.landmarks import find_landmarks

    out, missed = np.array(truth, np.float32), 0
    for t, crop in enumerate(crops):
        faces = detect_faces(crop)
        if faces:
            out[t] = find_landmarks([crop], faces[0].box[None])[0]
        else:
            missed += 1
    return out, missed


# --- Real clips ---


def _on_clips(dataset, mesh_file, count, segment, clock, trained_groups) -> dict[str, float]:
    from pipelines.dataset import Dataset
    from pipelines.parsing_examples import group_id
    from pipelines.stages.frames import clip_frames
    from pipelines.stages.label_adapters import mesh_regions
    from pipelines.stages.landmarks import close_backends
    from pipelines.stages.mesh import find_mesh
    from pipelines.stages.steadiness import label_flicker

    column = Dataset(dataset).column("clips")
    unseen = []
    both = {part: np.zeros((len(column), 2)) for part in MESH_CLASSES}
    flicker, seen = [], 0
    for row in range(len(column)):
        clip = column[row]
        if clip["error"]:
            continue
        if group_id(clip["source_sha256"]) not in trained_groups:
            unseen.append(row)
        wanted = _middle(clip["num_frames"], count)
        frames, landmarks = clip_frames(clip)[wanted], np.asarray(clip["landmarks"][wanted], np.float32)
        made = clock.run(segment, frames, landmarks)
        flicker.append(label_flicker(frames, made))
        chosen = list(range(0, len(frames), 3))
        for t, mesh in zip(chosen, find_mesh(frames[chosen], mesh_file), strict=True):
            if not np.isfinite(mesh).all():
                continue
            seen += 1
            regions = mesh_regions(mesh, made.shape[1:])
            for part, names in MESH_CLASSES.items():
                ours = np.isin(made[t], [LABEL_INDEX[name] for name in names])
                both[part][row] += (ours & regions[part]).sum(), (ours | regions[part]).sum()
        scores = " ".join(f"{part} {_ratio(pairs[row]):.2f}" for part, pairs in both.items())
        print(f"measure: {clip['clip_id']}: {scores}{'' if row in unseen else ' (trained on)'}", flush=True)
    close_backends()
    return {
        **{f"mesh_{part}": _ratio(pairs[unseen].sum(0)) for part, pairs in both.items()},
        **{f"mesh_{part}_all": _ratio(pairs.sum(0)) for part, pairs in both.items()},
        **{f"mesh_{part}_worst_clip": _worst(pairs) for part, pairs in both.items()},
        "real_flicker": float(np.nanmean(flicker)) if flicker else float("nan"),
        "real_clips": len(flicker),
        "real_clips_unseen": len(unseen),
        "real_frames_with_mesh": seen,
    }


def _ratio(pair: np.ndarray) -> float:
    return float(pair[0] / pair[1]) if pair[1] else float("nan")


def _worst(pairs: np.ndarray) -> float:
    ratios = [_ratio(pair) for pair in pairs if pair[1]]
    return min(ratios) if ratios else float("nan")


# --- The model card ---


def model_card(figures: dict, facts: dict, backend: str) -> str:
    """Returns the model card of a segmenter as Markdown, its figures from one run of this measure."""

    def rows(names):
        lines = ["| figure | value | target |", "|---|---|---|"]
        for name in names:
            if name in figures:
                target = " ".join(map(str, TARGETS[name])) if name in TARGETS else ""
                lines.append(f"| {name} | {figures[name]:.4g} | {target} |")
        return "\n".join(lines)

    classes = sorted(
        ((figures[f"iou_{name}"], name) for name in LABELS if f"iou_{name}" in figures), key=lambda pair: -pair[0]
    )
    table = "\n".join(["| class | IoU |", "|---|---|", *(f"| {name} | {value:.3f} |" for value, name in classes)])
    sources = ", ".join(facts.get("sources", ())) or "none"
    return f"""# Model card: the 21-class face segmenter

What it is: {facts["what"]}. Backend `{backend}` of the semantics column.

- Training labels: {sources}. `truth` is the project's own rendered corpus, `landmarks` are partial labels drawn on real
  frames from landmarks, a fitted head and the clip's colours; no person labelled a pixel of either.
- Seeds of rendered people that were trained on: {", ".join(map(str, facts.get("truth_seeds", ()))) or "none"}; those
  measured below are of other seeds.
- Weights: sha256 `{facts.get("weights_sha256", "-")}`, {facts.get("parameters", 0):,} parameters, stored as float16.
- Input: a 256 x 256 crop of one head and its 68 landmarks; output: one of 21 classes a pixel.

## On rendered people it has not seen

{rows(("miou", "right", "classes_present", "rendered_flicker", "rendered_clips", "rendered_frames_no_detector_saw"))}

{table}

## On real clips, against MediaPipe's face mesh

The mesh is an independent judge, not truth: it draws a face through hair, hands and microphones. `mesh_face` and so on
are of the clips whose source was not trained on, `_all` of all, `_worst_clip` of the worst of all.

{rows([name for name in figures if name.startswith(("mesh_", "real_"))])}

## Speed

{figures["frames_per_second"]:.1f} frames/s on {figures["cores"]} core(s), network, windows and smoothing in time
together.

## What it is not

- Rendered hair, beards, glasses, headwear and jewellery are simple: on real ones these classes are the weakest, and
  no figure above says how weak, because nothing here labels them on real frames.
- What covers a face (hands, microphones) has no class and becomes background, clothes or accessory.
- A face turned far to the side, or several faces in the crop, were hardly trained on.
"""
