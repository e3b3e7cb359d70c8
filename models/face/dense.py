"""The dense landmarks of the embedded head: several hundred vertices over the face, closer round eyes and mouth."""

import numpy as np

from models.face.surface import bump, profile
from models.labels import LABEL_INDEX

# Region -> distance between its points, mm. Sides are the subject's.
SPACING = {
    "lip_upper": 3.6,
    "lip_lower": 3.6,
    "eye_left": 3.6,
    "eye_right": 3.6,
    "brow_left": 5.5,
    "brow_right": 5.5,
    "nose": 5.0,
    "mouth": 6.0,
    "chin": 8.0,
    "cheek_left": 8.5,
    "cheek_right": 8.5,
    "jaw_left": 9.0,
    "jaw_right": 9.0,
    "forehead": 9.5,
}


def regions(xyz, labels, arrays):
    """Returns the region (N,) of each vertex, "" where no dense point goes; arguments as in ``dense_points``."""
    x, y, z = xyz.T
    ax = np.abs(x)
    skin = (arrays["part"] == "skin") & (labels != LABEL_INDEX["nostrils"]) & (labels != LABEL_INDEX["neck"])
    # Not the crown, which hair covers, and not where the face turns away.
    skin &= (y < 88) & (ax < 0.94 * profile(y)[0]) & (z > 15)
    side = np.where(x >= 0, "left", "right")
    region = np.where(ax > 48, np.char.add("jaw_", side), np.full(len(x), "mouth", dtype="U12"))
    region = np.where(
        (y < -92) & (ax <= 30), "chin", np.where((ax > 30) & (y < -66), np.char.add("jaw_", side), region)
    )
    region = np.where((y > -66) & (y < 12) & (ax > 18), np.char.add("cheek_", side), region)
    region = np.where(labels == LABEL_INDEX["nose"], "nose", region)
    region = np.where((y >= -50) & (y < 12) & (ax <= 18), "nose", region)
    region = np.where(y >= 12, "forehead", region)
    region = np.where(bump(ax, y, 35, 22.5, 19, 5.5) > 0.5, np.char.add("brow_", side), region)
    region = np.where(arrays["eye"] != 0, np.char.add("eye_", side), region)
    lips = labels == LABEL_INDEX["lips"]
    region = np.where(lips, np.where(arrays["side"] < 0, "lip_lower", "lip_upper"), region)
    return np.where(skin, region, "")


def dense_points(xyz, labels, landmarks, arrays):
    """Chooses the dense landmarks: mirrored pairs and points of the middle, none of them one of the 68.

    Args:
      xyz: (N, 3) mm.
      labels: (N,) classes.
      landmarks: (68,) vertex ids.
      arrays: part, side, eye (N,) of procedural.Parts.

    Returns:
      vertex ids (K,), and K names.
    """
    from scipy.spatial import cKDTree

    region = regions(xyz, labels, arrays)
    candidates = np.where(region != "")[0]
    tree = cKDTree(xyz[candidates])
    chosen, spread = [], [xyz[i] for i in landmarks]
    gaps = [1.8] * len(spread)
    # The finest regions first; inside one, from the middle outward and from the top down.
    order = sorted(
        candidates[xyz[candidates, 0] > -1e-6],
        key=lambda i: (SPACING[region[i]], region[i], round(abs(xyz[i, 0]), 3), -round(xyz[i, 1], 3)),
    )
    for i in order:
        gap = SPACING[region[i]]
        mirror = candidates[tree.query(xyz[i] * [-1, 1, 1])[1]]
        if np.abs(xyz[mirror] - xyz[i] * [-1, 1, 1]).max() > 0.05:
            continue
        distance = np.linalg.norm(np.array(spread) - xyz[i], axis=1)
        if (distance < np.minimum(np.array(gaps), gap)).any() or 1e-6 < 2 * xyz[i, 0] < gap:
            continue
        for vertex in sorted({int(i), int(mirror)}, key=lambda v: -xyz[v, 0]):
            chosen.append(vertex)
            spread.append(xyz[vertex])
            gaps.append(gap)
    count: dict[str, int] = {}
    names = []
    for vertex in chosen:
        name = str(region[vertex])
        names.append(f"{name}_{count.setdefault(name, 0):02d}")
        count[name] += 1
    order = sorted(range(len(names)), key=names.__getitem__)
    return np.array(chosen)[order], tuple(names[k] for k in order)


def vertex_embedding(faces, ids):
    """Returns vertices as points on triangles: (F, 3), (N,) ids -> triangle ids (N,) int32, barycentric (N, 3) float32.

    Raises:
      ValueError: a vertex that no triangle uses.
    """
    ids = np.asarray(ids)
    flat = faces.ravel()
    order = np.argsort(flat, kind="stable")
    at = np.searchsorted(flat[order], ids)
    if (at >= len(flat)).any() or (flat[order[np.minimum(at, len(flat) - 1)]] != ids).any():
        raise ValueError("a vertex is part of no triangle")
    corner = order[at]
    return (corner // 3).astype(np.int32), np.eye(3, dtype=np.float32)[corner % 3]
