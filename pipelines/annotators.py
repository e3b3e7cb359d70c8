"""What makes each column of a dataset from a clip: the annotators of `archon annotate`, their backends and weights.

Heavy libraries are imported where they run.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from models.errors import InputError
from models.loading import load_once
from pipelines import caption_backends, script_backends, storage
from pipelines.beam import Hints, fingerprint
from pipelines.code_hash import OWN, code_hash, package_version
from pipelines.dataset import ANNOTATIONS
from pipelines.face_model import FaceModelFiles
from pipelines.keyed import Fields, Keyed, Outcome
from pipelines.provenance import Producer
from pipelines.records import Record
from pipelines.stages.face_fit import LANDMARKS_ONLY, PIXELS, FaceFit, FitConfig
from pipelines.stages.gemini import GeminiConfig, GeminiService
from pipelines.stages.hallucinations import GuardConfig
from pipelines.stages.segment import SegmentConfig
from pipelines.stages.segment_network import NetworkConfig
from pipelines.stages.speech import SpeechConfig
from pipelines.stages.whisper import WhisperConfig


@dataclass(frozen=True)
class AnnotateConfig:
    """``columns`` to make, ``backends`` as (column, name) pairs where not the default, and the settings of the stages.

    ``segmenter`` is the directory of a trained segmenter; None is the embedded one. ``whisper_weights`` is a folder of
    Whisper's weights, local or gs://. ``accelerator`` is a Beam resource
    hint for the backends that can use one. A new setting counts where a Backend names it.
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
    guard: GuardConfig = field(default_factory=GuardConfig)
    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    whisper_weights: str | None = None
    gemini: GeminiConfig = field(default_factory=GeminiConfig)
    gemini_service: GeminiService = field(default_factory=GeminiService)
    accelerator: str | None = None


@dataclass(frozen=True)
class Backend:
    """One way to make an annotator's columns. Its record says which one made it, and from what (``made_by``).

    Attributes:
        name: what ``--backend COLUMN=NAME`` calls it.
        function: (clip record, required records by column, settings, backend's name) -> fields by column.
        batch_function: instead of ``function``: (keyed clips, settings, backend's name) -> (key, fields by column or
            an exception) in any order; see pipelines/keyed.py.
        requires: the columns that it reads beside the clips.
        batch: how many clips a batch function is given at once. A kill costs as many.
        settings: the fields of AnnotateConfig that it reads and that decide what it makes.
        places: those that it reads and that do not decide: where weights lie (their content is in ``weights``), how
            fast to ask. A backend is given its settings and places and nothing else, so nothing that decides is
            missing from the configuration's hash; the code of their classes counts as its code.
        weights: settings -> where its learned numbers come from: names with a checksum or a package's version.
        packages: distributions whose version decides what it makes.
        hints: what a worker must have to run it. gpu: whether an accelerator makes it faster; it asks for the one that
            ``--accelerator`` names.
        concurrent: whether several threads of a process may run it at once; most libraries here hold state.
    """

    name: str
    function: Callable[[Record, dict[str, Record], Any, str], Fields] | None = None
    batch_function: Callable[[Sequence[Keyed], Any, str], Iterable[tuple[str, Outcome]]] | None = None
    requires: tuple[str, ...] = ()
    batch: int = 1
    settings: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    weights: Callable[[Any], str] | None = None
    packages: tuple[str, ...] = ()
    hints: Hints = Hints()
    gpu: bool = False
    concurrent: bool = False


@dataclass(frozen=True)
class Annotator:
    """One step of the job.

    Attributes:
        columns: what it makes, all at once.
        backends: what it can be made with, the default first.
    """

    columns: tuple[str, ...]
    backends: tuple[Backend, ...]

    @property
    def name(self) -> str:
        return self.columns[0]

    def backend(self, name: str) -> Backend:
        """InputError if there is none of this name."""
        found = next((item for item in self.backends if item.name == name), None)
        if found is None:
            names = ", ".join(item.name for item in self.backends)
            raise InputError(f"--backend {self.name}={name}: expected one of {names}")
        return found


