"""Pictures with (partial) labels for the segmenter's training, from any of its sources, kept in one shard a source.

Sources, given as KIND=PATH:

- ``truth``: a folder of ``archon synthesize``: rendered clips and their true labels, cut as ``archon curate`` cuts;
- ``celebamask``: a folder of CelebAMask-HQ;
- ``landmarks``: a dataset of ``archon curate``: real frames, labels drawn from landmarks, fit and colours;
- ``mesh``: such a dataset, labels drawn from MediaPipe's mesh by a ``.task`` file: ``mesh=DATASET:FILE.task``.

Making examples decodes video and fits heads, so they are made once; a shard belongs to its source's content.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from pipelines.dataset import Dataset, Record, ShardReader, heldout_sources, write_shard
from pipelines.stages.label_adapters import PartialLabels

# Raised when a kind's examples of the same files change.
VERSIONS = {"truth": 2, "celebamask": 2, "landmarks": 4, "mesh": 2}
# Sides of stored pictures, and how much more than curate's crop they show, so that training can turn and shrink them.
_STORED, _MARGIN = 352, 1.35


@dataclass(frozen=True)
class ExampleSource:
    """``kind`` and ``path`` as given; ``per_clip``: frames taken of each clip."""

    kind: str
    path: str
    per_clip: int = 12

    @classmethod
    def parse(cls, text: str, per_clip: int = 12) -> "ExampleSource":
        kind, equals, path = text.partition("=")
        if not equals or kind not in KINDS or not path:
            raise InputError(f"--source {text}: expected KIND=PATH with KIND one of {', '.join(KINDS)}")
        return cls(kind, path, per_clip)

    def identity(self) -> str:
        """Returns a hash of what the examples are made from."""
        digest = hashlib.sha256(f"{VERSIONS[self.kind]} {self.kind} {self.per_clip}\n".encode())
        for line in KINDS[self.kind][1](self):
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def example_record(
    picture: np.ndarray, labels: PartialLabels, landmarks: np.ndarray | None, box: tuple, group: str
) -> Record:
    """Packs an example.

    Args:
        picture: uint8 (H, W, 3), RGB. labels: of the same size.
        landmarks: float (68, 2) in its pixels, or None.
        box: x0, y0, side of the crop in it.
        group: pictures of one group are of one person, and on one side of the held-out split.
    """
    import cv2

    def encoded(suffix, image, *options):
        return cv2.imencode(suffix, image, list(options))[1].tobytes()

    points = np.full((68, 2), np.nan, np.float32) if landmarks is None else np.asarray(landmarks, np.float32)
    return {
        "picture": encoded(".jpg", picture[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 95),
        "codes": encoded(".png", labels.codes),
        "sets": np.asarray(labels.sets, np.uint32),
        "landmarks": points,
        "box": np.asarray(box, np.float32),
        "group": group_id(group),
    }


def group_id(group: str) -> str:
    """Returns what a group is called in an example: of a clip, its source_sha256 gives it."""
    return hashlib.sha256(group.encode()).hexdigest()


def read_example(record: Record) -> dict:
    """Unpacks an example: picture uint8 (H, W, 3), codes uint8 (H, W), sets, landmarks, box."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(record["picture"], np.uint8), cv2.IMREAD_COLOR)
    return {
        "picture": cv2.cvtColor(picture, cv2.COLOR_BGR2RGB),
        "codes": cv2.imdecode(np.frombuffer(record["codes"], np.uint8), cv2.IMREAD_GRAYSCALE),
        "sets": record["sets"],
        "landmarks": record["landmarks"],
        "box": record["box"],
    }


# --- Sources ---


def _truth_names(source: ExampleSource) -> list[str]:
    names = sorted(path.name.removesuffix(".truth.npz") for path in Path(source.path).glob("*.truth.npz"))
    if not names:
        raise InputError(f"--source truth={source.path}: no NAME.truth.npz in there; expected `archon synthesize`'s")
    return names


def _truth_files(source: ExampleSource) -> Iterator[str]:
    for name in _truth_names(source):
        for suffix in (".mp4", ".truth.npz"):
            path = Path(source.path) / f"{name}{suffix}"
            if not path.is_file():
                raise InputError(f"{path}: missing beside the clip's other files")
            yield f"{path.name} {path.stat().st_size}"


