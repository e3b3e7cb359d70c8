"""A small software renderer: z-buffer triangles with smooth shading, compiled with numba for one core.

Per-vertex light (wrapped diffuse, sky and ambient, a highlight) is interpolated over triangles; a pixel's label is that of the nearest
vertex of the nearest triangle. Anti-aliasing is by rendering larger and averaging. A run on one machine gives the same pixels every time.
"""

import numpy as np
from numba import njit

from models.face.camera import default_camera, default_pose, project, to_camera
from models.face.model import FaceModel, deform

# Direction from the face to the light in camera axes (x right, y down, z forward): up, a little from the left, from the camera's side.
DEFAULT_LIGHT = np.array([-0.35, -0.55, -0.76], np.float32)
PREVIEW_BACKGROUND = 40
_SUPERSAMPLE = 2


@njit(cache=True)
def vertex_normals(points, faces):
    """Returns unit normals (V, 3), each the area-weighted mean over a vertex's triangles; points (V, 3), faces (F, 3)."""
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


@njit(cache=True)
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


@njit(cache=True)
def rasterize(points, faces, front, back, labels, color, label, depth):
    """Draws triangles into buffers that the caller has cleared (``depth`` with infinity).

    Args:
      points: (V, 3) float32: x, y in pixels of the buffers, and depth (positive, smaller is nearer).
      faces: (F, 3) int32, counter-clockwise in the face model's axes for the side of the normals.
      front, back: (V, 3) float32 colours 0..255 of the two sides.
      labels: (V,) uint8.
      color: (H, W, 3) uint8, label: (H, W) uint8, depth: (H, W) float32: written where a triangle is nearer than ``depth``. Pixel (i, j)
        is sampled at its centre (j + 0.5, i + 0.5).
    """
    height, width = label.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za <= 0 or zb <= 0 or zc <= 0:
            continue
        xa, ya, xb, yb, xc, yc = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area == 0:
            continue
        x0, x1 = max(0, int(np.ceil(min(xa, xb, xc) - 0.5))), min(width - 1, int(np.floor(max(xa, xb, xc) - 0.5)))
        y0, y1 = max(0, int(np.ceil(min(ya, yb, yc) - 0.5))), min(height - 1, int(np.floor(max(ya, yb, yc) - 0.5)))
        if x0 > x1 or y0 > y1:
            continue
        # Image y points down, so the outside of a triangle has negative area.
        light = front if area < 0 else back
        inverse = np.float32(1.0 / area)
        # Barycentric weights are affine in the pixel: value at the first pixel centre, and steps.
        step_bx, step_by = (yc - ya) * inverse, -(xc - xa) * inverse
        step_cx, step_cy = -(yb - ya) * inverse, (xb - xa) * inverse
        for y in range(y0, y1 + 1):
            py = np.float32(y + 0.5) - ya
            for x in range(x0, x1 + 1):
                px = np.float32(x + 0.5) - xa
                wb = px * step_bx + py * step_by
                wc = px * step_cx + py * step_cy
                wa = np.float32(1.0) - wb - wc
                if wa < -1e-5 or wb < -1e-5 or wc < -1e-5:
                    continue
                z = wa * za + wb * zb + wc * zc
                if z >= depth[y, x]:
                    continue
                depth[y, x] = z
                for k in range(3):
                    color[y, x, k] = np.uint8(wa * light[a, k] + wb * light[b, k] + wc * light[c, k])
                if wa >= wb and wa >= wc:
                    label[y, x] = labels[a]
                elif wb >= wc:
                    label[y, x] = labels[b]
                else:
                    label[y, x] = labels[c]


@njit(cache=True)
def average(color, factor):
    """Returns an image ``factor`` times smaller, each pixel the mean of a block: uint8 (H*f, W*f, 3) -> uint8 (H, W, 3)."""
    height, width = color.shape[0] // factor, color.shape[1] // factor
    out = np.empty((height, width, 3), np.uint8)
    total = factor * factor
    for y in range(height):
        for x in range(width):
            for k in range(3):
                value = total // 2
                for i in range(factor):
                    for j in range(factor):
                        value += color[y * factor + i, x * factor + j, k]
                out[y, x, k] = value // total
    return out


def to_pixels(points, pose, camera) -> np.ndarray:
    """Returns what ``rasterize`` reads: (V, 3) float32 x, y in pixels and depth in metres, for model points (V, 3) metres."""
    z = to_camera(points, pose)[:, 2:]
    return np.concatenate([project(points, pose, camera), z], -1).astype(np.float32)


def render(points, faces, front, back, labels, background) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders one picture without anti-aliasing.

    Args:
      points, faces, front, back, labels: as in ``rasterize``.
      background: (H, W, 3) uint8.

    Returns:
      color (H, W, 3) uint8, labels (H, W) uint8 (0, background, where nothing was drawn), depth (H, W) float32 (infinity there).
    """
    color = np.array(background, np.uint8)
    label = np.zeros(color.shape[:2], np.uint8)
    depth = np.full(color.shape[:2], np.inf, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    rasterize(
        np.ascontiguousarray(points, np.float32),
        faces,
        front,
        back,
        np.ascontiguousarray(labels, np.uint8),
        color,
        label,
        depth,
    )
    return color, label, depth


def _frames(shape, expression, pose, camera, size):
    expression = np.atleast_2d(np.asarray(expression, np.float32))
    frames = len(expression)
    pose = np.broadcast_to(default_pose() if pose is None else np.asarray(pose, np.float32), (frames, 6))
    camera = default_camera(size) if camera is None else np.asarray(camera, np.float32)
    return np.asarray(shape, np.float32), expression, pose, camera


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
    albedo = np.full((len(model.vertices), 3), 0.72, np.float32)
    gloss = np.full(len(model.vertices), 0.12, np.float32)
    light = DEFAULT_LIGHT / np.linalg.norm(DEFAULT_LIGHT)
    big = camera * _SUPERSAMPLE
    background = np.full((size * _SUPERSAMPLE, size * _SUPERSAMPLE, 3), PREVIEW_BACKGROUND, np.uint8)
    frames = np.empty((len(expression), size, size, 3), np.uint8)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))  # the identity, once
    basis = model.expression_basis.reshape(-1, model.num_expression)
    for t in range(len(expression)):
        vertices = person + (basis @ expression[t]).reshape(-1, 3)
        normals = vertex_normals(to_camera(vertices, pose[t]).astype(np.float32), model.faces)
        front, back = shade(normals, albedo, gloss, light, np.full(3, 0.75, np.float32), 0.25)
        color, _, _ = render(to_pixels(vertices, pose[t], big), model.faces, front, back, model.labels, background)
        frames[t] = average(color, _SUPERSAMPLE)
    return frames


def render_labels(model: FaceModel, shape, expression, pose=None, camera=None, size: int = 256) -> np.ndarray:
    """Renders the 21-class labels of the bare head (no hair, no clothes): arguments as ``render_preview``, returns (T, size, size) uint8."""
    shape, expression, pose, camera = _frames(shape, expression, pose, camera, size)
    flat = np.zeros((len(model.vertices), 3), np.float32)
    background = np.zeros((size, size, 3), np.uint8)
    frames = np.empty((len(expression), size, size), np.uint8)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))  # the identity, once
    basis = model.expression_basis.reshape(-1, model.num_expression)
    for t in range(len(expression)):
        vertices = person + (basis @ expression[t]).reshape(-1, 3)
        _, frames[t], _ = render(
            to_pixels(vertices, pose[t], camera), model.faces, flat, flat, model.labels, background
        )
    return frames
