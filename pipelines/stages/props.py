"""What may hide a face of the embedded corpus: a hand that comes up to it, a microphone before it.

Meshes are in metres in camera-like axes (x right, y down, z away from the camera) about their own origin.
"""

import dataclasses

import numpy as np

from models.face.procedural import grid_faces
from models.signals import VIDEO_FPS
from pipelines.stages.shading import PLAIN, SKIN


@dataclasses.dataclass(frozen=True, eq=False)
class Prop:
    """A mesh with its way through a clip of T frames.

    Attributes: vertices (V, 3) float32; faces (F, 3) int32; colors (V, 3) float32 linear; gloss, ao, weight (V,)
    float32; material (V,) uint8; two_sided, groups (F,) uint8; turns (T, 3, 3) and shifts (T, 3) float32, camera axes;
    shown (T,) bool.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    gloss: np.ndarray
    ao: np.ndarray
    weight: np.ndarray
    material: np.ndarray
    two_sided: np.ndarray
    groups: np.ndarray
    turns: np.ndarray
    shifts: np.ndarray
    shown: np.ndarray


class _Mesh:
    def __init__(self):
        self.points, self.faces, self.colors, self.gloss, self.material, self.count = [], [], [], [], [], 0

    def add(self, points, faces, color, gloss, material):
        n = len(points)
        self.points.append(points)
        self.faces.append(faces + self.count)
        self.colors.append(np.broadcast_to(np.asarray(color) ** 2, (n, 3)))
        self.gloss.append(np.full(n, gloss))
        self.material.append(np.full(n, material, np.uint8))
        self.count += n

    def tube(self, path, radius, color, gloss=0.08, material=SKIN, flat=1.0, sides=14):
        """Adds a tube along ``path`` (N, 3) mm with ``radius`` (N,) mm, ``flat`` times as thick along z."""
        path, radius = np.asarray(path, float), np.asarray(radius, float)
        ahead = np.gradient(path, axis=0)
        ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
        side = np.cross(ahead, [0, 0, 1.0])
        side /= np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-6)
        out = np.cross(ahead, side)
        turn = np.linspace(0, 2 * np.pi, sides + 1)[:-1]
        ring = np.cos(turn)[:, None] * side[:, None] + flat * np.sin(turn)[:, None] * out[:, None]
        points = (path[:, None] + radius[:, None, None] * ring).reshape(-1, 3)
        self.add(points, grid_faces(len(path), sides, wrap=True), color, gloss, material)

    def prop(self, turns, shifts, shown) -> Prop:
        faces = np.concatenate(self.faces)
        points = np.concatenate(self.points) / 1000
        n, f = len(points), len(faces)
        return Prop(
            vertices=points.astype(np.float32),
            faces=faces.astype(np.int32),
            colors=np.concatenate(self.colors).astype(np.float32),
            gloss=np.concatenate(self.gloss).astype(np.float32),
            ao=np.full(n, 0.85, np.float32),
            weight=np.zeros(n, np.float32),
            material=np.concatenate(self.material),
            two_sided=np.ones(f, np.uint8),
            groups=np.zeros(f, np.uint8),
            turns=np.asarray(turns, np.float32),
            shifts=np.asarray(shifts, np.float32),
            shown=np.asarray(shown, bool),
        )


def _finger(base, direction, length, radius, curl):
    """Returns a finger's path and radii: three joints bend it toward +z (the palm) by ``curl`` radians each."""
    path, radii = [np.array(base, float)], [radius]
    along, bend = np.array([*direction, 0.0]), 0.0
    for k, part in enumerate((0.45, 0.30, 0.25)):
        bend += curl * (0.6 if k == 0 else 1.0)
        step = along * np.cos(bend) + np.array([0, 0, 1.0]) * np.sin(bend)
        for _ in range(4):
            path.append(path[-1] + step * length * part / 4)
            radii.append(radius * (1 - 0.06 * len(path) / 4))
    tip = path[-1] - path[-2]
    tip /= np.linalg.norm(tip)
    for ahead, narrow in ((0.45, 0.88), (0.8, 0.6), (1.0, 0.05)):
        path.append(path[12] + tip * radius * ahead)
        radii.append(radii[12] * narrow)
    return np.array(path), np.array(radii)


