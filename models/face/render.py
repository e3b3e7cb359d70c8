"""A small software renderer: z-buffer triangles with smooth shading, compiled with numba for one core.

Per-vertex light (wrapped diffuse, sky and ambient, a highlight) is interpolated over triangles; a pixel's label is that
of the nearest vertex of the nearest triangle. Anti-aliasing is by rendering twice as large and averaging. A run on one
machine gives the same pixels every time.
"""

import functools

import numpy as np

from models.face.camera import default_camera, default_pose, rotation_matrix
from models.face.model import FaceModel, deform, joint_rotations, joint_transforms, pose_features
from models.labels import LABEL_INDEX, NUM_LABELS

# Direction from the face to the light in camera axes (x right, y down, z forward): up, a little from the left, from the
# camera's side.
DEFAULT_LIGHT = np.array([-0.35, -0.55, -0.76], np.float32)
PREVIEW_BACKGROUND = 40
# How light the parts of a preview are: eyes, brows and the open mouth are to be seen.
_GREYS = np.full(NUM_LABELS, 0.72, np.float32)
_DARK = {"pupil": 0.05, "iris": 0.35, "brows": 0.4, "lashes": 0.2, "other-in-mouth": 0.2, "lips": 0.6, "nostrils": 0.3}
_GREYS[[LABEL_INDEX[name] for name in _DARK]] = list(_DARK.values())


def _compiled(function):
    """Compiles a function with numba (cached on disk) when it is first called: importing numba takes half a second."""

    @functools.cache
    def kernel():
        from numba import njit

        return njit(cache=True)(function)

    @functools.wraps(function)
    def call(*args):
        return kernel()(*args)

    return call


@_compiled
def vertex_normals(points, faces):
    """Returns unit normals (V, 3), area-weighted means over each vertex's triangles; points (V, 3), faces (F, 3)."""
    normals = np.zeros(points.shape, np.float32)
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
        bx, by, bz = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(points.shape[0]):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 0:
            normals[v] /= np.float32(length)
    return normals


@functools.lru_cache(maxsize=4)
def blend_rows(model: FaceModel) -> np.ndarray:
    """Returns the blend directions and pose correctives (K, V, 3) float32, one contiguous field per coefficient of
    ``motion``.
    """
    bases = [model.expression_basis] + ([] if model.pose_basis is None else [model.pose_basis])
    return np.ascontiguousarray(np.moveaxis(np.concatenate(bases, -1), -1, 0), np.float32)


def motion(model: FaceModel, shape, expression, neck=None) -> tuple[np.ndarray, np.ndarray]:
    """Returns what ``skin_to_camera`` needs of an expression, all frames at once.

    Args:
      model: the face model.
      shape: (Ns,).
      expression: (..., Ne).
      neck: (..., 3) or None.

    Returns:
      coefficients (..., K) of ``blend_rows`` and joint transforms (..., J, 3, 4), float32.
    """
    expression = np.asarray(expression, np.float32)
    rotations = joint_rotations(expression, neck)
    transforms = joint_transforms(model, np.asarray(shape, np.float32), rotations)
    parts = [expression[..., : model.num_blend]]
    if model.pose_basis is not None:
        parts.append(pose_features(rotations))
    return np.concatenate(parts, -1).astype(np.float32), np.ascontiguousarray(transforms, np.float32)


