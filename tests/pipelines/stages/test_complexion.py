import numpy as np
import pytest

from models.face.model import load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages import complexion
from pipelines.stages.character import draw_attributes
from pipelines.stages.shading import CLOTH, EYE, HAIR, SKIN


def attributes(**changes):
    return draw_attributes(np.random.default_rng(4)) | {"beard": "none", "freckles": False, "makeup": False} | changes


def painted(**changes):
    return complexion.paint_face(load_face_model(), attributes(**changes), np.random.default_rng(1))


def test_skin_and_eyes_have_the_colours_they_are_named_for():
    model = load_face_model()
    pale, dark = painted(skin="pale")[0], painted(skin="dark brown")[0]
    face = model.labels == LABEL_INDEX["face"]
    assert pale[face].mean() > 1.7 * dark[face].mean()
    iris = model.labels == LABEL_INDEX["iris"]
    blue, brown = painted(eye_color="blue")[0][iris].mean(0), painted(eye_color="brown")[0][iris].mean(0)
    assert blue[2] > 1.3 * blue[0] and brown[0] > 1.3 * brown[2]


@pytest.mark.parametrize("kind", ["stubble", "full", "goatee", "moustache"])
def test_a_beard_grows_where_its_kind_does(kind):
    model = load_face_model()
    colors, gloss, labels, weight, _, _ = painted(beard=kind)
    beard = labels == LABEL_INDEX["beard"]
    x, y, _ = model.vertices.T * 1000
    assert beard.sum() > 20 and y[beard].max() < -25
    if kind == "goatee":
        assert np.abs(x[beard]).max() < 40
    if kind == "moustache":
        assert y[beard].min() > -76
    if kind == "full":
        assert y[beard].min() < -100 and np.abs(x[beard]).max() > 50
    assert (painted()[2] != LABEL_INDEX["beard"]).all()


def test_makeup_colours_lips():
    lips = load_face_model().labels == LABEL_INDEX["lips"]
    plain, made_up = painted(skin="fair")[0][lips].mean(0), painted(skin="fair", makeup=True)[0][lips].mean(0)
    assert made_up[0] / made_up[1] > plain[0] / plain[1]


def test_materials_go_with_labels():
    labels = np.array([LABEL_INDEX[n] for n in ("face", "hair", "clothes", "iris")], np.uint8)
    assert complexion.materials(labels).tolist() == [SKIN, HAIR, CLOTH, EYE]


def test_textures_are_about_neutral_and_differ_between_people():
    one, other = (complexion.textures(attributes(), np.random.default_rng(k)) for k in (1, 2))
    assert one.shape == (4, complexion.ROWS, complexion.COLUMNS) and one.dtype == np.int32
    green = one >> 8 & 255
    assert (np.abs(green[:3].mean((1, 2)) - 128) < 6).all() and (green[:3].std((1, 2)) > 2).all()
    assert (one != other).mean() > 0.5


def test_freckles_are_on_cheeks_and_nose():
    rng = [np.random.default_rng(3) for _ in range(2)]
    bare, spotted = (complexion._skin(attributes(freckles=f), r) for f, r in zip((False, True), rng, strict=True))
    darker = bare[..., 2] - spotted[..., 2] > 0.05
    rows, columns = np.nonzero(darker)
    angle = (columns + complexion.COLUMNS / 2) % complexion.COLUMNS - complexion.COLUMNS / 2
    assert len(rows) > 300 and np.percentile(np.abs(angle) / complexion.COLUMNS * 360, 95) < 70


def test_texture_coordinates_do_not_tear_at_the_back():
    """Triangles right behind the head keep their corners together though columns wrap there."""
    points = np.array([[5.0, 0, -90], [-5.0, 0, -90], [0, 8.0, -90]])
    uv = complexion.texture_coordinates(points, np.full(3, LABEL_INDEX["hair"], np.uint8), np.array([[0, 1, 2]]))
    assert np.ptp(uv[0, :, 0]) < 30 and np.ptp(uv[0, :, 1]) < 20
    higher = complexion.texture_coordinates(points + [0, 20, 0], np.full(3, LABEL_INDEX["hair"]), np.array([[0, 1, 2]]))
    assert (higher[..., 1] < uv[..., 1]).all()