def _hand_mesh(skin, sleeve, curl, spread):
    """A right hand seen from its back: fingers up (-y), wrist down, forearm in a sleeve; the origin is in the palm."""
    mesh = _Mesh()
    along = np.linspace(-1, 1, 13)
    bulge = np.sqrt(np.maximum(1 - along**6, 0))
    mesh.tube(
        np.stack([2 * along, 48 * along, 0 * along], -1),
        np.maximum((40 - 7 * smooth(along)) * bulge, 0.5),
        skin,
        flat=0.36,
        sides=20,
    )
    for k, (x, y, length, r) in enumerate(
        ((-29, -40, 70, 8.6), (-10, -46, 80, 9.0), (10, -44, 74, 8.7), (28, -36, 60, 7.6))
    ):
        lean = (k - 1.5) * spread
        mesh.tube(*_finger((x, y, 0), (np.sin(lean), -np.cos(lean)), length, r, curl), skin)
    lean = -0.75 - 0.3 * spread
    mesh.tube(*_finger((-32, 14, 5), (np.sin(lean), -np.cos(lean)), 62, 10.0, 0.5 * curl), skin)
    arm = np.linspace(38, 110, 8)
    mesh.tube(np.stack([0 * arm, arm, 0 * arm], -1), np.interp(arm, [38, 60, 110], [29, 27, 31]), skin, flat=0.8)
    cuff = np.linspace(78, 420, 14)
    mesh.tube(
        np.stack([0 * cuff, cuff, 0 * cuff], -1),
        np.interp(cuff, [78, 100, 420], [36, 39, 58]),
        sleeve,
        0.02,
        PLAIN,
        flat=0.85,
        sides=20,
    )
    return mesh


def smooth(x):
    """Returns 0..1 over -1..1 with flat ends."""
    t = np.clip((x + 1) / 2, 0, 1)
    return t * t * (3 - 2 * t)


def _turn_z(angle):
    c, s = np.cos(angle), np.sin(angle)
    zero, one = np.zeros_like(c), np.ones_like(c)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(*np.shape(angle), 3, 3)


def draw_hand(rng: np.random.Generator, pose: np.ndarray, skin, sleeve) -> tuple[Prop, dict]:
    """Draws a hand that comes up to the face, stays and goes.

    Args:
      rng: decides where, when and how long.
      pose: (T, 6), the head's.
      skin, sleeve: (3,) colours.

    Returns:
      the hand; {start, end, place}: frames and what it covers.
    """
    frames = len(pose)
    length = int(min(frames - 8, rng.uniform(1.0, 2.2) * VIDEO_FPS))
    start = int(rng.integers(4, max(5, frames - length - 3)))
    place, (x, y) = (
        ("mouth", (rng.uniform(-10, 10), 78)),
        ("chin", (rng.uniform(-15, 15), 112)),
        ("cheek", (rng.choice([-1, 1]) * rng.uniform(45, 60), 40)),
        ("brow", (rng.choice([-1, 1]) * rng.uniform(15, 40), -25)),
    )[int(rng.integers(4))]
    mesh = _hand_mesh(skin, sleeve, curl=rng.uniform(0.12, 0.45), spread=rng.uniform(0.03, 0.16))
    t = np.arange(frames) - start
    rise = np.clip(np.minimum(t, length - t) / (0.3 * VIDEO_FPS), 0, 1)
    rise = rise * rise * (3 - 2 * rise)
    lean = rng.choice([-1, 1]) * rng.uniform(0.15, 0.6)
    target = np.array([x - 30 * np.sin(lean), y + 25, -118.0]) / 1000
    down = np.array([-0.45 * np.sin(lean), 0.42, 0.02])
    wobble = 0.003 * np.stack([np.sin(t * 0.23), np.sin(t * 0.31 + 1), 0 * t], -1)
    shifts = pose[:, 3:] + target + (1 - rise)[:, None] * down + wobble
    turns = _turn_z(lean + 0.25 * (1 - rise) + 0.03 * np.sin(t * 0.2))
    return mesh.prop(turns, shifts, rise > 0), {"start": start, "end": start + length, "place": place}


