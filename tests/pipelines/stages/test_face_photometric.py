"""Colours are read between pixels, and light and albedo are told apart as well as they can be."""

import jax.numpy as jnp
import numpy as np

from pipelines.stages.face_photometric import estimate_appearance, harmonics, pyramid, sample


def test_the_pyramid_averages_and_keeps_flat_colours():
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    frames[1] = (51, 102, 204)
    (images, scale), (coarse, coarse_scale) = pyramid(frames, (1, 2))
    assert (scale, coarse_scale) == (2, 4) and images.shape == (2, 8, 8, 3) and coarse.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(images[1], np.broadcast_to([0.2, 0.4, 0.8], (8, 8, 3)), atol=1e-6)
    assert not images[0].any()


def test_samples_of_a_ramp_and_its_slope():
    y, x = np.mgrid[0:8, 0:8]
    images = jnp.asarray(np.stack([0.1 * (x + 0.5), 0.05 * (y + 0.5), 0 * x], -1)[None], jnp.float32)
    pixels = jnp.asarray([[[2.5, 3.5], [3.2, 4.7], [-2.0, 3.0]]])
    colours, slope, inside = sample(images, pixels)
    np.testing.assert_allclose(colours[0, :2, 0], [0.25, 0.32], atol=1e-5)
    np.testing.assert_allclose(colours[0, :2, 1], [0.175, 0.235], atol=1e-5)
    np.testing.assert_allclose(slope[0, 1], [[0.1, 0, 0], [0, 0.05, 0]], atol=1e-5)
    assert inside.tolist() == [[True, True, False]]


def test_light_and_albedo_explain_the_colours():
    rng = np.random.default_rng(0)
    frames, count = 5, 120
    normals = rng.normal(size=(frames, count, 3))
    normals[..., 2] = -np.abs(normals[..., 2])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    basis = harmonics(jnp.asarray(normals, jnp.float32))
    light = np.zeros((9, 3), np.float32)
    light[0], light[1], light[3] = (0.6, 0.5, 0.4), 0.15, -0.1
    labels = rng.integers(0, 2, count)
    albedo = np.where(labels[:, None] == 0, 1.0, np.array([0.7, 0.4, 0.4]))
    colours = jnp.asarray(albedo * (np.asarray(basis) @ light), jnp.float32)
    weight = np.ones((frames, count), np.float32)
    # A hand before the face: some points of one frame have another colour.
    colours = colours.at[0, :20].set(0.9)
    classes = np.eye(2, dtype=np.float32)[labels]
    skin = (labels == 0).astype(np.float32)
    found, guessed = estimate_appearance(colours, basis, weight, jnp.asarray(classes), skin, 0.0, 1e-3)
    assert np.abs(np.asarray(guessed) - albedo).mean() < 0.06
    explained = np.asarray(guessed) * (np.asarray(basis) @ np.asarray(found))
    assert np.abs(explained - colours)[1:].mean() < 0.03