def _truth(source: ExampleSource) -> Iterator[Record]:
    from pipelines.stages.crop import clip_box
    from pipelines.stages.faces import STRIDE
    from pipelines.stages.label_adapters import truth_labels

    for name in _truth_names(source):
        base = Path(source.path) / name
        with np.load(f"{base}.truth.npz") as truth:
            # The truth has pixel edges at whole numbers, detectors and examples have pixel centres there.
            labels, landmarks = truth["labels"], truth["landmarks"] - 0.5
        # Clips of one person say so by the identity's seed.
        made = json.loads(Path(f"{base}.truth.json").read_text(encoding="utf-8"))["made_by"]
        group = f"truth {made['seed']} {made['index']}"
        wanted = spread(len(labels), source.per_clip)
        box = None
        for t, frame in zip(wanted, frames_at(f"{base}.mp4", wanted), strict=True):
            box = box or clip_box(landmarks[::STRIDE], frame.shape[1], frame.shape[0], STRIDE)
            picture, codes, points, inside = cut_example(frame, labels[t], landmarks[t], box)
            yield example_record(picture, truth_labels(codes), points, inside, group)


def truth_seeds(source: ExampleSource) -> set[int]:
    """Returns the seeds of the people in a ``truth`` source; others have none."""
    if source.kind != "truth":
        return set()
    paths = [Path(source.path) / f"{name}.truth.json" for name in _truth_names(source)]
    return {json.loads(path.read_text(encoding="utf-8"))["made_by"]["seed"] for path in paths}


