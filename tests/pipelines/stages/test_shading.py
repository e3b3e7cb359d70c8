import numpy as np
import pytest

from pipelines.stages import shading

F32 = np.float32


def square(x0, y0, x1, y1, z):
    """Two triangles that face the camera; points in samples and depth."""
    points = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], F32)
    return points, np.array([[0, 3, 2], [0, 2, 1]], np.int32)


def drawn(points, faces, size, two_sided=None):
    ids, depth = np.full((size, size), -1, np.int32), np.full((size, size), shading.FAR, F32)
    sided = np.zeros(len(faces), np.uint8) if two_sided is None else two_sided
    shading.draw_ids(points, faces, sided, 0, len(faces), ids, depth)
    return ids, depth


def test_samples_inside_a_square_are_drawn_and_no_others():
    points, faces = square(3, 5, 11, 13, 2.0)
    _, depth = drawn(points, faces, 16)
    inside = np.zeros((16, 16), bool)
    inside[5:13, 3:11] = True
    np.testing.assert_array_equal(depth < 10, inside)
    np.testing.assert_allclose(depth[inside], 2.0, atol=1e-4)


def test_the_nearest_triangle_wins_and_backs_are_left_out():
    (near, faces), (far, _) = square(0, 0, 8, 8, 1.0), square(0, 0, 16, 16, 3.0)
    points, both = np.concatenate([far, near]), np.concatenate([faces, faces + 4])
    ids, depth = drawn(points, both, 16)
    assert (ids[:8, :8] >= 2).all() and (ids[8:] < 2).all() and depth[2, 2] == 1
    turned = faces[:, ::-1].copy()
    assert (drawn(near, turned, 16)[1] == shading.FAR).all()
    assert (drawn(near, turned, 16, np.ones(2, np.uint8))[1][:8, :8] == 1).all()


def test_a_random_mesh_has_no_cracks():
    """Every sample of a wrinkled sheet that covers the frame belongs to some triangle."""
    rng = np.random.default_rng(0)
    n = 24
    x, y = np.meshgrid(np.linspace(-4, 68, n), np.linspace(-4, 68, n))
    jitter = rng.uniform(-0.9, 0.9, (2, n, n))
    points = np.stack([x + jitter[0], y + jitter[1], 2 + 0.1 * rng.random((n, n))], -1).reshape(-1, 3).astype(F32)
    a = np.arange(n * n).reshape(n, n)
    a, b, c, d = a[:-1, :-1].ravel(), a[:-1, 1:].ravel(), a[1:, 1:].ravel(), a[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, d, c], -1), np.stack([a, c, b], -1)]).astype(np.int32)
    _, depth = drawn(points, faces, 64)
    assert (depth < 10).all()


def lit(normal, material, lights, ao=1.0, reached=1.0, sky=0.0):
    points = np.array([[0, 0, 1.0]], F32)
    front, back = np.zeros((1, 6), F32), np.zeros((1, 6), F32)
    shading.light_vertices(
        points,
        np.array([normal], F32),
        np.array([0, -1, 0], F32),
        np.array([material], np.uint8),
        np.full((1, 3), 0.5, F32),
        np.full(1, 0.2, F32),
        np.full(1, ao, F32),
        np.full(1, reached, F32),
        np.array(lights, F32),
        np.full(3, sky, F32),
        np.full(3, sky, F32),
        np.zeros(1, np.uint8),
        front,
        back,
    )
    return front[0]


FRONT = [[0, 0, -1.0, 1, 1, 1]]


def test_light_falls_off_with_the_angle_and_shadow_takes_it_away():
    facing, grazing = lit([0, 0, -1], shading.PLAIN, FRONT), lit([0.95, 0, -0.312], shading.PLAIN, FRONT)
    np.testing.assert_allclose(facing[:3], 0.5, atol=1e-5)
    assert (grazing[:3] < 0.25).all()
    assert (lit([0, 0, -1], shading.PLAIN, FRONT, reached=0.0) == 0).all()


def test_light_reaches_round_skin_red_first():
    dark = lit([0.98, 0, 0.2], shading.SKIN, FRONT)
    assert dark[0] > 2 * max(dark[1], 1e-3) and dark[1] == pytest.approx(dark[2])
    assert lit([0.98, 0, 0.2], shading.PLAIN, FRONT)[0] < dark[0]


def test_a_hollow_is_darker_under_the_sky():
    assert lit([0, 0, -1], shading.SKIN, FRONT, ao=0.3, sky=1.0)[0] < lit([0, 0, -1], shading.SKIN, FRONT, sky=1.0)[0]


def test_shadows_fall_behind_what_casts_them():
    (near, faces), (far, _) = square(20, 20, 40, 40, 1.0), square(0, 0, 63, 63, 2.0)
    seen = np.concatenate([near, far, np.array([[30, 30, 2], [10, 50, 2]], F32)])
    both = np.concatenate([faces, faces + 4]).astype(np.int32)
    depth = np.full((64, 64), shading.FAR, F32)
    shading.cast(seen, both, np.zeros(4, np.uint8), 0, 4, depth)
    share = np.empty(len(seen), F32)
    shading.lit_share(seen, depth, F32(0.01), 1, share)
    assert share[8] == 0 and share[9] == 1 and share[0] == 1


def resolved(texel, weight):
    points, faces = square(2, 2, 30, 30, 1.0)
    ids, depth = drawn(points, faces, 32)
    light = np.full((4, 6), 0.25, F32)
    light[:, 3:] = 0
    texels = np.full((1, 8, 8), texel, np.int32)
    color, label = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    shading.resolve(
        points,
        faces,
        np.zeros(2, np.uint8),
        light,
        light,
        np.full(4, weight, F32),
        np.full((2, 3, 2), 3.3, F32),
        np.zeros(2, np.uint8),
        texels,
        np.full(4, 5, np.uint8),
        ids,
        depth,
        np.full((16, 16, 3), 200, np.uint8),
        color,
        label,
    )
    return color, label


def test_pixels_are_the_root_of_light_and_edges_are_mixed():
    color, label = resolved(128 + (128 << 8) + (128 << 16), 1.0)
    np.testing.assert_allclose(color[5, 5], 127, atol=1)  # sqrt(0.25) * 255
    assert (color[0, 0] == 200).all()
    # The square ends at sample 2 to 30 of 32: the first and the last pixel lie outside.
    np.testing.assert_array_equal(label, np.pad(np.full((14, 14), 5), 1))
    shifted = resolved(128 + (128 << 8) + (128 << 16), 0.0)[0]
    np.testing.assert_array_equal(color, shifted)


def test_textures_scale_each_colour_by_their_weight():
    texel = 128 + (64 << 8) + (255 << 16)
    color, _ = resolved(texel, 1.0)
    np.testing.assert_allclose(color[5, 5] / 255, np.sqrt(0.25 * np.array([1, 0.5, 255 / 128])), atol=0.01)
    half, _ = resolved(texel, 0.5)
    np.testing.assert_allclose(half[5, 5, 1] / 255, np.sqrt(0.25 * 0.75), atol=0.01)


def test_normals_of_a_square_face_the_camera():
    points, faces = square(0, 0, 1, 1, 2.0)
    out = np.empty_like(points)
    shading.normals_of(points, faces, out)
    np.testing.assert_allclose(out, np.tile([0, 0, -1], (4, 1)), atol=1e-6)
