"""Which face model a command fits or draws: its files, and what identifies them."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import InputError
from models.loading import load_once
from pipelines import storage

if TYPE_CHECKING:
    from models.face.model import FaceModel


@dataclass(frozen=True)
class FaceModelFiles:
    """What models.face.model.load_face_model takes.

    Attributes:
        model: FLAME, BFM (.mat) or an .npz of our format; None is the embedded head.
        landmarks, masks: FLAME's companions; None looks beside the model.
        allow_pickle_code: whether a model's pickle may run code of its own.
    """

    model: str | None = None
    landmarks: str | None = None
    masks: str | None = None
    allow_pickle_code: bool = False

    def load(self) -> "FaceModel":
        return _loaded(self)

    def identity(self) -> str:
        """The checksums of the files, or the embedded model's name. InputError for a file that cannot be read."""
        if self.model is None:
            return self.load().name
        sums = []
        for option, path in (("", self.model), ("-landmarks", self.landmarks), ("-masks", self.masks)):
            try:
                sums += [storage.sha256_file(path)] if path else []
            except OSError as error:
                raise InputError(f"--face{option or '-model'} {path}: {error}") from error
        return " ".join(sums)

    def load_for(self, shape: dict) -> "FaceModel":
        """Returns the model that a ``shape`` record was fitted with. InputError if these files hold another."""
        model = self.load()
        if model.name != shape["face_model"] or len(shape["shape"]) != model.num_shape:
            raise InputError(
                f"clip {shape['clip_id']}: fitted with face model {shape['face_model']} of {len(shape['shape'])} shape "
                f"coefficients, this is {model.name} with {model.num_shape}: give the files it was fitted with "
                "(--face-model)"
            )
        return model


@load_once()
def _loaded(files: FaceModelFiles) -> "FaceModel":
    from models.face.model import load_face_model

    return load_face_model(files.model, files.landmarks, files.masks, files.allow_pickle_code)


def add_face_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--face-model", metavar="FILE", help="FLAME, BFM (.mat) or an .npz of our format (default: the embedded head)"
    )
    parser.add_argument(
        "--face-landmarks", metavar="FILE", help="FLAME's landmark embedding (default: one beside the model)"
    )
    parser.add_argument("--face-masks", metavar="FILE", help="FLAME_masks.pkl (default: one beside the model)")
    parser.add_argument(
        "--allow-pickle-code",
        action="store_true",
        help="let a face model's pickle run code of its own: only for files that you trust",
    )


def face_model_files(args: argparse.Namespace) -> FaceModelFiles:
    return FaceModelFiles(args.face_model, args.face_landmarks, args.face_masks, args.allow_pickle_code)
