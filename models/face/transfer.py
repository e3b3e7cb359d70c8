"""What a face model's file does not hold, taken over from the embedded head by way of the landmarks.

The embedded head is laid over the other one (a similarity that brings the landmarks together, then the landmarks'
remaining differences spread over the surface), and each point takes over what is nearest.
"""

import numpy as np

from models.face.model import FaceModel, dense_landmarks, landmarks68, load_face_model
from models.face.surface import inside_polygon
from models.labels import LABEL_INDEX

_REACH = 0.025  # metres over which a landmark's remaining difference fades
_EYE_PARTS = ("sclera", "iris", "pupil")
_INNER = range(17, 68)  # the landmarks that are not on the jaw's contour


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns scale, rotation (3, 3), translation (3,) that bring points (N, 3) closest to others (Umeyama, 1991)."""
    a, b = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    scale = float((s * np.diag(flip)).sum() / ((source - a) ** 2).sum())
    return scale, rotation, b - scale * rotation @ a


def overlay(target: np.ndarray, points: np.ndarray, ids=range(68)) -> np.ndarray:
    """Returns points (N, 3) of the embedded head laid over another one, whose landmarks ``ids`` are ``target``."""
    head = load_face_model()
    source = landmarks68(head, head.vertices).astype(np.float64)[list(ids)]
    scale, rotation, shift = similarity(source, target)
    laid, moved = source @ rotation.T * scale + shift, points @ rotation.T * scale + shift
    # The landmarks' differences, interpolated exactly where they are and fading away from them.
    kernel = np.exp(-(((laid[:, None] - laid[None]) ** 2).sum(-1)) / (2 * _REACH**2))
    weights = np.linalg.solve(kernel + 1e-3 * np.eye(len(laid)), target - laid)
    return moved + np.exp(-(((moved[:, None] - laid[None]) ** 2).sum(-1)) / (2 * _REACH**2)) @ weights


def contour(target: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 17 points of the jaw's contour on a mesh whose 51 other landmarks are ``target`` (51, 3).

    Returns:
      triangle ids (17,) and barycentric (17, 3).
    """
    head = load_face_model()
    points = landmarks68(head, head.vertices)[:17].astype(np.float64)
    return nearest_on_mesh(overlay(target, points, _INNER), vertices, faces)


def dense(target: np.ndarray, vertices: np.ndarray, faces: np.ndarray):
    """Returns the dense points on a mesh with landmarks ``target`` (68, 3): triangle ids, barycentric, names."""
    head = load_face_model()
    points = dense_landmarks(head, head.vertices).astype(np.float64)
    ids, weights = nearest_on_mesh(overlay(target, points), vertices, faces)
    return ids, weights, head.dense_names


def labels(target: np.ndarray, vertices: np.ndarray, eyes: bool) -> np.ndarray:
    """Returns a class (V,) uint8 for each vertex of a head with landmarks ``target`` (68, 3).

    Args:
      eyes: whether the skin has the eyes in it (BFM), so that what lies inside the lids' margins is labelled as an eye.
    """
    from scipy.spatial import cKDTree

    head = load_face_model()
    placed = overlay(target, head.vertices.astype(np.float64))
    names = ("face", "neck", "ears", "lips", "nose", "nostrils", "other-in-mouth")
    skin = np.isin(head.labels, [LABEL_INDEX[n] for n in names])
    result = head.labels[skin][cKDTree(placed[skin]).query(vertices)[1]]
    brows = head.labels == LABEL_INDEX["brows"]
    near_brow = cKDTree(placed[brows]).query(vertices)[0] < 0.003
    result[near_brow & (result == LABEL_INDEX["face"])] = LABEL_INDEX["brows"]
    if eyes:
        ball = np.isin(head.labels, [LABEL_INDEX[n] for n in _EYE_PARTS])
        eye = head.labels[ball][cKDTree(placed[ball]).query(vertices)[1]]
        for ids in (range(36, 42), range(42, 48)):
            inside = inside_polygon(vertices[:, :2], target[list(ids), :2]) & (vertices[:, 2] > target[:, 2].min())
            result[inside] = eye[inside]
    return result.astype(np.uint8)


