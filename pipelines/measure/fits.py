"""``archon measure fits``: 3DMM fits against the truth of synthetic clips, and against the landmarks of real ones.

A corpus of ``archon synthesize`` goes through ``archon curate`` (real detector, real landmarks) and the fit of ``archon
annotate``; what comes out is compared with what was rendered. A dataset has no truth: its clips are fitted, and the fit
is held against the landmarks that it was made from.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.face.camera import project, rotation_matrix
from models.face.model import FaceModel, deform
from models.labels import LABEL_INDEX
from models.signals import CROP_SIZE
from pipelines.face_model import add_face_model_arguments, face_model_files
from pipelines.stages.face_fit import FaceFit, FitConfig, axis_angles, face_size, fit_clip

TARGETS = {
    "rotation_degrees": ("<=", 3.0),
    "landmark_percent": ("<=", 1.5),
    "mouth_correlation": (">=", 0.95),
    "identity_mm": ("<=", 2.5),
    "reprojection_percent": ("<=", 2.0),
    "reprojection_percent_worst": ("<=", 2.0),
    "jitter_of_landmarks": ("<=", 1.0),
    "jitter_of_landmarks_real": ("<=", 1.0),
    "jitter_of_landmarks_real_worst": ("<=", 1.0),
}
# The classes whose vertices are the head's own: what identity means.
_HEAD = ("face", "ears", "nose", "lips", "brows")
_UPPER_LIP, _LOWER_LIP = 62, 66


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--corpus", type=Path, help="directory of `archon synthesize`: measured against its truth")
    parser.add_argument("--dataset", type=Path, help="a dataset of `archon curate`: measured against its landmarks")
    parser.add_argument("--landmarks-only", action="store_true", help="leave the photometric round out")
    add_face_model_arguments(parser)


def measure(args: argparse.Namespace) -> dict:
    """Returns the figures; InputError if there is nothing to measure on."""
    if args.corpus is None and args.dataset is None:
        raise InputError(
            "archon measure fits: give --corpus (synthetic clips with truth), --dataset (real clips), or both"
        )
    if args.corpus is not None and args.face_model is not None:
        raise InputError("archon measure fits: --face-model: the truth of --corpus is in terms of the embedded head")
    figures = {}
    if args.corpus is not None:
        figures |= measure_corpus(args.corpus, pixels=not args.landmarks_only)
    if args.dataset is not None:
        figures |= measure_dataset(str(args.dataset), face_model_files(args).load(), pixels=not args.landmarks_only)
    return figures


def measure_corpus(corpus: Path, pixels: bool = True) -> dict:
    """Curates and fits a corpus; returns means over its clips, with the detector's landmarks and with the true ones."""
    from models.face.model import load_face_model
    from pipelines.curate import CurateConfig, curate
    from pipelines.measure.corpus import read_corpus
    from pipelines.stages.frames import clip_frames

    model = load_face_model()
    truths = {str(video): arrays for video, _, arrays in read_corpus(corpus)}
    rows, exact = [], []
    with tempfile.TemporaryDirectory() as scratch:
        curate(CurateConfig(inputs=tuple(truths), output=scratch))
        for clip in _clips(scratch):
            truth = cut_truth(truths[clip["source"]], clip)
            frames = clip_frames(clip) if pixels else None
            fit = fit_clip(clip["landmarks"], model, FitConfig(), frames)
            rows.append(against_truth(fit, truth, model) | against_landmarks(fit, clip["landmarks"], model))
            rows[-1]["detected_landmark_percent"] = _percent(clip["landmarks"] + 0.5, truth["landmarks"])
            fit = fit_clip(truth["landmarks"] - np.float32(0.5), model, FitConfig(refine=False), frames)
            exact.append(against_truth(fit, truth, model))
            print(f"fits: {clip['source']}: " + _line(rows[-1]), flush=True)
    if not rows:
        raise InputError(f"{corpus}: no clip passes curation")
    names = ("rotation_degrees", "landmark_percent", "mouth_correlation", "identity_mm")
    means, best = _means(rows), _means(exact)
    return {
        "synthetic_clips": len(rows),
        **{name: means[name] for name in names},
        **{name: value for name, value in means.items() if name not in names and not name.startswith("reprojection")},
        **{f"{name}_from_true_landmarks": best[name] for name in names},
    }


