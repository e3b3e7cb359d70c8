"""Identity and expression directions of the procedural head: what one unit of each does to every vertex, in
millimetres.

Each direction is a smooth field over the head, written from anatomy (the jaw turns about its joint, lids slide over the
eyeball, lips are a ring) and from the spread of adult faces (one identity unit is about one standard deviation).
"""

import numpy as np

from models.face import surface
from models.face.rig import arch_of_eye, jaw_weight, lid_travel, slide
from models.face.surface import EYE_X, EYE_Y, EYE_Z, MOUTH_Y, both, bump, smoothstep

# Directions that go both ways from 0; the others are actions, from 0 to 1.
TWO_WAY = ("mouth_side",)


def _ellipse(x, y, cx, cy, inner, outer):
    """Returns 1 inside the ellipse with half axes ``inner`` about (cx, cy), 0 outside ``outer``."""
    r_in = np.hypot((x - cx) / inner[0], (y - cy) / inner[1])
    r_out = np.hypot((x - cx) / outer[0], (y - cy) / outer[1])
    t = np.clip((r_in - 1) / np.maximum(r_in - 1 + 1 - r_out, 1e-6), 0, 1)
    t = np.where(r_in <= 1, 0, np.where(r_out >= 1, 1, t))
    return 1 - t * t * (3 - 2 * t)


def _stack(shape, fields):
    names = tuple(fields)
    basis = np.zeros((*shape, len(names)))
    for k, name in enumerate(names):
        for axis, value in enumerate(fields[name]):
            basis[:, axis, k] = value
    return names, basis


