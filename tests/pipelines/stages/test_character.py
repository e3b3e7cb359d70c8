import dataclasses

import numpy as np
import pytest

from models.face.model import load_face_model
from models.labels import LABEL_INDEX
from pipelines.measure.corpus import people_figures
from pipelines.stages.character import HAIR_STYLES, build_character, draw_attributes, light_frame, sky_seen


@pytest.fixture(scope="module")
def people():
    return [build_character(load_face_model(), np.random.default_rng([5, k])) for k in range(6)]


def test_arrays_fit_together(people):
    for person in people:
        count, triangles = len(person.vertices), len(person.faces)
        assert person.faces.min() >= 0 and person.faces.max() < count
        for array in (person.colors, person.gloss, person.labels, person.follow, person.ao, person.weight):
            assert len(array) == count and np.isfinite(array).all()
        for array in (person.two_sided, person.groups, person.uv, person.texture):
            assert len(array) == triangles
        assert 0 <= person.colors.min() and person.colors.max() <= 1 and np.isfinite(person.vertices).all()
        assert person.base == len(load_face_model().vertices)


def test_the_same_stream_is_the_same_person(people):
    again = build_character(load_face_model(), np.random.default_rng([5, 3]))
    for name in ("vertices", "colors", "ao", "textures", "uv"):
        assert getattr(again, name).tobytes() == getattr(people[3], name).tobytes(), name
    assert again.attributes == people[3].attributes


def test_two_hundred_people_are_distinct():
    """By shape (faces differ by more than a millimetre on average), by attributes, and by the colours they give."""
    figures = people_figures(seed=0, count=200)
    assert figures["people_distinct"] == 200 and figures["attribute_sets"] == 200
    assert figures["nearest_faces_mm"] > 1.0 and figures["nearest_shapes"] > 2.0
    looks = [draw_attributes(np.random.default_rng([0, k, 0])) for k in range(200)]
    colours = {(a["skin"], a["hair_color"], a["eye_color"], a["clothes_color"]) for a in looks}
    assert len(colours) > 150


def test_labels_go_with_the_attributes(people):
    for person in people:
        have, a = set(person.labels.tolist()), person.attributes
        assert {LABEL_INDEX["hair"], LABEL_INDEX["clothes"]} <= have
        assert (LABEL_INDEX["glasses"] in have) == (a["glasses"] != "none")
        assert (LABEL_INDEX["beard"] in have) == (a["beard"] != "none")
        assert (LABEL_INDEX["headwear"] in have) == (a["headwear"] != "none")
        assert (LABEL_INDEX["accessory"] in have) == a["earrings"]


def test_head_parts_follow_the_head_and_clothes_do_not(people):
    for person in people:
        face = np.isin(person.labels, [LABEL_INDEX[n] for n in ("face", "lips", "iris", "brows", "nose")])
        assert (person.follow[face] == 1).all()
        low = (person.labels == LABEL_INDEX["clothes"]) & (person.vertices[:, 1] < -0.18)
        assert low.any() and (person.follow[low] == 0).all()


def test_every_style_of_hair_is_drawn():
    styles = {draw_attributes(np.random.default_rng([6, k]))["hair_style"] for k in range(120)}
    assert styles == {s for group in HAIR_STYLES.values() for s in group}


def test_an_open_face_sees_the_sky_and_a_hollow_does_not():
    """A large plate over a small one: the plate sees half the sphere it faces, what is beneath it almost nothing."""

    def plate(size, height):
        corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], np.float32) * size
        return corners + np.array([0, height, 0], np.float32)

    vertices = np.concatenate([plate(0.15, 0.0), plate(0.02, -0.03)]).astype(np.float32)
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]], np.int32)
    seen = sky_seen(vertices, faces, np.ones(4, np.uint8))
    assert (seen[:4] > 0.9).all() and (seen[4:] < 0.35).all()


def test_a_light_frame_looks_along_the_light():
    frame = light_frame(np.array([0.3, 0.9, 0.2]), np.array([1, 2, 3]))
    np.testing.assert_allclose(frame[:3] @ frame[:3].T, np.eye(3), atol=1e-6)
    assert frame[2] @ np.array([0.3, 0.9, 0.2]) < 0 and (frame[3] == [1, 2, 3]).all()


def test_a_model_without_names_cannot_be_dressed():
    with pytest.raises(ValueError, match="no named identity"):
        build_character(dataclasses.replace(load_face_model(), shape_names=()), np.random.default_rng(0))