def measure_dataset(root: str, model: FaceModel, pixels: bool = True) -> dict:
    """Fits the clips of a dataset; returns reprojection error and jitter, means and worst."""
    from pipelines.stages.frames import clip_frames

    rows = []
    for clip in _clips(root):
        fit = fit_clip(clip["landmarks"], model, FitConfig(), clip_frames(clip) if pixels else None)
        rows.append(against_landmarks(fit, clip["landmarks"], model))
        print(f"fits: {clip['source']} {clip['clip_id']}: " + _line(rows[-1]), flush=True)
    if not rows:
        raise InputError(f"{root}: the dataset has no clips")
    means = _means(rows)
    return {
        "real_clips": len(rows),
        "reprojection_percent": means["reprojection_percent"],
        "reprojection_percent_worst": max(row["reprojection_percent"] for row in rows),
        "jitter_of_landmarks_real": means["jitter_of_landmarks"],
        "jitter_of_landmarks_real_worst": max(row["jitter_of_landmarks"] for row in rows),
    }


def cut_truth(arrays: dict, clip: dict) -> dict:
    """Returns a clip's share of its source's truth, as the crop's camera sees it.

    Landmarks move with the pixels. The crop's camera looks at the crop's middle, the source's at its own: rotations are
    turned by the angle between the two.
    """
    frames = slice(clip["start_frame"], clip["end_frame"])
    corner, side = clip["box"][:2], clip["box"][2]
    focal, cx, cy = arrays["camera"]
    x, y = (corner + side / 2 - (cx, cy)) / focal
    # The shortest turn that takes the crop's ray onto the optical axis.
    towards = rotation_matrix(np.array([np.arctan(y), -np.arctan(x), 0.0]))
    return {
        "shape": arrays["shape"],
        "expression": arrays["expression"][frames],
        "rotation": towards @ rotation_matrix(arrays["pose"][frames, :3].astype(np.float64)),
        "landmarks": ((arrays["landmarks"][frames] - corner) * (CROP_SIZE / side)).astype(np.float32),
    }


def against_truth(fit: FaceFit, truth: dict, model: FaceModel) -> dict:
    """Returns a clip's errors: rotation (degrees), landmarks (% of face size), mouth (correlation of the opening in the
    head's own axes), identity (mm, after alignment of place and scale), gaze (degrees).
    """
    turns = truth["rotation"] @ np.swapaxes(rotation_matrix(fit.pose[:, :3].astype(np.float64)), 1, 2)
    seen = project(deform(model.landmark_model(), fit.shape, fit.expression), fit.pose, fit.camera)
    rest = np.zeros(model.num_expression, np.float32)
    mine, true = (aligned(deform(model, shape, rest), model) for shape in (fit.shape, truth["shape"]))
    # The scale that the truth is seen at is not known to a fit: align it.
    mine = mine * ((mine * true).sum() / (mine * mine).sum())
    gaze = fit.expression[:, -2:] - truth["expression"][:, -2:]
    return {
        "rotation_degrees": float(np.degrees(np.linalg.norm(axis_angles(turns), axis=1)).mean()),
        "landmark_percent": _percent(seen, truth["landmarks"]),
        "mouth_correlation": correlation(
            mouth_opening(model, fit.shape, fit.expression),
            mouth_opening(model, truth["shape"], truth["expression"]),
        ),
        "identity_mm": float(1000 * np.linalg.norm(mine - true, axis=1).mean()),
        "gaze_degrees": float(np.degrees(np.linalg.norm(gaze, axis=1)).mean()),
    }


def against_landmarks(fit: FaceFit, landmarks: np.ndarray, model: FaceModel) -> dict:
    """Returns reprojection error (% of face size) and how the pose's jitter compares with the landmarks' own: second
    differences over time, in pixels, of a rigid face that moves with the pose, over those of the landmarks.
    """
    rest = np.zeros(model.num_expression, np.float32)
    rigid = project(deform(model.landmark_model(), fit.shape, rest)[None], fit.pose, fit.camera)
    mine, theirs = (np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean() for points in (rigid, landmarks))
    return {
        "reprojection_percent": 100 * fit.reprojection_error / fit.face_size,
        "jitter_of_landmarks": float(mine / max(theirs, 1e-6)),
    }


def mouth_opening(model: FaceModel, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Returns the distance between the inner lips' middles, metres: (T,)."""
    points = deform(model.landmark_model(), shape, expression)
    return np.linalg.norm(points[:, _UPPER_LIP] - points[:, _LOWER_LIP], axis=1)


def aligned(vertices: np.ndarray, model: FaceModel) -> np.ndarray:
    """Returns the head's own vertices about their centre."""
    own = vertices[np.isin(model.labels, [LABEL_INDEX[name] for name in _HEAD])]
    return own - own.mean(0)


def _clips(root: str) -> Iterator[dict]:
    from pipelines.dataset import Dataset

    for clip in Dataset(root).column("clips"):
        if not clip["error"]:
            yield clip


def _percent(points: np.ndarray, truth: np.ndarray) -> float:
    return float(100 * np.linalg.norm(points - truth, axis=-1).mean() / face_size(truth))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the correlation of two tracks; 0 if one does not move."""
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 0 else 0.0


def _means(rows: list[dict]) -> dict:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _line(row: dict) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in row.items())
