"""The procedural head's skin as a function: (x, height) and an angle round the head -> a point, in millimetres.

The head is a stack of horizontal cross-sections between crown and chin; each is two half superellipses (front and back)
about a centre. Nose, sockets, lips, cheeks and lids are smooth bumps on its front. The numbers are round anthropometric
figures (pupils 63 mm apart, face width 140, eye line to chin 112, head depth 190), set by us.
"""

import functools

import numpy as np

Y_TOP, Y_BOTTOM = 114.0, -115.0
EYE_X, EYE_Y, EYE_Z = 31.5, 0.0, 66.0  # the left eyeball's centre; the right one is mirrored
EYE_RADIUS, LID_RADIUS = 12.2, 13.4
MOUTH_Y = -74.0

# Height y: half width (over the cosine of latitude), centre depth, front and back depth (over the same cosine).
_PROFILE = np.array(
    [
        # y, w, zc, front, back
        (-115, 62, 74, 55, 30),
        (-107, 67, 62, 71, 40),
        (-97, 73, 46, 79, 33),
        (-84, 77.5, 28, 90.5, 42),
        (-69, 77.5, 15, 97.5, 62),
        (-52, 75.5, 11, 91.5, 83),
        (-34, 75, 10, 82, 96),
        (-16, 74, 7, 79.5, 99),
        (2, 74, 5, 82, 102),
        (20, 75.5, 3, 92, 104),
        (40, 79, 0, 98, 105),
        (70, 88, -3, 102, 105),
        (95, 92, -5, 100, 104),
        (114, 92, -5, 97, 103),
    ],
    np.float64,
)
_FRONT_POWER = 2.15


def _spline(x, table_x, table_y):
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(table_x, table_y)(np.clip(x, table_x[0], table_x[-1]))


@functools.cache
def _smooth_profile():
    """Returns the profile's table every 2 mm, evened out over 5 mm: a bend at one height would show as a band."""
    from scipy.ndimage import gaussian_filter1d

    y = np.linspace(Y_BOTTOM, Y_TOP, 116)
    columns = [gaussian_filter1d(_spline(y, _PROFILE[:, 0], _PROFILE[:, k]), 2.5, mode="nearest") for k in range(1, 5)]
    return y, columns


def _latitude_sine(y):
    return np.clip(np.where(y > 0, y / Y_TOP, -y / Y_BOTTOM), -1, 1)


def profile(y):
    """Returns half width w, centre zc, front zf and back zb of the cross-section at height y (mm)."""
    cosine = np.sqrt(1 - _latitude_sine(y) ** 2)
    heights, columns = _smooth_profile()
    w, zc, front, back = (_spline(y, heights, column) for column in columns)
    return w * cosine, zc, zc + front * cosine, zc - back * cosine


def directions_of(x, y):
    """Returns the unit directions (N, 3) that stand for front points (x, y): latitude from the height, longitude from x
    over the width.
    """
    s = _latitude_sine(y)
    w = np.maximum(profile(y)[0], 1e-6)
    t = np.clip(x / w, -0.999, 0.999)
    c = np.sqrt(1 - s * s)
    return np.stack([c * t, s, c * np.sqrt(1 - t * t)], -1)


def bump(x, y, cx, cy, sx, sy):
    """Returns a Gaussian hill of height 1 (mm arrays)."""
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def both(x, y, cx, cy, sx, sy):
    """Returns two mirrored Gaussian hills."""
    return bump(np.abs(x), y, cx, cy, sx, sy)


def smoothstep(x, low, high):
    """Returns 0 below ``low``, 1 above ``high``, a cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


_NOSE_Y = np.array([-57, -53.5, -51, -48, -44.5, -40.5, -36, -30, -22, -12, 2, 14, 24.0])
_NOSE_HEIGHT = np.array([0, 1.5, 5, 11, 17, 21.5, 23.5, 20, 15.5, 10, 4, 1, 0.0])
_NOSE_WIDTH = np.array([11, 10, 9.5, 9, 8.8, 8.6, 8.2, 7.6, 7, 7, 7.5, 9, 10.0])


def nose_height(x, y):
    """Returns how far the nose stands out of the face (mm)."""
    base = y - 0.022 * np.minimum(np.abs(x), 16) ** 2 * smoothstep(-y, 25, 40)  # the wings end higher than the middle
    ridge = _spline(base, _NOSE_Y, _NOSE_HEIGHT) * np.exp(-((np.abs(x) / _spline(base, _NOSE_Y, _NOSE_WIDTH)) ** 2))
    return ridge + 7.0 * both(x, y, 12.5, -42.5, 4.6, 4.6)


def features(x, y):
    """Returns what is added to the depth of the front at (x, y) (mm)."""
    dz = nose_height(x, y)
    dz -= 6.0 * both(x, y, 30, 2, 14, 8.5) + 7.0 * both(x, y, 17, 1, 5, 7)  # sockets and their inner corners
    dz += 3.5 * both(x, y, 30, 21, 17, 6)  # brow ridge
    dz += 3.0 * both(x, y, 46, -30, 14, 12)  # cheekbones
    dz -= 2.5 * both(x, y, 26, -58, 6, 14)  # beside the mouth
    arch = np.clip(1 - (x / 30) ** 2, 0, 1)
    dz += arch * (
        4.0 * bump(x, y, 0, -69, 1e9, 4.0)
        + 4.5 * bump(x, y, 0, -80.5, 1e9, 4.5)
        - 2.0 * bump(x, y, 0, MOUTH_Y, 1e9, 1.8)
    )
    dz -= 0.9 * bump(x, y, 0, -60, 2.5, 4)  # philtrum
    dz -= 3.0 * bump(x, y, 0, -92, 14, 4)  # under the lower lip
    dz += 2.5 * bump(x, y, 0, -104, 13, 7)  # chin
    return dz


def lid_depth(x, y, z):
    """Returns the depth of skin over the eyeballs: at least that of a sphere a lid's thickness larger (mm)."""
    squared = LID_RADIUS**2 - (np.abs(x) - EYE_X) ** 2 - (y - EYE_Y) ** 2
    ball = EYE_Z + np.sqrt(np.maximum(squared, 0))
    soft = 1.0  # mm over which the two surfaces melt into one
    over = np.where(squared > 4, soft * np.logaddexp((ball - z) / soft, 0), 0)
    return z + over


