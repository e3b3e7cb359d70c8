"""The embedded head's joints: where they are, what follows them, and how lids follow the eyes.

All arguments named like a field of procedural.Parts are as there (N vertices, millimetres).
"""

import numpy as np

from models.face import surface
from models.face.model import JOINT_NAMES
from models.face.surface import EYE_X, EYE_Y, EYE_Z, MOUTH_Y, bump, smoothstep

# Where the joints are in the mean head (mm). The jaw's is the centre about which opening turns the chin: below the
# hinge, because the condyle slides forward as the mouth opens.
JOINTS = {
    "neck": (0.0, -95.0, -30.0),
    "jaw": (0.0, -30.0, -2.0),
    "eye_left": (EYE_X, EYE_Y, EYE_Z),
    "eye_right": (-EYE_X, EYE_Y, EYE_Z),
}
RANGES = {
    "jaw_x": (-0.05, 0.40),
    "jaw_y": (-0.12, 0.12),
    "jaw_z": (-0.08, 0.08),
    "gaze_x": (-0.6, 0.6),
    "gaze_y": (-0.5, 0.5),
}
# Lid margins at a gaze of LID_GAZE radians up and down: mm of the upper lid and of the lower one.
LID_GAZE = 0.35
# How far (mm a radian) the mouth's corners come inward with an opening jaw.
CORNER_PULL = 11.0
UPPER_LID, LOWER_LID = (2.2, -3.7), (0.6, -0.9)


def jaw_weight(xyz, part, side, lip, rest):
    """Returns how much each vertex follows the lower jaw, 0..1: the lower lip fully, the corners by 0.42, the upper lip
    hardly.
    """
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    corner = 0.42
    t = np.clip(x / (26 - 3.5 * np.clip(lip, 0, 1)), 0, 1) ** 2.3
    upper, lower = corner * t, 1 - (1 - corner) * t
    wide = np.clip(x / 26 - 1, 0, 1.6)
    above = upper * np.exp(-((np.maximum(y - MOUTH_Y, 0) / (13 + 14 * wide)) ** 2))
    below = lower + (1 - lower) * smoothstep(MOUTH_Y - y, 0, 24)
    skin = np.where(y > MOUTH_Y, above, below) * smoothstep(xyz[:, 2], -20, 30)
    weight = np.where(lip >= -0.3, np.where(side > 0, upper, np.where(side < 0, lower, corner)), skin)
    weight = np.where(part == "teeth", (side < 0) * 1.0, weight)
    weight = np.where(part == "tongue", 0.85, weight)
    weight = np.where((part == "mouth") & (lip >= 2.5), np.where(side < 0, 0.85 * weight, weight), weight)
    return np.where(np.isin(part, ("neck", "ear", "eyeball", "brow", "lash")), 0.0, weight)


def skin_weights(xyz, part, side, eye, lid, lip, rest, labels, neck_label):
    """Returns the skin weights (N, 4) of the joints in the order of JOINT_NAMES.

    Args:
      labels: (N,) classes.
      neck_label: the class of the neck, which passes the head's motion on to the shoulders.
    """
    head = np.where(labels == neck_label, follow_head(xyz[:, 1]), 1.0)
    jaw = jaw_weight(xyz, part, side, lip, rest) * head
    ball = (part == "eyeball") * lid
    left, right = ball * (eye > 0), ball * (eye < 0)
    return np.stack([head - jaw - left - right, jaw, left, right], -1)


def follow_head(y):
    """Returns how much neck and torso points at height y (mm) move with the head: 1 above the chin's height, 0 at the
    collar.
    """
    return 1 - smoothstep(-y, 95, 165)


def joint_regressor(xyz, part, eye, lid):
    """Returns (4, N): each joint as the smallest affine combination of vertices round it that meets its place."""
    regressor = np.zeros((len(JOINT_NAMES), len(xyz)))
    skin = part == "skin"
    side = np.abs(xyz[:, 0])
    near = {
        "neck": (part == "neck") & (xyz[:, 1] > -160),
        "jaw": skin & (np.hypot(xyz[:, 1] + 22, xyz[:, 2] - 5) < 20) & (side > 50),
        "eye_left": (part == "eyeball") & (eye > 0) & (lid > 0),
        "eye_right": (part == "eyeball") & (eye < 0) & (lid > 0),
    }
    for j, name in enumerate(JOINT_NAMES):
        ids = np.where(near[name])[0]
        system = np.concatenate([np.ones((1, len(ids))), xyz[ids].T])
        regressor[j, ids] = np.linalg.pinv(system) @ np.array([1.0, *JOINTS[name]])
    return regressor


def pose_basis(xyz, part, side, eye, lid, rest):
    """Returns the pose correctives (N, 3, 36) in mm: lids follow the eyes up and down, the mouth's corners come inward
    as the jaw opens (sin(jaw_x) stands at (2, 1) of its matrix).

    With the eyes turned by gaze_y about x, their rotation matrix holds sin(gaze_y) at (1, 2) and cos(gaze_y) at (1, 1):
    one gives what differs between up and down, the other what is alike.
    """
    basis = np.zeros((len(xyz), 3, 9 * len(JOINT_NAMES)))
    odd, even = np.sin(LID_GAZE), np.cos(LID_GAZE) - 1
    moving = np.isin(part, ("skin", "lash"))
    arch = arch_of_eye(np.abs(rest[:, 0]))
    upper, lower = lid * (side > 0) * moving * arch**0.5, lid * (side < 0) * moving * arch
    up, down = (slide(rest, UPPER_LID[k] * upper + LOWER_LID[k] * lower, eye) for k in range(2))
    for joint, mine in ((2, eye > 0), (3, eye < 0)):
        for axis, (a, b) in enumerate(zip(up, down, strict=True), 1):
            basis[:, axis, 9 * joint + 5] = mine * (a - b) / (2 * odd)
            basis[:, axis, 9 * joint + 4] = mine * (a + b) / (2 * even)
    inward = CORNER_PULL * np.tanh(rest[:, 0] / 6) * bump(np.abs(rest[:, 0]), rest[:, 1], 24, -75, 11, 11)
    skin = np.where(part == "mouth", 1.0, (part == "skin") * smoothstep(xyz[:, 2], 15, 50))
    basis[:, 0, 9 + 7] = -inward * skin
    return basis


def arch_of_eye(ax):
    """Returns 1 in the eye's middle falling to 0 at its corners, for |x| in mm."""
    return np.clip(1 - ((ax - 30.7) / 14.1) ** 2, 0, 1)


def lid_travel(ax):
    """Returns how far (mm, y) the margins of the upper and the lower lid go at |x| in a blink, to meet."""
    upper, lower = surface.through(surface.EYE_UPPER, 5)[::-1], surface.through(surface.EYE_LOWER, 5)[::-1]
    gap = np.maximum(np.interp(ax, upper[:, 0], upper[:, 1]) - np.interp(ax, lower[:, 0], lower[:, 1]), 0)
    below = np.minimum(0.6 * arch_of_eye(ax), gap)
    return below - gap, below


def slide(rest, dy, eye):
    """Returns the lid motion (dy, dz): up or down by ``dy`` and along the sphere that the lid rests on."""
    x = np.abs(rest[:, 0]) - EYE_X

    def sphere(y):
        return np.sqrt(np.maximum((surface.LID_RADIUS + 0.25) ** 2 - x**2 - (y - EYE_Y) ** 2, 1))

    return dy, np.where(eye != 0, sphere(rest[:, 1] + dy) - sphere(rest[:, 1]), 0)
