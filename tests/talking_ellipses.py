"""A small dataset with pictures: faces of ellipses whose mouths open, as the video decoder's jobs read them."""

from pathlib import Path

import numpy as np

from models.labels import LABEL_INDEX
from pipelines.dataset import Dataset, update_manifest, write_shard
from pipelines.inspect import write_video
from tests.infra.training.synthetic import write_dataset

# Colours of a person's regions; the rest takes the background's.
PARTS = {
    "face": (220, 170, 140),
    "neck": (200, 150, 120),
    "hair": (70, 40, 30),
    "clothes": (60, 80, 150),
    "brows": (60, 40, 30),
    "sclera": (240, 240, 240),
    "iris": (60, 110, 60),
    "lips": (190, 70, 80),
    "nose": (205, 150, 125),
    "other-in-mouth": (60, 10, 20),
}


def paint(labels: np.ndarray, person: int) -> np.ndarray:
    """Colours a label video the way one person looks: uint8 (T, S, S) -> (T, S, S, 3)."""
    rng = np.random.default_rng(person)
    table = np.tile(rng.uniform(40, 200, 3), (256, 1))
    tint = rng.uniform(0.6, 1.1, (1, 3))
    for name, color in PARTS.items():
        table[LABEL_INDEX[name]] = np.clip(np.array(color) * tint, 0, 255)
    return table.astype(np.uint8)[labels]


def write_talking_dataset(root: Path, clips: int = 4, frames: int = 21) -> Path:
    """The synthetic dataset with videos and reference images of its label videos, and shapes that fit the head."""
    from models.face.model import load_face_model

    face = load_face_model()
    write_dataset(root, clips=clips, frames=frames, shards=1)
    dataset = Dataset(root)
    columns = {name: list(dataset.column(name)) for name in ("clips", "semantics", "image", "shape", "expression")}
    scratch = str(root / "scratch.mp4")
    for person in range(clips):
        video = paint(columns["semantics"][person]["labels"], person)
        write_video(scratch, video, columns["clips"][person]["audio"])
        columns["clips"][person]["video"] = Path(scratch).read_bytes()
        columns["image"][person] |= {"image": video[0], "frame": 0}
        rng = np.random.default_rng(person)
        columns["shape"][person]["shape"] = rng.normal(size=face.shape_basis.shape[-1]).astype(np.float32)
        opening = np.tile(columns["expression"][person]["expression"][:, :1], face.num_expression)
        columns["expression"][person]["expression"] = opening.astype(np.float32)
    Path(scratch).unlink()
    shards = {
        name: ([write_shard(root, f"{name}/{name}-00000-of-00001.array_record", rows)], {"backend": "painted"})
        for name, rows in columns.items()
    }
    update_manifest(root, shards)
    return root
