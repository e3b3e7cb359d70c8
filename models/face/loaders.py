"""Which loader reads which file."""

import functools
import os

from models.face.model import FaceModel


def load(path, landmarks, masks, allow_pickle_code) -> FaceModel:
    """Returns a face model; arguments and errors as ``models.face.model.load_face_model``."""
    if path is None:
        return _embedded()
    path = os.fspath(path)
    from models.face.archive import from_archive, read_archive

    return from_archive(path, read_archive(path))


@functools.lru_cache(maxsize=1)
def _embedded() -> FaceModel:
    from models.face.procedural import build_head

    return build_head()
