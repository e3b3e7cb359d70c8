"""Triangles between points that lie round a centre: grids, and a closed skin with rings and openings in it."""

import numpy as np


def grid_faces(rows, columns, wrap=False):
    """Returns triangles of a rows x columns vertex grid (counter-clockwise when columns go right and rows go down)."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = a + columns, b + columns
    return np.concatenate([np.stack([a, d, b], -1).reshape(-1, 3), np.stack([b, d, e], -1).reshape(-1, 3)])


def facing_out(directions, faces):
    """Returns triangles counter-clockwise seen from outside: directions (N, 3), faces (F, 3)."""
    a, b, c = (directions[faces[:, j]] for j in range(3))
    inward = (np.cross(b - a, c - a) * (a + b + c)).sum(1) < 0
    return np.where(inward[:, None], faces[:, ::-1], faces)


def triangulate(directions, rings):
    """Returns a skin over points on a sphere.

    Outside the rings it is the points' convex hull; between the rings of a set it is bands, whatever the hull would
    make of them (rings may lie closer together than their points); inside the innermost ring it is open.

    Args:
      directions: (N, 3) unit vectors.
      rings: sets of rings, each (K, M) ids, from the outermost to the innermost, in the same sense.

    Returns:
      (F, 3) triangles, counter-clockwise seen from outside.
    """
    from scipy.spatial import ConvexHull

    free = np.ones(len(directions), bool)
    for ids in rings:
        free[ids[1:]] = False
    free = np.where(free)[0]
    faces = facing_out(directions, free[ConvexHull(directions[free]).simplices.astype(np.int64)])
    bands = []
    for ids in rings:
        faces = with_edges(faces, ids[0])
        faces = faces[~_within(directions, faces, ids[0])]
        bands.append(facing_out(directions, ids.ravel()[grid_faces(*ids.shape, wrap=True)]))
    return np.concatenate([faces, *bands])


def with_edges(faces, loop):
    """Returns the triangles with every edge of a closed loop of vertices among their edges: where one is missing, the
    edge that crosses it is turned.

    Raises:
      ValueError: more than one edge crosses.
    """
    faces = faces.copy()
    for u, v in zip(loop, np.roll(loop, -1), strict=True):
        holds_u, holds_v = (faces == u).any(1), (faces == v).any(1)
        if (holds_u & holds_v).any():
            continue
        ours, theirs = np.where(holds_u)[0], np.where(holds_v)[0]
        pairs = [(i, j) for i in ours for j in theirs if len(set(faces[i]) & set(faces[j])) == 2]
        if not pairs:
            raise ValueError(f"vertices {u} and {v} of a ring are too far apart for the points between them")
        i, j = pairs[0]
        k = list(faces[i]).index(u)
        a, b = faces[i][(k + 1) % 3], faces[i][(k + 2) % 3]
        faces[i], faces[j] = (u, a, v), (u, v, b)
    return faces


def _within(directions, faces, loop):
    """Returns which triangles (F,) lie inside a loop: their middle is seen under the full turn of the loop about it."""
    near = np.isin(faces, loop).all(1)
    inside = np.zeros(len(faces), bool)
    for f in np.where(near)[0]:
        middle = directions[faces[f]].mean(0)
        middle /= np.linalg.norm(middle)
        across = np.cross(middle, [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        plane = directions[loop] @ np.stack([across, np.cross(across, middle)]).T
        angle = np.arctan2(plane[:, 1], plane[:, 0])
        turns = np.diff(np.append(angle, angle[0]))
        inside[f] = abs(((turns + np.pi) % (2 * np.pi) - np.pi).sum()) > np.pi
    return inside