@_compiled
def skin_to_camera(vertices, basis, coefficients, weights, transforms, follow, head, head_shift, torso, torso_shift):
    """Poses a character's vertices in one pass, without the threads that a matrix library would start for so small a
    product.

    Args:
      vertices: (V, 3) float32 metres in the face model's axes, identity applied; the first ones are the face model's.
      basis: (K, B, 3) float32 of ``blend_rows``: fields over the first B vertices; coefficients: (K,) float32.
      weights: (W, J) float32 skin weights of the first W vertices (the others follow no joint); transforms: (J, 3, 4)
        float32.
      follow: (V,) float32, the share of the head's motion; the rest is the torso's.
      head, torso: (3, 3) float32 rotations in camera axes; head_shift, torso_shift: (3,) float32 metres.

    Returns:
      (V, 3) float32 metres in camera axes.
    """
    out = vertices.copy()
    size = basis.shape[1] * 3
    flat = out.reshape(-1)
    for k in range(basis.shape[0]):
        c = coefficients[k]
        if c != 0:
            field = basis[k].reshape(-1)
            for i in range(size):
                flat[i] += c * field[i]
    moving = np.zeros(weights.shape[1], np.bool_)
    offsets = transforms.copy()
    for j in range(weights.shape[1]):
        for c in range(3):
            offsets[j, c, c] -= np.float32(1)
        moving[j] = np.any(offsets[j] != 0)
    for v in range(vertices.shape[0]):
        x, y, z = out[v, 0], out[v, 1], out[v, 2]
        if v < weights.shape[0]:
            px, py, pz = x, y, z
            for j in range(weights.shape[1]):
                w = weights[v, j]
                if w != 0 and moving[j]:
                    m = offsets[j]
                    x += w * (m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3])
                    y += w * (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3])
                    z += w * (m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3])
        y, z = -y, -z
        share, other = follow[v], np.float32(1) - follow[v]
        for c in range(3):
            moved = head[c, 0] * x + head[c, 1] * y + head[c, 2] * z + head_shift[c]
            still = torso[c, 0] * x + torso[c, 1] * y + torso[c, 2] * z + torso_shift[c]
            out[v, c] = share * moved + other * still
    return out


@_compiled
def shade(normals, colors, gloss, light, light_color, ambient):
    """Lights vertices from both sides.

    Args:
      normals: (V, 3) float32 in camera axes.
      colors: (V, 3) float32 albedo, 0..1.
      gloss: (V,) float32 strength of the highlight.
      light: (3,) float32 unit direction to the light; light_color: (3,) float32; ambient: float.

    Returns:
      Two (V, 3) float32 arrays, 0..255: the light on the side of the normal, and on the other side.
    """
    count = normals.shape[0]
    front, back = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    # The half-way vector between the light and a viewer on the optical axis.
    hx, hy, hz = light[0], light[1], light[2] - 1.0
    h = np.sqrt(hx * hx + hy * hy + hz * hz)
    for v in range(count):
        for side in range(2):
            sign = 1.0 - 2.0 * side
            nx, ny, nz = sign * normals[v, 0], sign * normals[v, 1], sign * normals[v, 2]
            diffuse = max(0.0, (nx * light[0] + ny * light[1] + nz * light[2] + 0.25) / 1.25)
            sky = ambient * (0.8 - 0.2 * ny) + 0.10 * max(0.0, -nz)
            half = max(0.0, (nx * hx + ny * hy + nz * hz) / h)
            shine = half * half
            shine *= shine
            shine *= shine * shine
            shine *= shine  # the 24th power
            for c in range(3):
                value = colors[v, c] * (sky + diffuse * light_color[c]) + gloss[v] * shine * light_color[c]
                value = min(255.0, max(0.0, 255.0 * value))
                if side == 0:
                    front[v, c] = value
                else:
                    back[v, c] = value
    return front, back


