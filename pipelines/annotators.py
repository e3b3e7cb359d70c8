"""What makes each column of a dataset from a clip: the annotators of `archon annotate`, their backends and weights.

Heavy libraries are imported where they run.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from pipelines.dataset import ANNOTATIONS, Record
from pipelines.face_model import FaceModelFiles
from pipelines.stages.face_fit import LANDMARKS_ONLY, PIXELS, FaceFit, FitConfig
from pipelines.stages.segment import SegmentConfig
from pipelines.stages.segment_network import NetworkConfig
from pipelines.stages.speech import SpeechConfig


@dataclass(frozen=True)
class Annotator:
    """One step of the job.

    Attributes:
        columns: what it makes, all at once. requires: the columns that it reads beside the clips.
        backends: what it can be made with, the default first.
        function: (clip record, required records by column, AnnotateConfig, backend) -> fields by column.
        version: raise it when the same input gives another output.
    """

    columns: tuple[str, ...]
    requires: tuple[str, ...]
    backends: tuple[str, ...]
    function: Callable[[Record, dict[str, Record], "AnnotateConfig", str], dict[str, Record]]
    version: int = 1

    @property
    def name(self) -> str:
        return self.columns[0]


@dataclass(frozen=True)
class AnnotateConfig:
    """``columns`` to make, ``backends`` as (column, name) pairs where not the default, and the settings of the stages.

    ``segmenter`` is the directory of a trained segmenter; None is the embedded one.
    """

    dataset: str
    columns: tuple[str, ...] = ANNOTATIONS
    backends: tuple[tuple[str, str], ...] = ()
    face_model: FaceModelFiles = FaceModelFiles()
    fit: FitConfig = field(default_factory=FitConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    segmenter: str | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)


# --- One clip through one annotator ---


def _frames(clip: Record) -> np.ndarray:
    from pipelines.stages.frames import clip_frames

    return clip_frames(clip)


def _fit(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages.face_fit import fit_clip

    model = config.face_model.load()
    frames = _frames(clip) if backend == PIXELS else None
    fit = fit_clip(clip["landmarks"], model, config.fit, frames)
    return {
        "shape": {"shape": fit.shape, "camera": fit.camera, "face_model": model.name},
        "expression": {"expression": fit.expression},
        "pose": {"pose": fit.pose, "reprojection_error": fit.reprojection_error},
    }


@functools.lru_cache(maxsize=1)
def _segmenter(directory: str | None):
    from models.segmenter import SegmenterModel

    return SegmenterModel(directory)


def refiner_sha256() -> str:
    """What identifies the embedded landmark refiner."""
    from models.landmark_refiner import load_refiner

    return load_refiner().weights_sha256


def _semantics(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages import segment, segment_network
    from pipelines.stages.steadiness import label_flicker

    frames, landmarks = _frames(clip), clip["landmarks"]
    if backend == segment_network.BACKEND:
        labels = segment_network.segment_clip(frames, landmarks, _segmenter(config.segmenter), config.network)
        return {"semantics": {"labels": labels, "backend": backend, "flicker": label_flicker(frames, labels)}}
    fit = FaceFit(
        columns["shape"]["shape"],
        columns["expression"]["expression"],
        columns["pose"]["pose"],
        columns["shape"]["camera"],
        columns["pose"]["reprojection_error"],
        0.0,
    )
    labels = segment.segment_clip(frames, landmarks, fit, config.face_model.load(), config.segment)
    return {"semantics": {"labels": labels, "backend": backend, "flicker": label_flicker(frames, labels)}}


def _speech(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages.speech import normalise

    speech = normalise(clip["audio"], config.speech, backend)
    return {"speech": {**asdict(speech), "backend": backend}}


def _script(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages.transcribe import transcribe

    script = transcribe(columns["speech"]["audio"], columns["speech"]["activity"])
    return {
        "script": {
            "text": script.text,
            "words": json.dumps(script.words_as_dicts()),
            "language": script.model_language,
            "confidence": script.confidence,
            "backend": backend,
        }
    }


def _description(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages.describe import Clip, describe

    names = config.face_model.load().expression_names
    expression = columns["expression"]["expression"]
    seen = Clip(
        frames=_frames(clip),
        landmarks=clip["landmarks"],
        labels=columns["semantics"]["labels"],
        pose=columns["pose"]["pose"],
        smile=expression[:, names.index("smile")] if "smile" in names else None,
        activity=columns["speech"]["activity"],
        pitch_hz=columns["speech"]["pitch_hz"],
        words=json.loads(columns["script"]["words"]),
        script_confidence=columns["script"]["confidence"],
    )
    return {"description": {"description": describe(seen), "backend": backend}}


def _image(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> dict[str, Record]:
    from pipelines.stages.reference import reference_image

    image, frame = reference_image(_frames(clip))
    return {"image": {"image": image, "frame": frame}}


# In the order in which they run.
ANNOTATORS = (
    Annotator(("shape", "expression", "pose"), (), (PIXELS, LANDMARKS_ONLY), _fit, version=2),
    Annotator(("semantics",), ("shape", "expression", "pose"), ("network", "geometry"), _semantics, version=2),
    Annotator(("image",), (), ("first-frame",), _image),
    Annotator(("speech",), (), ("silero", "energy"), _speech),
    Annotator(("script",), ("speech",), ("pocketsphinx",), _script),
    Annotator(("description",), ("expression", "pose", "semantics", "speech", "script"), ("pixels",), _description),
)


# --- What a column depends on ---

USES_FACE_MODEL = {"shape", "semantics", "description"}


def weights(item: Annotator, config: AnnotateConfig, backend: str) -> str:
    """Where the numbers behind a column come from: a file's checksum or a package's version."""
    from importlib.metadata import version

    if item.name == "semantics" and backend == "network":
        from models.segmenter import segmenter_sha256

        return f"segmenter {segmenter_sha256(config.segmenter)}"
    if backend == PIXELS:
        return f"face model {config.face_model.identity()}, landmark refiner {refiner_sha256()}"
    if set(item.columns) & USES_FACE_MODEL:
        return f"face model {config.face_model.identity()}"
    packages = {"script": "pocketsphinx", "speech": "silero-vad"}
    return f"{packages[item.name]} {version(packages[item.name])}" if item.name in packages else ""


def settings(item: Annotator, config: AnnotateConfig, backend: str) -> tuple:
    """Everything beside its inputs that decides what an annotator makes."""
    own: dict[str, tuple] = {"speech": (config.speech,), "semantics": (config.segment,), "shape": (config.fit,)}
    used = own.get(item.name, ())
    if item.name == "semantics" and backend == "network":
        from models.segmenter import segmenter_sha256

        return config.network, segmenter_sha256(config.segmenter)
    if backend == PIXELS:
        used = (*used, refiner_sha256())
    if set(item.columns) & USES_FACE_MODEL:
        used = (*used, config.face_model, config.face_model.identity())
    return used
