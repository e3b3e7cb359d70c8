"""What a user gives to `archon generate`: files and texts of any modality, read into the project's signals."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.signals import AUDIO_RATE, CROP_SIZE
from pipelines.dataset import Dataset

KINDS = ("speech", "image", "video", "script", "description", "shape", "expression", "pose", "semantics")
_LARGEST_SIDE = 960  # pictures are shrunk to this before a face is looked for


@dataclass(frozen=True)
class Reference:
    """A reference picture and its segmentation: uint8 (256, 256, 3) and uint8 (256, 256)."""

    image: np.ndarray
    labels: np.ndarray


def parse_given(pairs: list[str]) -> tuple[tuple[str, str], ...]:
    """Splits ["speech=a.wav", ...]."""
    parsed = []
    for pair in pairs:
        kind, equals, value = pair.partition("=")
        if not equals or not value or kind not in KINDS:
            raise InputError(f"--given {pair}: expected KIND=FILE with one of {', '.join(KINDS)}")
        if kind in (name for name, _ in parsed):
            raise InputError(f"--given {pair}: {kind} is given twice")
        parsed.append((kind, value))
    return tuple(parsed)


def existing(kind: str, path: str) -> Path:
    """Returns the path of a file that is there, or raises InputError."""
    if not Path(path).is_file():
        raise InputError(f"--given {kind}={path}: no such file")
    return Path(path)


def read_speech(path: str) -> np.ndarray:
    """Reads the sound of any audio or video file: int16 (N,), 16 kHz mono.

    Raises:
        InputError: no file, or nothing to hear in it.
    """
    import ffmpeg
    import imageio_ffmpeg

    file = existing("speech", path)
    stream = ffmpeg.input(str(file.resolve()), protocol_whitelist="file")["a:0"]
    output = stream.output("pipe:", format="s16le", acodec="pcm_s16le", ac=1, ar=AUDIO_RATE, loglevel="error")
    try:
        data, _ = output.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["ffmpeg failed"]
        raise InputError(f"--given speech={path}: expected a file with sound ({lines[-1]})") from None
    audio = np.frombuffer(data[: len(data) // 2 * 2], np.int16)
    if len(audio) < AUDIO_RATE // 10:
        raise InputError(f"--given speech={path}: {len(audio) / AUDIO_RATE:.2f} s of sound, expected at least 0.1 s")
    return audio


def read_picture(path: str) -> np.ndarray:
    """Reads any picture file: uint8 (height, width, 3), upright."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = existing("image", path)
    try:
        with Image.open(file) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"--given image={path}: expected a picture ({error})") from None


def read_reference(path: str) -> Reference:
    """Reads a picture of a face, cuts it out the way clips are cut, and segments it.

    A picture of 256 x 256 pixels is taken as it is (a clip's own reference image); any other is cut around its largest
    face and scaled.

    Raises:
        InputError: no picture, or no face in it.
    """
    return reference_of(read_picture(path), path)


def reference_of(picture: np.ndarray, name: str) -> Reference:
    """As ``read_reference``, for pixels; ``name`` is what errors call them."""
    if picture.shape[:2] != (CROP_SIZE, CROP_SIZE):
        picture = _cut_face(picture, name)
    return Reference(picture, _segment(picture, _landmarks(picture, name)))


def _landmarks(picture: np.ndarray, name: str) -> np.ndarray:
    """Landmarks of the largest face, float32 (68, 2)."""
    from pipelines.stages.faces import detect_faces
    from pipelines.stages.landmarks import find_landmarks

    faces = detect_faces(picture)
    if not faces:
        raise InputError(
            f"--given image={name}: no face found in it ({picture.shape[1]} x {picture.shape[0]} pixels); "
            "expected a picture of one face, seen from the front"
        )
    face = max(faces, key=lambda face: face.size)
    return find_landmarks([picture], face.box[None])[0]


def _cut_face(picture: np.ndarray, name: str) -> np.ndarray:
    from PIL import Image

    from pipelines.stages.crop import clip_box

    scale = min(1.0, _LARGEST_SIDE / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    x, y, side = clip_box([_landmarks(small, name)], small.shape[1], small.shape[0])
    box = tuple(round(value / scale) for value in (x, y, x + side, y + side))
    square = Image.fromarray(picture).crop(box)  # what lies outside the picture is black
    return np.asarray(square.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.LANCZOS))


