import numpy as np
import pytest

from models.face.model import load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.character import HAIR_STYLES, build_character, draw_attributes


@pytest.fixture(scope="module")
def people():
    return [build_character(load_face_model(), np.random.default_rng([5, k])) for k in range(8)]


def test_arrays_fit_together(people):
    for person in people:
        count = len(person.vertices)
        assert person.faces.min() >= 0 and person.faces.max() < count and len(person.two_sided) == len(person.faces)
        for array in (person.colors, person.gloss, person.labels, person.follow):
            assert len(array) == count and np.isfinite(array).all()
        assert 0 <= person.colors.min() and person.colors.max() <= 1 and np.isfinite(person.vertices).all()
        assert person.base == len(load_face_model().vertices)


def test_people_are_distinct_and_repeat(people):
    model = load_face_model()
    again = build_character(model, np.random.default_rng([5, 3]))
    assert (
        again.vertices.tobytes() == people[3].vertices.tobytes()
        and again.colors.tobytes() == people[3].colors.tobytes()
    )
    assert again.attributes == people[3].attributes
    shapes = np.array([p.shape for p in people])
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1) + 99 * np.eye(len(people))
    assert distance.min() > 3
    assert len({tuple(sorted((k, str(v)) for k, v in p.attributes.items())) for p in people}) == len(people)


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


def test_every_style_of_hair_is_drawn_and_covers_the_crown():
    styles = {draw_attributes(np.random.default_rng([6, k]))["hair_style"] for k in range(120)}
    assert styles == {s for group in HAIR_STYLES.values() for s in group}


def test_a_model_without_names_cannot_be_dressed():
    import dataclasses

    with pytest.raises(ValueError, match="no named identity"):
        build_character(dataclasses.replace(load_face_model(), shape_names=()), np.random.default_rng(0))