def identity_fields(xyz, part, side, eye, lid, lip, rest):
    """Returns identity names and basis (V, 3, Ns) in mm per unit; arguments as in procedural.Parts."""
    ball = part == "eyeball"
    # Eyeballs move as rigid bodies: their fields are read at the eye's centre.
    x = np.where(ball, eye * EYE_X, xyz[:, 0])
    y = np.where(ball, EYE_Y, xyz[:, 1])
    z = np.where(ball, EYE_Z + 10, xyz[:, 2])
    ax, sx = np.abs(x), np.tanh(x / 4)
    head = part != "neck"
    front = smoothstep(z, 15, 50) * head
    eyes = _ellipse(ax, y, EYE_X, EYE_Y, (19, 13), (32, 25)) * front
    brows = _ellipse(ax, y, 35, 22, (26, 9), (42, 26)) * front
    mouth = _ellipse(x, y, 0, -76, (31, 15), (52, 34)) * front
    nose = smoothstep(surface.nose_height(x, y), 0, 8) * (part == "skin") * front
    lower_nose = nose * smoothstep(-y, 5, 40)
    tip = bump(x, y, 0, -37, 9, 9) * (part == "skin") * front
    jaw = smoothstep(-y, 25, 80) * head
    ear = part == "ear"
    ring = np.where((lip >= -0.3) & (lip <= 1), np.clip(1 - np.maximum(lip, 0), 0, 1), 0)
    arch = np.clip(1 - (x / 25.5) ** 2, 0, 1)
    near_lips = np.where((lip < -0.3) & (part == "skin"), bump(x, y, 0, -76, 22, 9) * front, 0)
    upper_ring = (ring * (side > 0) + near_lips * smoothstep(y, MOUTH_Y - 2, MOUTH_Y + 2)) * arch
    lower_ring = (ring * (side < 0) + near_lips * smoothstep(-y, -MOUTH_Y - 2, -MOUTH_Y + 2)) * arch
    lids = lid * side * np.isin(part, ("skin", "lash")) * arch_of_eye(ax) ** 0.5
    f = {
        "face_width": (0.034 * x,),
        "face_height": (0, 0.032 * y),
        "face_depth": (0, 0, 0.04 * z),
        "forehead_height": (0, 4.5 * smoothstep(y, 10, 110)),
        "chin_length": (0, -3.8 * smoothstep(-y, 72, 110) * head),
        "jaw_width": (0.06 * x * jaw,),
        "chin_width": (0.13 * x * smoothstep(-y, 84, 106) * head,),
        "chin_forward": (0, 0, 3.2 * bump(x, y, 0, -103, 24, 13) * front),
        "cheekbone_width": (2.6 * sx * smoothstep(ax, 32, 62) * bump(0, y, 0, -18, 1, 22) * head,),
        "cheek_fullness": (2.2 * sx * both(x, y, 56, -52, 20, 20) * head, 0, 2.6 * both(x, y, 44, -48, 17, 18) * front),
        "forehead_slope": (0, 0, -4.0 * smoothstep(y, 25, 100) * front),
        "brow_ridge": (0, 0, 1.6 * both(x, y, 28, 21, 18, 7) * front),
        "nose_length": (
            0,
            -2.8 * smoothstep(-y, 0, 42) * (1 - smoothstep(-y, 53, 64)) * bump(x, 0, 0, 0, 15, 1) * front,
        ),
        "nose_width": (0.17 * x * lower_nose,),
        "nose_forward": (0, 0, 2.6 * nose),
        "nose_bridge": (0, 0, 1.6 * bump(x, y, 0, -8, 8, 10) * front),
        "nose_tip_up": (0, 2.0 * tip, 0.6 * tip),
        "eye_distance": (1.7 * sx * eyes,),
        "eye_height": (0, 1.5 * np.maximum(eyes, 0.6 * brows)),
        "eye_width": (0.07 * (x - np.sign(x) * EYE_X) * eyes * ~ball,),
        "eye_opening": (0, 0.8 * lids),
        "eye_tilt": (0, 1.1 * (ax - EYE_X) / 15 * eyes * ~ball),
        "eye_depth": (0, 0, -1.4 * eyes),
        "brow_height": (0, 2.3 * brows),
        "brow_tilt": (0, 1.6 * (ax - 34) / 20 * brows),
        "brow_arch": (0, 1.5 * (0.5 - ((ax - 37) / 20) ** 2) * brows),
        "mouth_width": (0.075 * x * mouth,),
        "mouth_height": (0, 2.2 * mouth),
        "upper_lip": (0, 1.3 * upper_ring, 0.7 * upper_ring),
        "lower_lip": (0, -1.4 * lower_ring, 0.8 * lower_ring),
        "mouth_forward": (0, 0, 1.9 * mouth),
        "mouth_corners": (0, 1.1 * (ax / 26) ** 2 * mouth * (ax < 40)),
        "ear_size": tuple(0.1 * c * ear for c in (xyz[:, 0] - np.sign(x) * 76.5, xyz[:, 1] + 14, xyz[:, 2] + 12)),
        "ear_out": (0.22 * np.sign(x) * np.maximum(0, 2 - xyz[:, 2]) * ear,),
        "neck_width": (0.08 * x * ~head, 0, 0.05 * (z + 20) * ~head),
        "jaw_side": (1.6 * smoothstep(-y, 40, 108) * head,),
        "mouth_slant": (0, 0.9 * x / 26 * mouth),
        "eye_slant": (0, 0.7 * np.sign(x) * np.maximum(eyes, brows)),
    }
    return _stack(xyz.shape, f)