@_compiled
def rasterize(points, faces, front, back, labels, two_sided, color, label, depth):
    """Draws triangles into buffers that the caller has cleared (``depth`` with infinity).

    Args:
      points: (V, 3) float32: x, y in pixels of the buffers, and depth (positive, smaller is nearer).
      faces: (F, 3) int32, counter-clockwise in the face model's axes for the side of the normals.
      front, back: (V, 3) float32 colours 0..255 of the two sides.
      labels: (V,) uint8.
      two_sided: (F,) uint8: 0 for triangles that are not drawn when they show their back.
      color: (H, W, 3) uint8, label: (H, W) uint8, depth: (H, W) float32: written where a triangle is nearer than
        ``depth``. Pixel (i, j) is sampled at its centre (j + 0.5, i + 0.5).
    """
    height, width = label.shape
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    slack = np.float32(-1e-5)  # an edge's own pixels belong to both its triangles: no cracks
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za <= zero or zb <= zero or zc <= zero:
            continue
        xa, ya, xb, yb, xc, yc = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        # Image y points down, so the outside of a triangle has negative area.
        if area == zero or (area > zero and two_sided[f] == 0):
            continue
        x0, x1 = max(0, int(np.ceil(min(xa, xb, xc) - half))), min(width - 1, int(np.floor(max(xa, xb, xc) - half)))
        y0, y1 = max(0, int(np.ceil(min(ya, yb, yc) - half))), min(height - 1, int(np.floor(max(ya, yb, yc) - half)))
        if x0 > x1 or y0 > y1:
            continue
        light = front if area < zero else back
        inverse = one / area
        # Barycentric weights are affine in the pixel: a value at the first pixel centre, and steps.
        step_bx, step_by = (yc - ya) * inverse, -(xc - xa) * inverse
        step_cx, step_cy = -(yb - ya) * inverse, (xb - xa) * inverse
        px, py = np.float32(x0) + half - xa, np.float32(y0) + half - ya
        row_b, row_c = px * step_bx + py * step_by, px * step_cx + py * step_cy
        ra, ga, ba = light[a, 0], light[a, 1], light[a, 2]
        rb, gb, bb = light[b, 0] - ra, light[b, 1] - ga, light[b, 2] - ba
        rc, gc, bc = light[c, 0] - ra, light[c, 1] - ga, light[c, 2] - ba
        dzb, dzc = zb - za, zc - za
        for y in range(y0, y1 + 1):
            wb, wc = row_b, row_c
            depths, names, pixels = depth[y], label[y], color[y]
            entered = False
            for x in range(x0, x1 + 1):
                if wb >= slack and wc >= slack and one - wb - wc >= slack:
                    entered = True
                    z = za + wb * dzb + wc * dzc
                    if z < depths[x]:
                        depths[x] = z
                        # The edge slack may leave a colour's range by a hair.
                        pixels[x, 0] = np.uint8(min(max(ra + wb * rb + wc * rc, zero), np.float32(255)))
                        pixels[x, 1] = np.uint8(min(max(ga + wb * gb + wc * gc, zero), np.float32(255)))
                        pixels[x, 2] = np.uint8(min(max(ba + wb * bb + wc * bc, zero), np.float32(255)))
                        wa = one - wb - wc
                        if wa >= wb and wa >= wc:
                            names[x] = labels[a]
                        elif wb >= wc:
                            names[x] = labels[b]
                        else:
                            names[x] = labels[c]
                elif entered:
                    break  # a row meets a triangle in one stretch
                wb += step_bx
                wc += step_cx
            row_b += step_by
            row_c += step_cy


@_compiled
def halve(color):
    """Returns an image half as large, each pixel the mean of four: uint8 (2H, 2W, 3) -> uint8 (H, W, 3)."""
    height, width = color.shape[0] // 2, color.shape[1] // 2
    rows = color.reshape(color.shape[0], color.shape[1] * 3)
    out = np.empty((height, width * 3), np.uint8)
    for y in range(height):
        upper, lower, line = rows[2 * y], rows[2 * y + 1], out[y]
        for x in range(width):
            i, o = 6 * x, 3 * x
            for k in range(3):
                total = (
                    np.int32(upper[i + k])
                    + np.int32(upper[i + k + 3])
                    + np.int32(lower[i + k])
                    + np.int32(lower[i + k + 3])
                )
                line[o + k] = np.uint8((total + 2) >> 2)
    return out.reshape(height, width, 3)