def cut_example(frame: np.ndarray, labels: np.ndarray, landmarks: np.ndarray, box: tuple) -> tuple:
    """Cuts the surroundings of a crop box out of a frame.

    Args:
        frame: uint8 (H, W, 3). labels: uint8 of any size with the frame's shape. landmarks: (68, 2), frame pixels.
        box: x0, y0, side.

    Returns:
        picture, labels (both 352 x 352, black and background where the frame ends), landmarks, the box in it.
    """
    import cv2

    x0, y0, side = box
    wide = side * _MARGIN
    corner = np.array([x0, y0]) - (wide - side) / 2
    step = wide / _STORED

    def matrix(scale):
        # Pixel p of the cut shows the frame at corner + (p + 0.5) * step, scaled to the picture's own pixels.
        begin = (corner + 0.5 * step) * scale - 0.5
        return np.array([[step * scale, 0, begin[0]], [0, step * scale, begin[1]]])

    size = (_STORED, _STORED)
    if step > 1.3:
        frame = cv2.GaussianBlur(frame, (0, 0), 0.4 * step)
    picture = cv2.warpAffine(frame, matrix(1.0), size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    scale = labels.shape[1] / frame.shape[1]
    codes = cv2.warpAffine(labels, matrix(scale), size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    points = (landmarks + 0.5 - corner) / step - 0.5
    start = (np.array([x0, y0]) - corner) / step
    return picture, codes, points, (*start, side / step)


def _celebamask_files(source: ExampleSource) -> Iterator[str]:
    from pipelines.stages.label_adapters import celebamask_pictures

    return (str(number) for number in celebamask_pictures(source.path))


def _celebamask(source: ExampleSource) -> Iterator[Record]:
    from pipelines.stages.label_adapters import celebamask_pictures, read_celebamask

    for number in celebamask_pictures(source.path):
        picture, labels = read_celebamask(source.path, number)
        landmarks = _picture_landmarks(picture)
        size = picture.shape[0]
        box = (0, 0, size)
        if landmarks is not None:
            from pipelines.stages.crop import clip_box

            box = clip_box([landmarks], size, size)
        yield example_record(picture, labels, landmarks, box, f"celebamask {number}")


def _picture_landmarks(picture: np.ndarray) -> np.ndarray | None:
    """The landmarks of the one large face of a still, by dlib; None if it sees none or several."""
    from pipelines.stages.faces import detect_faces
    from pipelines.stages.landmarks import find_landmarks

    faces = detect_faces(picture)
    return find_landmarks([picture], faces[0].box[None])[0] if len(faces) == 1 else None


def _dataset_files(source: ExampleSource) -> Iterator[str]:
    root, _, weights = source.path.partition(":")
    for info in Dataset(root).shard_infos("clips"):
        yield f"{info.path} {info.sha256}"
    if source.kind == "mesh":
        if not weights or not Path(weights).is_file():
            raise InputError(f"--source mesh={source.path}: expected DATASET:FILE.task, no such file {weights!r}")
        yield str(Path(weights).stat().st_size)


def _landmarks(source: ExampleSource) -> Iterator[Record]:
    from models.face.model import load_face_model
    from pipelines.stages.face_fit import fit_clip
    from pipelines.stages.fitted_labels import fitted_labels
    from pipelines.stages.frames import clip_frames

    model = load_face_model()
    for clip in Dataset(source.path).column("clips"):
        if clip["error"]:
            continue
        frames, landmarks = clip_frames(clip), np.asarray(clip["landmarks"], np.float32)
        fit = fit_clip(landmarks, model)
        wanted = spread(len(frames), source.per_clip)
        for t, labels in zip(wanted, fitted_labels(frames, landmarks, fit, model, wanted), strict=True):
            yield example_record(frames[t], labels, landmarks[t], (0, 0, frames.shape[1]), clip["source_sha256"])


def _mesh(source: ExampleSource) -> Iterator[Record]:
    from pipelines.stages.frames import clip_frames
    from pipelines.stages.label_adapters import mesh_labels
    from pipelines.stages.mesh import find_mesh

    root, _, weights = source.path.partition(":")
    for clip in Dataset(root).column("clips"):
        if clip["error"]:
            continue
        frames, landmarks = clip_frames(clip), clip["landmarks"]
        wanted = spread(len(frames), source.per_clip)
        for t, mesh in zip(wanted, find_mesh(frames[wanted], weights), strict=True):
            if np.isfinite(mesh).all():
                labels = mesh_labels(mesh, frames.shape[1:3])
                box = (0, 0, frames.shape[1])
                yield example_record(frames[t], labels, landmarks[t], box, clip["source_sha256"])


# Kind -> (its examples, lines that change when they would).
KINDS: dict[str, tuple[Callable[[ExampleSource], Iterator[Record]], Callable[[ExampleSource], Iterator[str]]]] = {
    "truth": (_truth, _truth_files),
    "celebamask": (_celebamask, _celebamask_files),
    "landmarks": (_landmarks, _dataset_files),
    "mesh": (_mesh, _dataset_files),
}


def spread(frames: int, count: int) -> list[int]:
    """Returns at most ``count`` frame numbers spread evenly over a clip."""
    return sorted({int((k + 0.5) * frames / count) for k in range(count)})


def frames_at(path: str, wanted: list[int]) -> Iterator[np.ndarray]:
    """Decodes the wanted frames (ascending) of a video: uint8 (H, W, 3) each.

    Raises:
        InputError: the video ends before.
    """
    import av

    left = list(wanted)
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if left and number == left[0]:
                left.pop(0)
                yield frame.to_ndarray(format="rgb24")
            if not left:
                return
    raise InputError(f"{path}: ends before frame {left[0]}")


# --- The kept shards ---


def make_examples(source: ExampleSource, folder: str | Path) -> Path:
    """Makes a source's examples, unless its shard is in the folder already; returns the shard's path."""
    name = f"{source.kind}-{source.identity()[:16]}.array_record"
    path = Path(folder) / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"examples: making {name} from {source.path}", flush=True)
        info = write_shard(folder, name, KINDS[source.kind][0](source))
        print(f"examples: {info.count} in {path}", flush=True)
    return path


class Examples:
    """Random access to the examples of a shard's split ("train" or "heldout": a sixth of the groups)."""

    def __init__(self, path: str | Path, split: str):
        self._reader = ShardReader(str(path))
        groups = [self._reader[k]["group"] for k in range(len(self._reader))]
        held = heldout_sources(groups)
        self.rows = [k for k, group in enumerate(groups) if (group in held) == (split == "heldout")]
        self.groups = {groups[k] for k in self.rows}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return read_example(self._reader[self.rows[int(index)]])
