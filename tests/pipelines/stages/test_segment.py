"""Segmentation of a drawn person whose labels are known, and of the parts of a drawn face."""

import cv2
import numpy as np
import pytest

from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.labels import LABEL_INDEX
from pipelines.stages.face_fit import FaceFit, fit_clip
from pipelines.stages.face_parts import face_pixels, iris_centre, paint_parts
from pipelines.stages.head_regions import head_frames, log_prior
from pipelines.stages.mixtures import fit_mixture, nowhere
from pipelines.stages.segment import segment_clip

FRAMES = 9


@pytest.fixture(scope="module")
def model():
    return load_face_model()


@pytest.fixture(scope="module")
def person(model):
    """Frames, landmarks and truth of a head that turns a little in front of a striped wall: flat colours with noise."""
    rng = np.random.default_rng(0)
    shape = np.zeros(model.num_shape, np.float32)
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 1] = np.linspace(-0.15, 0.15, FRAMES)
    pose[:, 3] = np.linspace(-0.01, 0.01, FRAMES)
    pose[:, 4] = -0.02
    pose[:, 5] = 2.4
    landmarks = project(deform(model.landmark_model(), shape, expression), pose, default_camera()).astype(np.float32)
    heads = head_frames(landmarks, FaceFit(shape, expression, pose, default_camera(), 0.0, 0.0), model)
    frames, truth = [], []
    for head, points in zip(heads, landmarks, strict=True):
        labels = np.zeros((256, 256), np.uint8)
        right, up = head.coordinates(256, 1.0)
        labels[(np.hypot(right / 1.9, (up + 2.9) / 1.45) < 1) & (up < -1.3)] = LABEL_INDEX["clothes"]
        labels[(np.abs(right) < 0.42) & (up < -0.5) & (up > -1.55)] = LABEL_INDEX["neck"]
        cap = np.hypot(right / 0.86, (up - 0.15) / 1.15) < 1
        labels[cap & (up > -0.3)] = LABEL_INDEX["hair"]
        face = np.zeros((256, 256), np.uint8)
        cv2.fillConvexPoly(face, np.round(head.outline).astype(np.int32), 1)
        labels[face > 0] = LABEL_INDEX["face"]
        colours = np.zeros((256, 256, 3), np.float32)
        for name, colour in (
            ("background", (150, 165, 180)),
            ("face", (205, 155, 130)),
            ("neck", (190, 140, 118)),
            ("hair", (60, 42, 30)),
            ("clothes", (40, 70, 140)),
        ):
            colours[labels == LABEL_INDEX[name]] = colour
        stripes = (np.arange(256) // 20 % 2)[None, :, None] * (labels == 0)[..., None]
        colours += 25 * stripes + rng.normal(0, 5, colours.shape)
        lips = cv2.convexHull(np.round(points[48:60]).astype(np.int32))
        cv2.fillConvexPoly(colours, lips, (170, 70, 75))
        cv2.fillConvexPoly(labels, lips, LABEL_INDEX["lips"])
        frames.append(np.clip(colours, 0, 255).astype(np.uint8))
        truth.append(labels)
    return np.stack(frames), landmarks, np.stack(truth)


def overlap(labels: np.ndarray, truth: np.ndarray, *names: str) -> float:
    ids = [LABEL_INDEX[name] for name in names]
    ours, theirs = np.isin(labels, ids), np.isin(truth, ids)
    return (ours & theirs).sum() / (ours | theirs).sum()


def test_main_classes_of_a_drawn_person(person, model):
    frames, landmarks, truth = person
    labels = segment_clip(frames, landmarks, fit_clip(landmarks, model), model)
    assert labels.shape == truth.shape and labels.dtype == np.uint8
    assert overlap(labels, truth, "background") > 0.92
    assert overlap(labels, truth, "hair") > 0.75
    assert overlap(labels, truth, "clothes") > 0.85
    assert overlap(labels, truth, "neck") > 0.7
    face = ("face", "nose", "nostrils", "brows", "lashes", "iris", "pupil", "sclera")
    assert overlap(labels, truth, *face) > 0.85
    assert overlap(labels, truth, "lips") > 0.7
    # A still wall does not flicker.
    still = (truth == 0).all(0)
    assert (labels[1:, still] != labels[:-1, still]).mean() < 0.01


def test_the_same_clip_gives_the_same_labels_and_another_colour_of_hair_is_followed(person, model):
    frames, landmarks, truth = person
    fit = fit_clip(landmarks, model)
    assert np.array_equal(
        segment_clip(frames, landmarks, fit, model), segment_clip(frames.copy(), landmarks, fit, model)
    )
    red = frames.copy()
    red[truth == LABEL_INDEX["hair"]] = (190, 70, 20)
    assert overlap(segment_clip(red, landmarks, fit, model), truth, "hair") > 0.75


def test_a_bald_head_has_no_hair(person, model):
    frames, landmarks, truth = person
    bald = frames.copy()
    noise = np.random.default_rng(1).normal(0, 5, ((truth == LABEL_INDEX["hair"]).sum(), 3))
    bald[truth == LABEL_INDEX["hair"]] = np.clip((205, 155, 130) + noise, 0, 255)
    labels = segment_clip(bald, landmarks, fit_clip(landmarks, model), model)
    assert (labels == LABEL_INDEX["hair"]).mean() < 0.2 * (truth == LABEL_INDEX["hair"]).mean()


def test_priors_add_up_and_put_the_face_in_the_outline(person, model):
    _, landmarks, _ = person
    heads = head_frames(landmarks, fit_clip(landmarks, model), model)
    prior = np.exp(log_prior(heads[0], 128))
    assert prior.shape == (4, 128, 128) and abs(prior.sum(0).mean() - 1) < 0.03
    x, y = (landmarks[0, 30] / 2).astype(int)
    assert prior[1, y, x] > 0.8 and prior[0, 2, 2] > 0.8


@pytest.mark.parametrize("shift", [-4.0, 0.0, 4.0])
def test_iris_is_found_where_it_is(shift):
    frame = np.full((60, 80, 3), (205, 160, 140), np.uint8)
    angle = np.array([np.pi, 2 * np.pi / 3 + 0.25, np.pi / 3 - 0.25, 0, -np.pi / 3 + 0.25, -2 * np.pi / 3 - 0.25])
    eye = np.stack([40 + 16 * np.cos(angle), 30 - 7 * np.sin(angle)], 1).astype(np.float32)
    cv2.fillConvexPoly(frame, np.round(eye).astype(np.int32), (235, 232, 228))
    cv2.circle(frame, (round(40 + shift), 30), 6, (70, 45, 30), -1)
    centre, radius = iris_centre(face_pixels(frame), eye)
    assert np.abs(centre - (40.5 + shift, 30.5)).max() < 2.2 and 4 < radius < 9


def test_an_open_mouth_shows_teeth_and_tongue(person):
    frames, landmarks, _ = person
    frame, points = frames[4].copy(), landmarks[4].copy()
    left, right, middle = points[60], points[64], points[[62, 66]].mean(0)
    for k, name in enumerate((61, 62, 63)):
        points[name] = left + (right - left) * (k + 1) / 4 - (0, 8)
        points[67 - k] = left + (right - left) * (k + 1) / 4 + (0, 8)
    points[49:54, 1] -= 7
    points[55:60, 1] += 7
    cv2.fillConvexPoly(frame, cv2.convexHull(np.round(points[48:60]).astype(np.int32)), (170, 70, 75))
    cv2.fillConvexPoly(frame, cv2.convexHull(np.round(points[60:68]).astype(np.int32)), (35, 15, 15))
    x, y = np.round(middle).astype(int)
    frame[y - 7 : y - 2, x - 6 : x + 7] = (225, 220, 205)
    frame[y + 3 : y + 8, x - 6 : x + 7] = (175, 85, 90)
    labels = np.full((256, 256), LABEL_INDEX["face"], np.uint8)
    paint_parts(labels, frame, points, 165.0)
    assert labels[y - 5, x] == LABEL_INDEX["teeth"]
    assert labels[y + 5, x] == LABEL_INDEX["tongue"]
    assert labels[y, x] == LABEL_INDEX["other-in-mouth"]
    assert (labels == LABEL_INDEX["lips"]).sum() > 50


def test_mixtures_find_clusters_and_marginals():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(m, 2, (400, 3)) for m in (0, 40, 90)]).astype(np.float32)
    mixture = fit_mixture(points, np.ones(1200, np.float32), 3, 8, np.ones(3, np.float32), None)
    assert np.allclose(np.sort(mixture.means[:, 0]), (0, 40, 90), atol=1)
    assert np.allclose(np.exp(mixture.log_weights), 1 / 3, atol=0.02)
    # The density integrates to one: its mean over uniform points times the volume.
    box = rng.uniform(-15, 105, (400_000, 3)).astype(np.float32)
    assert abs(np.exp(mixture.log_density(box)).mean() * 120**3 - 1) < 0.15
    marginal = mixture.first_dimensions(1)
    line = np.linspace(-20, 110, 4000, dtype=np.float32)[:, None]
    assert abs(np.exp(marginal.log_density(line)).sum() * (130 / 4000) - 1) < 0.02
    assert (nowhere(3).log_density(points) < mixture.log_density(points) - 50).all()