# --- One clip through one annotator ---


def _frames(clip: Record) -> np.ndarray:
    from pipelines.stages.frames import clip_frames

    return clip_frames(clip)


def _fit(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> Fields:
    from pipelines.stages.face_fit import fit_clip

    model = config.face_model.load()
    frames = _frames(clip) if backend == PIXELS else None
    fit = fit_clip(clip["landmarks"], model, config.fit, frames)
    return {
        "shape": {"shape": fit.shape, "camera": fit.camera, "face_model": model.name},
        "expression": {"expression": fit.expression},
        "pose": {"pose": fit.pose, "reprojection_error": fit.reprojection_error},
    }


@load_once()
def _segmenter(directory: str | None):
    from models.segmenter import SegmenterModel

    if directory is None:
        return SegmenterModel()
    with storage.local_folder(directory) as folder:
        return SegmenterModel(folder)


def _semantics_by_network(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> Fields:
    from pipelines.stages.segment_network import segment_clip
    from pipelines.stages.steadiness import label_flicker

    frames = _frames(clip)
    labels = segment_clip(frames, clip["landmarks"], _segmenter(config.segmenter), config.network)
    return {"semantics": {"labels": labels, "backend": backend, "flicker": label_flicker(frames, labels)}}


def _semantics_by_geometry(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> Fields:
    from pipelines.stages.segment import segment_clip
    from pipelines.stages.steadiness import label_flicker

    frames = _frames(clip)
    fit = FaceFit(
        columns["shape"]["shape"],
        columns["expression"]["expression"],
        columns["pose"]["pose"],
        columns["shape"]["camera"],
        columns["pose"]["reprojection_error"],
        0.0,
    )
    labels = segment_clip(frames, clip["landmarks"], fit, config.face_model.load(), config.segment)
    return {"semantics": {"labels": labels, "backend": backend, "flicker": label_flicker(frames, labels)}}


def _speech(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> Fields:
    from pipelines.stages.speech import normalise

    speech = normalise(clip["audio"], config.speech, backend)
    return {"speech": {**asdict(speech), "backend": backend}}


def _description(clip: Record, columns: dict, config: AnnotateConfig, backend: str) -> Fields:
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
    return {"description": {"description": describe(seen), "backend": backend, "usage": ""}}


def _image(clip: Record, _: dict, config: AnnotateConfig, backend: str) -> Fields:
    from pipelines.stages.reference import reference_image

    image, frame = reference_image(_frames(clip))
    return {"image": {"image": image, "frame": frame}}


# --- Where their numbers come from ---


def _of_package(name: str) -> Callable[[Any], str]:
    """Weights that are inside a package: its version."""
    return lambda settings: f"{name} {package_version(name)}"


def _face_model_weights(settings: AnnotateConfig) -> str:
    return f"face model {settings.face_model.identity()}"


def _fit_weights(settings: AnnotateConfig) -> str:
    from models.landmark_refiner import load_refiner

    return f"{_face_model_weights(settings)}, landmark refiner {load_refiner().weights_sha256}"


def _segmenter_weights(settings: AnnotateConfig) -> str:
    from models.segmenter import segmenter_sha256

    if settings.segmenter is None:
        return f"segmenter {segmenter_sha256()}"
    with storage.local_folder(settings.segmenter) as folder:
        return f"segmenter {segmenter_sha256(folder)}"


# --- All annotators ---

# The fit holds a clip's pictures and their derivatives, the network a batch of pictures at several sizes.
_LARGE = Hints(min_ram="4GB")

# In the order in which they run.
ANNOTATORS = (
    Annotator(
        ("shape", "expression", "pose"),
        (
            Backend(
                PIXELS,
                _fit,
                settings=("fit",),
                places=("face_model",),
                weights=_fit_weights,
                packages=("jax",),
                hints=_LARGE,
            ),
            Backend(
                LANDMARKS_ONLY,
                _fit,
                settings=("fit",),
                places=("face_model",),
                weights=_face_model_weights,
                packages=("jax",),
                hints=_LARGE,
            ),
        ),
    ),
    Annotator(
        ("semantics",),
        (
            Backend(
                "network",
                _semantics_by_network,
                settings=("network",),
                places=("segmenter",),
                weights=_segmenter_weights,
                packages=("jax",),
                hints=_LARGE,
                gpu=True,
            ),
            Backend(
                "geometry",
                _semantics_by_geometry,
                requires=("shape", "expression", "pose"),
                settings=("segment",),
                places=("face_model",),
                weights=_face_model_weights,
                packages=("jax",),
            ),
        ),
    ),
    Annotator(("image",), (Backend("first-frame", _image),)),
    Annotator(
        ("speech",),
        (
            Backend(
                "silero",
                _speech,
                settings=("speech",),
                weights=_of_package("silero-vad"),
                packages=("silero-vad", "onnxruntime"),
            ),
            Backend("energy", _speech, settings=("speech",)),
        ),
    ),
    Annotator(
        ("script",),
        (
            Backend(
                "pocketsphinx",
                script_backends.by_pocketsphinx,
                requires=("speech",),
                settings=("guard",),
                weights=_of_package("pocketsphinx"),
                packages=("pocketsphinx",),
            ),
            Backend(
                "whisper",
                batch_function=script_backends.by_whisper,
                requires=("speech",),
                batch=16,
                settings=("guard", "whisper"),
                places=("whisper_weights",),
                weights=script_backends.whisper_weights,
                packages=("torch", "transformers"),
                hints=Hints(min_ram="8GB"),
                gpu=True,
            ),
            Backend(
                "subtitles",
                script_backends.by_subtitles,
                requires=("speech",),
                settings=("guard",),
                weights=_of_package("py3langid"),
                packages=("py3langid",),
            ),
            Backend(
                "auto",
                script_backends.by_subtitles_or_pocketsphinx,
                requires=("speech",),
                settings=("guard",),
                weights=lambda _: (
                    f"py3langid {package_version('py3langid')}, pocketsphinx {package_version('pocketsphinx')}"
                ),
                packages=("py3langid", "pocketsphinx"),
            ),
        ),
    ),
    Annotator(
        ("description",),
        (
            Backend(
                "pixels",
                _description,
                places=("face_model",),
                requires=("expression", "pose", "semantics", "speech", "script"),
                weights=_face_model_weights,
            ),
            Backend(
                "gemini",
                batch_function=caption_backends.by_gemini,
                batch=32,
                settings=("gemini",),
                places=("gemini_service", "dataset"),
                weights=caption_backends.gemini_weights,
                concurrent=True,
            ),
        ),
    ),
)


def by_name(name: str) -> Annotator:
    return next(item for item in ANNOTATORS if item.name == name)


# --- What a column depends on ---


def settings_of(backend: Backend, config: AnnotateConfig) -> SimpleNamespace:
    """The fields of the configuration that a backend has said it reads, and no others."""
    return SimpleNamespace(**{name: getattr(config, name) for name in (*backend.settings, *backend.places)})


def code_of(backend: Backend, config: AnnotateConfig) -> str:
    """The hash of a backend's code (pipelines/code_hash.py)."""
    return code_hash(roots_of(backend, config), backend.packages)


def roots_of(backend: Backend, config: AnnotateConfig) -> tuple[str, ...]:
    """The names where a backend's code starts: its function, and the classes of its settings with their methods."""
    function = backend.batch_function or backend.function
    roots = [f"{function.__module__}.{function.__qualname__}"]
    for name in (*backend.settings, *backend.places):
        kind = type(getattr(config, name))
        if kind.__module__.split(".")[0] in OWN:
            roots.append(f"{kind.__module__}.{kind.__qualname__}")
    return tuple(sorted(roots))


def producer_of(backend: Backend, config: AnnotateConfig) -> Producer:
    """What makes a column with these settings, beside the columns that it builds on."""
    counted = {name: getattr(config, name) for name in backend.settings}
    weights = backend.weights(settings_of(backend, config)) if backend.weights else ""
    return Producer(backend.name, code_of(backend, config), fingerprint(counted), weights)