def draw_microphone(rng: np.random.Generator, pose: np.ndarray, rest: np.ndarray, skin, sleeve) -> tuple[Prop, dict]:
    """Draws a microphone before the mouth for the whole clip: held in a hand, or on an arm from the side.

    Args:
      rng: decides its form and place.
      pose, rest: (T, 6), the head's, and what it moves about.
      skin, sleeve: (3,) colours.

    Returns:
      the microphone; {start, end, place}.
    """
    frames = len(pose)
    mesh = _Mesh()
    held = rng.random() < 0.6
    dark, metal = np.array([0.12, 0.12, 0.13]) * rng.uniform(0.7, 2.0), np.full(3, rng.uniform(0.25, 0.6))
    if held:
        ball = np.linspace(-1, 1, 15)
        mesh.tube(
            np.stack([0 * ball, 27 * ball, 0 * ball], -1),
            np.maximum(27 * np.sqrt(1 - ball**2), 0.3),
            metal,
            0.35,
            PLAIN,
            sides=22,
        )
        body = np.linspace(18, 190, 12)
        mesh.tube(
            np.stack([0 * body, body, 0 * body], -1),
            np.interp(body, [18, 40, 190], [22, 21, 14]),
            dark,
            0.3,
            PLAIN,
            sides=18,
        )
        for k in range(4):  # fingers round the handle
            y, turn = 95 + 19 * k, np.linspace(-2.6, 1.5, 14)
            path = np.stack([24 * np.sin(turn), np.full(14, y) + 4 * turn, -24 * np.cos(turn)], -1)
            mesh.tube(path, np.full(14, 9.2), skin)
        palm = np.linspace(-1, 1, 9)
        mesh.tube(
            np.stack([20 + 0 * palm, 125 + 46 * palm, 14 + 0 * palm], -1),
            np.maximum(24 * np.sqrt(1 - palm**4), 0.5),
            skin,
        )
        arm = np.linspace(0, 1, 10)
        mesh.tube(
            np.stack([26 + 60 * arm, 160 + 300 * arm, 16 + 10 * arm], -1), 28 + 22 * arm, sleeve, 0.02, PLAIN, sides=18
        )
        offset = np.array([rng.uniform(-15, 15), rng.uniform(92, 118), -rng.uniform(105, 125)])
        lean = rng.uniform(-0.35, 0.35)
    else:
        along = np.linspace(0, 150, 12)
        wide = np.interp(along, [0, 6, 60, 70, 150], [18, 30, 30, 26, 26])
        mesh.tube(np.stack([0 * along, along, 0 * along], -1), wide, dark, 0.25, PLAIN, sides=22)
        arm = np.linspace(0, 1, 10)
        mesh.tube(np.stack([0 * arm, 140 + 500 * arm, 30 * arm], -1), np.full(10, 9.0), dark, 0.3, PLAIN)
        side = rng.choice([-1, 1])
        offset = np.array([side * rng.uniform(22, 45), rng.uniform(80, 112), -rng.uniform(105, 135)])
        lean = -side * rng.uniform(0.9, 1.35)
    t = np.arange(frames)
    follow = 0.6 if held else 0.0
    rest = rest[:, 3:]
    sway = 0.004 * np.stack([np.sin(t * 0.11), np.sin(t * 0.17 + 2), 0 * t], -1) if held else 0
    shifts = rest + follow * (pose[:, 3:] - rest) + offset / 1000 + sway
    turns = _turn_z(np.full(frames, lean) + (0.02 * np.sin(t * 0.13) if held else 0))
    where = {"start": 0, "end": frames, "place": "held in a hand" if held else "on an arm"}
    return mesh.prop(turns, shifts, np.ones(frames, bool)), where