def _segment(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    from models.face.model import load_face_model
    from pipelines.stages.face_fit import FitConfig, fit_clip
    from pipelines.stages.segment import segment_clip

    model = load_face_model()
    fit = fit_clip(landmarks[None], model, FitConfig(bucket=1))
    return segment_clip(picture[None], landmarks[None], fit, model)[0]


def read_video(path: str) -> tuple[np.ndarray, Reference]:
    """Takes a video apart into what the language model reads of one: its semantic video and a reference image.

    Its first clip is found, cut and segmented as ``archon curate`` and ``archon annotate`` do by default.

    Returns:
        (uint8 labels (T, height, width) as the semantics column has them, the reference).

    Raises:
        InputError: no file, or no clip of one speaking person in it.
    """
    from models.segmenter import SegmenterModel
    from pipelines.stages.curation import Settings, curate_source
    from pipelines.stages.frames import clip_frames
    from pipelines.stages.reference import reference_image
    from pipelines.stages.segment_network import NetworkConfig, segment_clip

    clips: list[dict] = []

    def keep(clip: dict) -> None:
        if not clips:
            clips.append(clip)

    result = curate_source(str(existing("video", path)), Settings(), keep)
    if not clips:
        row = next(row for row in result.rejects if row["clip_id"] is None)
        raise InputError(
            f"--given video={path}: no clip of one speaking person in it: {row['stage']}, {row['reason']} "
            f"({row['detail']})"
        )
    frames = clip_frames(clips[0])
    labels = segment_clip(frames, clips[0]["landmarks"], SegmenterModel(), NetworkConfig())
    image, frame = reference_image(frames)
    return labels, Reference(image, labels[frame])


def read_text(kind: str, value: str) -> str:
    """A file's text, or the value itself if it names no file."""
    path = Path(value)
    looks_like_path = len(value) < 1024 and "\n" not in value and path.suffix in (".json", ".txt")
    if looks_like_path and not path.is_file():
        raise InputError(f"--given {kind}={value}: no such file")
    if not looks_like_path:
        text = value
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"--given {kind}={value}: expected UTF-8 text") from None
        if kind == "description" and path.suffix == ".json":
            text = _compact(text, value)
    if not text.strip():
        raise InputError(f"--given {kind}={value}: the text is empty")
    return text.strip()


def _compact(text: str, name: str) -> str:
    """A description as the dataset has it: JSON without the spaces of a pretty-printed file."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"--given description={name}: not JSON ({error})") from None
    if isinstance(value, dict) and set(value) == {"text", "note"}:
        return str(value["text"])  # what `archon generate` wrote for a text that was no JSON
    return json.dumps(value, ensure_ascii=False)


def read_array(kind: str, path: str) -> np.ndarray:
    """Reads a shape (.json), an expression, a pose or a semantic video (.npz) that `archon generate` wrote."""
    file = existing(kind, path)
    field = "labels" if kind == "semantics" else kind
    try:
        if kind == "shape":
            array = np.asarray(json.loads(file.read_text())[field], np.float32)
        else:
            with np.load(file, allow_pickle=False) as archive:
                array = np.asarray(archive[field])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"--given {kind}={path}: expected a file with {field!r} ({type(error).__name__})") from None
    return array if kind == "semantics" else array.astype(np.float32)


def read_clip(address: str) -> tuple[np.ndarray, Reference]:
    """Reads the speech and the reference image of a clip of a dataset.

    Args:
        address: DATASET:ID.

    Raises:
        InputError: no such clip, or one whose annotation failed.
    """
    root, _, clip_id = address.rpartition(":")
    if not root or not clip_id:
        raise InputError(f"--clip {address}: expected DATASET:ID")
    dataset = Dataset(root)
    columns = {name: dataset.column(name) for name in ("speech", "image", "semantics")}
    ids = [record["clip_id"] for record in columns["speech"]]
    if clip_id not in ids:
        raise InputError(f"--clip {address}: no such clip; the dataset has {', '.join(ids[:5])} ...")
    records = {name: column[ids.index(clip_id)] for name, column in columns.items()}
    for name, record in records.items():
        if record["error"]:
            raise InputError(f"--clip {address}: its {name} failed: {record['error']}")
    image = records["image"]
    labels = records["semantics"]["labels"][int(image["frame"])]
    return np.asarray(records["speech"]["audio"]), Reference(np.asarray(image["image"]), np.asarray(labels))