def expression_fields(xyz, part, side, eye, lid, lip, rest):
    """Returns expression names and basis (V, 3, Ne) in mm per unit; arguments as in procedural.Parts."""
    x, y, z = xyz.T
    rx, ry = rest.T
    ax = np.abs(rx)
    skin = np.isin(part, ("skin", "mouth", "brow", "lash"))
    front = smoothstep(z, 15, 50) * skin
    front = np.where(part == "mouth", 1.0, front)
    inward = np.where(
        lip > 1, np.clip((4 - lip) / 3, 0, 1) ** 1.5, 1.0
    )  # the mouth's inside follows the lips less and less
    lips = _ellipse(rx, ry, 0, -75.5, (29, 13), (50, 36)) * front * inward
    t = np.clip(ax / (26 - 4 * np.clip(lip, 0, 1)), 0, 1)
    arch = np.where(lip >= -0.3, 1 - t**2, np.clip(1 - (ax / 34) ** 2, 0, 1))
    up = np.where(lip >= -0.3, side > 0, ry > MOUTH_Y) * 1.0
    down = np.where(lip >= -0.3, side < 0, ry <= MOUTH_Y) * 1.0
    upper_lip, lower_lip = lips * arch * up, lips * arch * down
    corners = (both(rx, ry, 26, -74.5, 9, 11) * front) * inward
    jaw = jaw_weight(xyz, part, side, lip, rest)
    brows = _ellipse(ax, ry, 35, 23, (27, 9), (45, 38)) * front * (part != "lash") * smoothstep(ry, 1, 17)
    inner, outer = smoothstep(-ax, -38, -10), smoothstep(ax, 28, 54)
    cheeks = both(rx, ry, 40, -40, 16, 16) * front * (lip < -0.3)
    nose = smoothstep(surface.nose_height(rx, ry), 0, 8) * front * (part == "skin")
    wings = both(rx, ry, 15, -45, 6, 6) * front * (part == "skin")
    sx = np.tanh(rx / 4)

    close, lift = lid_travel(ax)
    arch_eye = arch_of_eye(ax)
    lid_up, lid_low = lid * (side > 0) * skin, lid * (side < 0) * skin
    left, right = (eye > 0) * 1.0, (eye < 0) * 1.0
    blink_y, blink_z = slide(rest, lid_up * close + lid_low * lift, eye)
    small_y, small_z = slide(rest, lid_up * 0.3 * close + lid_low * 1.8 * arch_eye, eye)
    f = {
        "jaw_forward": (0, 0, 5.0 * jaw),
        "lip_round": (-0.36 * rx * lips, -0.12 * (ry - MOUTH_Y) * lips, 6.5 * lips * (1 - 0.35 * t)),
        "lip_funnel": (-0.14 * rx * lips, 3.6 * (upper_lip - lower_lip), 4.5 * lips),
        "lip_spread": (0.19 * rx * lips, -0.10 * (ry - MOUTH_Y) * lips, -2.2 * lips * t**2),
        "lip_press": (0, -0.55 * (ry - MOUTH_Y) * np.exp(-(((ry - MOUTH_Y) / 13) ** 2)) * lips, -1.6 * lips * arch),
        "lip_close": (0, 7.5 * lower_lip - 1.5 * upper_lip, 0.5 * lips * arch),
        "upper_lip_raise": (0, 5.0 * upper_lip, 0.8 * upper_lip),
        "lower_lip_lower": (0, -5.5 * lower_lip, 0.8 * lower_lip),
        "smile": (5.0 * sx * corners, 6.0 * corners + 3.0 * cheeks, -3.0 * corners + 2.5 * cheeks),
        "frown": (1.5 * sx * corners, -6.0 * corners, -1.5 * corners),
        "mouth_side": (5.0 * lips,),
        "cheek_puff": (
            4.5 * sx * both(rx, ry, 48, -66, 16, 16) * front,
            0,
            5.0 * both(rx, ry, 42, -66, 16, 16) * front,
        ),
        "nose_wrinkle": (
            0,
            2.2 * nose * smoothstep(-ry, 5, 40) + 2.0 * wings + 1.2 * upper_lip - 1.5 * brows * inner,
            0.8 * nose,
        ),
        "brow_raise": (0, 6.5 * brows),
        "brow_lower": (-1.6 * sx * brows * inner, -4.2 * brows * (0.45 + 0.55 * inner), 0.8 * brows * inner),
        "brow_inner_raise": (0, 5.0 * brows * inner),
        "brow_outer_raise": (0, 4.5 * brows * outer),
        "blink_left": (0, blink_y * left, blink_z * left),
        "blink_right": (0, blink_y * right, blink_z * right),
        "squint": (0, small_y, small_z),
        "eyes_wide": (0, (lid_up * 2.2 - lid_low * 0.8) * arch_eye**0.5),
        "tongue_up": (0, 7.0 * (part == "tongue") * smoothstep(z, 52, 78)),
        "tongue_out": (0, 2.0 * (part == "tongue"), 16.0 * (part == "tongue") * smoothstep(z, 45, 78)),
    }
    return _stack(xyz.shape, f)