def front_depth(x, y):
    """Returns z of the skin at front points (x, y) (mm)."""
    w, zc, zf, _ = profile(y)
    t = np.clip(np.abs(x) / np.maximum(w, 1e-6), 0, 1)
    g = np.maximum(1 - t**_FRONT_POWER, 0) ** (1 / _FRONT_POWER)
    z = zc + (zf - zc) * g + features(x, y) * smoothstep(g, 0.15, 0.6)
    return lid_depth(x, y, z)


def skin_points(directions):
    """Returns the skin's points (N, 3) mm for unit directions (N, 3)."""
    dx, dy, dz = directions.T
    y = np.where(dy > 0, dy * Y_TOP, -dy * Y_BOTTOM)
    c = np.maximum(np.sqrt(1 - np.clip(dy, -1, 1) ** 2), 1e-9)
    w, zc, _, zb = profile(y)
    x = w * np.clip(dx / c, -1, 1)
    back = zc - (zc - zb) * np.clip(-dz / c, 0, 1)
    return np.stack([x, y, np.where(dz >= 0, front_depth(x, y), back)], -1)


# --- curves through the iBUG points, subject's left half or centre, mm ---

JAW = ((72.5, 5), (71.5, -14), (69.5, -33), (66, -53), (59.5, -70), (48, -87), (33, -101), (18.5, -109.5), (0, -113))
BROW = ((54.5, 19.5), (46, 25.5), (34.5, 27.5), (23, 25.5), (12, 21.8))  # outer to inner
BRIDGE = ((0, 1), (0, -12), (0, -25), (0, -37))
NOSE_BASE = ((13.5, -48), (7, -50.5), (0, -52))
EYE_UPPER = ((44.5, 0.4), (36.7, 4.6), (25.7, 4.5), (16.8, -1.7))  # outer corner, two on the lid, inner corner
EYE_LOWER = ((44.5, 0.4), (36.2, -4.3), (25.8, -4.5), (16.8, -1.7))
LIP_OUTER_UPPER = ((26, -74.5), (15.5, -68.2), (6, -65.2), (0, -66.6))  # corner to centre
LIP_OUTER_LOWER = ((26, -74.5), (15.5, -82.3), (7, -85.6), (0, -86.3))
LIP_INNER_UPPER = ((22.5, -74.4), (8, -74.0), (0, -74.3))
LIP_INNER_LOWER = ((22.5, -74.4), (8, -74.05), (0, -74.35))


def through(points, steps):
    """Returns a curve through ``points`` (K, 2) with decreasing or increasing x: ``steps`` samples a segment, both ends
    included.
    """
    from scipy.interpolate import CubicSpline

    points = np.asarray(points, np.float64)
    u = np.arange(len(points), dtype=np.float64)
    fine = np.linspace(0, len(points) - 1, (len(points) - 1) * steps + 1)
    return CubicSpline(u, points)(fine)


def mirrored_arc(half, steps):
    """Returns an arc from the right corner over the centre to the left corner, given its left half (corner first)."""
    half = np.asarray(half, np.float64)
    whole = np.concatenate([half * [-1, 1], half[-2::-1]])
    return through(whole, steps)


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Returns which points (N, 2) lie inside a polygon (M, 2): a ray to the right crosses it an odd number of times."""
    x, y = points[:, :1], points[:, 1:]
    a, b = polygon, np.roll(polygon, -1, axis=0)
    crosses = (a[None, :, 1] > y) != (b[None, :, 1] > y)
    rise = np.where(a[:, 1] == b[:, 1], 1e-9, b[:, 1] - a[:, 1])
    at = a[None, :, 0] + (y - a[None, :, 1]) / rise * (b[None, :, 0] - a[None, :, 0])
    return (crosses & (x < at)).sum(1) % 2 == 1
