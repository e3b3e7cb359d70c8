import argparse

import numpy as np
import pytest

from models.errors import InputError
from models.face.model import load_face_model
from pipelines.face_model import FaceModelFiles, add_face_model_arguments, face_model_files
from tests.models.face.released import embedding, flame_2020


def test_a_missing_companion_is_named_by_its_option(tmp_path):
    model = tmp_path / "flame.pkl"
    model.write_bytes(b"x")
    files = FaceModelFiles(str(model), landmarks=str(tmp_path / "none.npz"))
    with pytest.raises(InputError, match="--face-landmarks .*none.npz"):
        files.identity()
    with pytest.raises(InputError, match="--face-model .*gone.pkl"):
        FaceModelFiles(str(tmp_path / "gone.pkl")).identity()
    assert FaceModelFiles(str(model), str(model)).identity() != FaceModelFiles(str(model)).identity()


def test_arguments_name_the_files(tmp_path):
    parser = argparse.ArgumentParser()
    add_face_model_arguments(parser)
    assert face_model_files(parser.parse_args([])) == FaceModelFiles()
    (tmp_path / "generic_model.pkl").write_bytes(flame_2020())
    np.savez(tmp_path / "flame_static_embedding_68.npz", **embedding())
    files = face_model_files(parser.parse_args(["--face-model", str(tmp_path / "generic_model.pkl")]))
    assert files.load().num_shape == 300 and len(files.identity()) == 64


def test_a_clip_of_another_model_is_refused():
    head = load_face_model()
    shape = {"clip_id": "c7", "face_model": head.name, "shape": np.zeros(head.num_shape)}
    assert FaceModelFiles().load_for(shape) is head
    with pytest.raises(InputError, match="c7: fitted with face model flame .*--face-model"):
        FaceModelFiles().load_for({**shape, "face_model": "flame"})
    with pytest.raises(InputError, match="c7: .*5 shape coefficients"):
        FaceModelFiles().load_for({**shape, "shape": np.zeros(5)})
