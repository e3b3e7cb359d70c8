"""``archon measure corpus``: whether the embedded corpus is what the detectors and the parser need.

- a real detector (dlib's frontal one, as in curation) on rendered frames whose head is turned at most 30 degrees
  sideways, and how far dlib's 68 landmarks are from the truth;
- the classes that occur in the masks, and their shares of all pixels;
- the people of a seed: how far apart the nearest two are in shape and in colour, and how many differ in attributes.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.labels import LABELS, NUM_LABELS

# Frames that count as frontal: yaw within this many degrees.
FRONTAL_YAW = 30.0
PEOPLE = 200
TARGETS = {
    "dlib_found_share": (">=", 0.98),
    "labels_present": (">=", NUM_LABELS),
    "people_distinct": (">=", PEOPLE),
}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--corpus", type=Path, help="directory of `archon synthesize`; without it, clips are rendered")
    parser.add_argument("--clips", type=int, default=24, help="without --corpus: how many to render (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="without --corpus: their seed (default 0)")
    parser.add_argument("--every", type=int, default=6, help="show the detector every N-th frame (default 6)")


def measure(args: argparse.Namespace) -> dict:
    """Returns the figures of a corpus, see the module's text.

    Raises:
      InputError: no clips at --corpus, or --every is not positive.
    """
    if args.every < 1:
        raise InputError(f"--every {args.every}: expected at least 1")
    with tempfile.TemporaryDirectory(prefix="archon-corpus-") as temporary:
        directory = args.corpus
        if directory is None:
            from pipelines.synthesize import SynthesizeConfig, synthesize

            directory = Path(temporary)
            synthesize(SynthesizeConfig(args.clips, temporary, args.seed, quiet=True))
        figures = detection_figures(directory, args.every) | label_figures(directory)
    return figures | people_figures(args.seed, PEOPLE)


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


def read_frames(path: Path, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (number, (H, W, 3) uint8 RGB) of every ``every``-th frame of a video."""
    import av

    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % every == 0:
                yield number, frame.to_ndarray(format="rgb24")


def detection_figures(directory: Path, every: int) -> dict:
    """Returns what dlib sees in frontal frames: the share found, frames looked at, clips where a frame was missed, the
    detector's scores, and its landmarks' distance from the truth in units of the outer eye corners' distance.
    """
    from pipelines.stages.describe import head_angles
    from pipelines.stages.faces import detect_faces
    from pipelines.stages.landmarks import find_landmarks

    found, scores, errors, missed = [], [], [], 0
    for path, _, arrays in read_corpus(directory):
        yaw = np.abs(head_angles(arrays["pose"])[0])
        before = len(found)
        for number, image in read_frames(path, every):
            if yaw[number] > FRONTAL_YAW:
                continue
            truth = arrays["landmarks"][number]
            middle = truth[17:].mean(0)
            # dlib's own threshold is 0; curation follows a face through weaker scores.
            faces = [f for f in detect_faces(image) if f.score >= 0]
            faces = [f for f in faces if (f.box[:2] < middle).all() and (f.box[2:] > middle).all()]
            found.append(bool(faces))
            if faces:
                scores.append(faces[0].score)
                points = find_landmarks([image], faces[0].box[None])[0] + 0.5
                visible = ~arrays["hidden"][number]
                eyes = np.linalg.norm(truth[36] - truth[45])
                errors.append(np.linalg.norm(points - truth, axis=1)[visible].mean() / eyes)
        missed += not all(found[before:])
    return {
        "dlib_found_share": float(np.mean(found)) if found else float("nan"),
        "frames_searched": len(found),
        "clips_with_a_miss": missed,
        "dlib_score_median": float(np.median(scores)) if scores else float("nan"),
        "dlib_landmark_error": float(np.mean(errors)) if errors else float("nan"),
    }


def label_figures(directory: Path) -> dict:
    """Returns how many of the 21 classes occur in the masks, and each one's share of all pixels."""
    counts = np.zeros(NUM_LABELS, np.int64)
    for _, _, arrays in read_corpus(directory):
        counts += np.bincount(arrays["labels"].ravel(), minlength=NUM_LABELS)
    figures = {"labels_present": int((counts > 0).sum())}
    return figures | {f"share_{name}": float(counts[k] / counts.sum()) for k, name in enumerate(LABELS)}


def people_figures(seed: int, count: int) -> dict:
    """Returns how distinct the first ``count`` people of a seed are: people_distinct counts those whom no earlier one
    resembles (attributes equal, or a face within 1 mm on average), and the nearest two in shape coefficients.
    """
    from models.face.model import load_face_model
    from pipelines.stages.character import draw_attributes, draw_shape

    model = load_face_model()
    landmarks = model.landmark_model()
    shapes, attributes = [], []
    for index in range(count):
        rng = np.random.default_rng([seed, index, 0])
        attributes.append(draw_attributes(rng))
        shapes.append(draw_shape(model, attributes[-1], rng))
    shapes = np.array(shapes)
    faces = (shapes @ landmarks.shape_basis.reshape(-1, model.num_shape).T).reshape(count, -1, 3) * 1000
    apart = np.linalg.norm(faces[:, None] - faces[None], axis=-1).mean(-1) + 1e9 * np.eye(count)
    same = np.array([[a == b for b in attributes] for a in attributes])
    earlier = np.tril(np.ones((count, count), bool), -1)
    distinct = ~((same | (apart < 1.0)) & earlier).any(1)
    coefficients = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1) + 1e9 * np.eye(count)
    return {
        "people_distinct": int(distinct.sum()),
        "nearest_faces_mm": float(apart.min()),
        "nearest_shapes": float(coefficients.min()),
        "attribute_sets": len({json.dumps(a, sort_keys=True) for a in attributes}),
    }