def eyeball_labels(vertices: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns pupil, iris or sclera (N,) for the vertices (N, 3) of an eyeball that looks along z."""
    offset = vertices - centre
    angle = np.degrees(np.arctan2(np.hypot(offset[:, 0], offset[:, 1]), offset[:, 2]))
    return np.select(
        [angle < 11, angle < 28], [LABEL_INDEX["pupil"], LABEL_INDEX["iris"]], LABEL_INDEX["sclera"]
    ).astype(np.uint8)


def outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the triangles counter-clockwise seen from outside: all of them turned if most look inward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    middle = np.array([*vertices[:, :2].mean(0), vertices[:, 2].min()])
    facing = (np.cross(b - a, c - a) * ((a + b + c) / 3 - middle)).sum()
    return faces if facing > 0 else np.ascontiguousarray(faces[:, ::-1])


def nearest_on_mesh(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest place on a mesh for each point (N, 3): triangle ids (N,) int32, barycentric (N, 3) float32.

    Looked for among the triangles of the eight nearest vertices that triangles use.
    """
    from scipy.spatial import cKDTree

    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(-1, 3)
    order = np.argsort(local.ravel(), kind="stable")
    starts = np.searchsorted(local.ravel()[order], np.arange(len(used) + 1))
    near = cKDTree(vertices[used]).query(points, k=min(8, len(used)))[1].reshape(len(points), -1)
    ids, weights = np.zeros(len(points), np.int32), np.zeros((len(points), 3), np.float32)
    for n, point in enumerate(points):
        candidates = np.unique(np.concatenate([order[starts[v] : starts[v + 1]] // 3 for v in near[n]]))
        barycentric = closest_in_triangles(point, vertices[faces[candidates]])
        reached = (vertices[faces[candidates]] * barycentric[..., None]).sum(1)
        best = ((reached - point) ** 2).sum(1).argmin()
        ids[n], weights[n] = candidates[best], barycentric[best]
    return ids, weights


def closest_in_triangles(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Returns the barycentric coordinates (N, 3) of the point closest to ``point`` (3,) in each triangle (N, 3, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    options = []
    for i, j in ((0, 1), (1, 2), (2, 0)):
        along = corners[:, j] - corners[:, i]
        t = ((point - corners[:, i]) * along).sum(1) / np.maximum((along * along).sum(1), 1e-30)
        weights = np.zeros((len(corners), 3))
        weights[:, j] = np.clip(t, 0, 1)
        weights[:, i] = 1 - weights[:, j]
        options.append(weights)
    u, v, w = b - a, c - a, point - a
    uu, uv, vv, wu, wv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1), (w * u).sum(1), (w * v).sum(1)
    area = np.maximum(uu * vv - uv * uv, 1e-30)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    inner = np.stack([1 - second - third, second, third], -1)
    inside = (inner >= 0).all(1)
    options.append(np.where(inside[:, None], inner, options[0]))
    options = np.stack(options)  # (4, N, 3)
    reached = np.einsum("onk,nkc->onc", options, corners)
    best = ((reached - point) ** 2).sum(-1).argmin(0)
    return options[best, np.arange(len(corners))]


def check_size(path: str, model: FaceModel) -> None:
    """Raises InputError unless the eyes' outer corners are as far apart as a human's (6 to 13 cm)."""
    from models.errors import InputError

    points = landmarks68(model, model.vertices)
    width = float(np.linalg.norm(points[45] - points[36]))
    if not 0.06 < width < 0.13:
        raise InputError(
            f"{path}: the outer eye corners are {width:.3g} m apart, expected 0.06 to 0.13: another unit, or landmarks "
            "of another mesh"
        )