def render(points, faces, front, back, labels, background, two_sided=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders one picture without anti-aliasing.

    Args:
      points, faces, front, back, labels: as in ``rasterize``.
      background: (H, W, 3) uint8.
      two_sided: (F,) uint8, or None: all triangles show both sides.

    Returns:
      color (H, W, 3) uint8, labels (H, W) uint8 (0, background, where nothing was drawn), depth (H, W) float32
      (infinity there).
    """
    color = np.array(background, np.uint8)
    label = np.zeros(color.shape[:2], np.uint8)
    depth = np.full(color.shape[:2], np.inf, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    two_sided = np.ones(len(faces), np.uint8) if two_sided is None else np.ascontiguousarray(two_sided, np.uint8)
    points, labels = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(labels, np.uint8)
    rasterize(points, faces, front, back, labels, two_sided, color, label, depth)
    return color, label, depth


def sheet_faces(model: FaceModel) -> np.ndarray:
    """Returns which triangles of a face model are sheets that may show their back (F,) uint8: teeth, lashes, brows and
    the mouth's inside; the rest is a surface seen from outside.
    """
    names = ("teeth", "lashes", "brows", "other-in-mouth")
    sheets = np.isin(model.labels, [LABEL_INDEX[name] for name in names])
    return sheets[model.faces].any(1).astype(np.uint8)


def _posed(model, shape, expression, pose):
    """Yields each frame's vertices (V, 3) float32 in camera axes: shape (Ns,), expression (T, Ne), pose (T, 6)."""
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))  # the identity, once
    coefficients, transforms = motion(model, shape, expression)
    basis, weights = blend_rows(model), np.ascontiguousarray(model.skin_weights, np.float32)
    turns, whole = rotation_matrix(pose[:, :3]), np.ones(len(person), np.float32)
    for t in range(len(expression)):
        head, shift = turns[t], pose[t, 3:]
        yield skin_to_camera(person, basis, coefficients[t], weights, transforms[t], whole, head, shift, head, shift)


def pixels_and_depth(points, camera) -> np.ndarray:
    """Returns what ``rasterize`` reads: (V, 3) float32 x, y in pixels and depth in metres, for camera points (V, 3)."""
    plane = points[:, :2] / points[:, 2:] * camera[0] + camera[1:]
    return np.concatenate([plane, points[:, 2:]], -1).astype(np.float32)


def _frames(shape, expression, pose, camera, size):
    expression = np.atleast_2d(np.asarray(expression, np.float32))
    frames = len(expression)
    pose = np.broadcast_to(default_pose() if pose is None else np.asarray(pose, np.float32), (frames, 6))
    camera = default_camera(size) if camera is None else np.asarray(camera, np.float32)
    return np.asarray(shape, np.float32), expression, np.ascontiguousarray(pose), camera


def render_preview(model: FaceModel, shape, expression, pose=None, camera=None, size: int = 256) -> np.ndarray:
    """Renders a grey shaded mesh animation.

    Args:
      model: the face model.
      shape: (Ns,).
      expression: (T, Ne).
      pose: (T, 6), (6,) or None (looks at the camera).
      camera: (3,) focal, cx, cy in pixels of ``size``, or None.
      size: side of the frames.

    Returns:
      (T, size, size, 3) uint8.
    """
    shape, expression, pose, camera = _frames(shape, expression, pose, camera, size)
    albedo = np.repeat(_GREYS[model.labels][:, None], 3, 1)
    gloss = np.full(len(model.vertices), 0.12, np.float32)
    light = DEFAULT_LIGHT / np.linalg.norm(DEFAULT_LIGHT)
    background = np.full((size * 2, size * 2, 3), PREVIEW_BACKGROUND, np.uint8)
    frames = np.empty((len(expression), size, size, 3), np.uint8)
    sheets = sheet_faces(model)
    for t, points in enumerate(_posed(model, shape, expression, pose)):
        front, back = shade(
            vertex_normals(points, model.faces), albedo, gloss, light, np.full(3, 0.75, np.float32), 0.25
        )
        drawn = pixels_and_depth(points, camera * 2)
        color, _, _ = render(drawn, model.faces, front, back, model.labels, background, sheets)
        frames[t] = halve(color)
    return frames


def render_labels(model: FaceModel, shape, expression, pose=None, camera=None, size: int = 256) -> np.ndarray:
    """Renders the 21-class labels of the bare head (no hair, no clothes): arguments as ``render_preview``, returns (T,
    size, size) uint8.
    """
    shape, expression, pose, camera = _frames(shape, expression, pose, camera, size)
    flat = np.zeros((len(model.vertices), 3), np.float32)
    background = np.zeros((size, size, 3), np.uint8)
    frames = np.empty((len(expression), size, size), np.uint8)
    sheets = sheet_faces(model)
    for t, points in enumerate(_posed(model, shape, expression, pose)):
        drawn = pixels_and_depth(points, camera)
        _, frames[t], _ = render(drawn, model.faces, flat, flat, model.labels, background, sheets)
    return frames
