"""What made a record: for its column and for every column that it builds on, the backend and the hashes of its code,
configuration and weights.

A record carries it as JSON in ``made_by``: {column: {"backend", "code", "config", "weights"}}. Two records of a clip
with the same ``made_by`` hold the same bytes (but for the split of a token record, which follows from all sources), so
what a column's ``made_by`` says decides whether it is made again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from models.errors import InputError
from pipelines import storage
from pipelines.beam import fingerprint
from pipelines.code_hash import code_hash, package_version
from pipelines.stages import syncnet

# Where the code that makes clips starts, and the packages whose version decides what it makes.
CLIPS_CODE = (
    "pipelines.stages.curation.curate_source",
    "pipelines.stages.curation.Settings",
    "pipelines.stages.filters.FilterThresholds",
    "pipelines.stages.limits.Limits",
)
CLIPS_PACKAGES = ("dlib-bin", "imageio-ffmpeg", "onnxruntime", "scenedetect", "silero-vad")
LANDMARK_PACKAGES = {"dlib": (), "mediapipe": ("mediapipe",), "face_alignment": ("face-alignment", "torch")}


@dataclass(frozen=True)
class Producer:
    """What makes a column.

    Attributes:
        backend: its name.
        code: hash of the code that runs (pipelines/code_hash.py).
        config: hash of the settings that it reads.
        weights: where its learned numbers come from: names with a checksum or a package's version; may be empty.
    """

    backend: str
    code: str
    config: str
    weights: str = ""


def made_by(columns: Iterable[str], producer: Producer, upstream: Iterable[Mapping[str, dict]] = ()) -> dict:
    """Returns what made ``columns``: their producer and all that was behind the columns that they build on."""
    out: dict[str, dict] = {}
    for known in upstream:
        out.update(known)
    return {**out, **{column: asdict(producer) for column in columns}}


def to_text(made: Mapping[str, dict]) -> str:
    """The ``made_by`` of a record; the same content gives the same text."""
    return json.dumps(made, sort_keys=True, separators=(",", ":"))


def from_manifest(root: str, manifest: Mapping, column: str) -> dict:
    """What made a column, as its manifest entry says. InputError if the entry does not say it."""
    made = manifest["columns"][column]["producer"].get("made_by")
    fields = set(Producer.__dataclass_fields__)
    if not isinstance(made, dict) or not all(isinstance(item, dict) and set(item) == fields for item in made.values()):
        raise InputError(
            f"{root}/manifest.json: field columns.{column}.producer.made_by does not say what made the column: "
            "make it again"
        )
    return made


def clips_producer(landmarks: str, landmark_weights: str | None, syncnet_weights: str | None, *settings) -> Producer:
    """What makes clips: the landmark backend, the files of its and SyncNet's weights if given, the other settings.

    Raises:
        InputError: the weights of SyncNet do not fit.
    """
    packages = (*CLIPS_PACKAGES, *LANDMARK_PACKAGES[landmarks])
    weights = [f"{name} {package_version(name)}" for name in ("face_recognition_models", "silero-vad")]
    if landmark_weights:
        weights.append(f"landmarks {storage.sha256_file(landmark_weights)}")
    if syncnet_weights:
        packages += ("torch",)
        weights.append(f"syncnet {syncnet.check_weights(syncnet_weights)}")
    return Producer(landmarks, code_hash(CLIPS_CODE, packages), fingerprint(*settings), ", ".join(weights))
