"""Camera, light and backdrop of a rendered clip, and the drawing of its frames.

Array letters: T frames, V vertices, S frame side in pixels.
"""

import dataclasses

import numpy as np

from models.face.camera import DEFAULT_FOCAL, rotation_matrix
from models.face.model import FaceModel, landmarks68
from pipelines.stages.character import Character

# Frames are drawn this much larger and averaged (render.halve).
SUPERSAMPLE = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Attributes: camera (3,) focal, cx, cy in frame pixels; rest (6,) head pose about which the head moves; light (3,)
    unit direction to
    the light, camera axes; light_color (3,); ambient; backdrop (S, S, 3) uint8; attributes for the description."""

    camera: np.ndarray
    rest: np.ndarray
    light: np.ndarray
    light_color: np.ndarray
    ambient: float
    backdrop: np.ndarray
    attributes: dict


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draws framing, light and backdrop of a clip with frames of ``size`` pixels."""
    camera = np.array([DEFAULT_FOCAL * size / 256, size / 2, size / 2], np.float32)
    millimetre = rng.uniform(0.90, 1.20) * size / 512  # pixels a millimetre at the head
    distance = camera[0] / millimetre / 1000
    x = rng.uniform(-0.05, 0.05) * size / millimetre / 1000
    y = (rng.uniform(0.40, 0.46) - 0.5) * size / millimetre / 1000
    turn = np.radians(rng.uniform((-1.5, -6, -1.5), (1.5, 6, 1.5)))
    side = (-1, 1)[int(rng.integers(2))]
    light = np.array([side * rng.uniform(0.15, 0.65), -rng.uniform(0.35, 0.75), -rng.uniform(0.7, 1.0)])
    warmth = rng.uniform(-0.06, 0.06)
    level = rng.uniform(0.62, 0.78)
    backdrop, kind = draw_backdrop(rng, size)
    return Scene(
        camera=camera,
        rest=np.array([*turn, x, y, distance], np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        light_color=np.array([level * (1 + warmth), level, level * (1 - warmth)], np.float32),
        ambient=float(rng.uniform(0.26, 0.38)),
        backdrop=backdrop,
        attributes={"background": kind, "light_from": "left" if side < 0 else "right"},
    )


def draw_backdrop(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """Returns a still backdrop (S, S, 3) uint8 and its kind: plain, gradient, or a blurred room."""
    kind = ("plain", "gradient", "blurred room")[int(rng.integers(3))]
    base = rng.uniform(0.25, 0.80) * (1 + rng.uniform(-0.18, 0.18, 3))
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.ones((size, size, 3)) * base
    if kind == "gradient":
        other = rng.uniform(0.15, 0.85) * (1 + rng.uniform(-0.2, 0.2, 3))
        angle = rng.uniform(0, np.pi)
        t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
        image = image * (1 - t) + other * t
    elif kind == "blurred room":
        for _ in range(int(rng.integers(6, 12))):
            cx, cy, w, h = rng.uniform((0, 0, 0.08, 0.10), (1, 0.9, 0.30, 0.45))
            soft = rng.uniform(0.010, 0.022)
            inside = 1 / (1 + np.exp(-(w / 2 - np.abs(x - cx)) / soft)) / (1 + np.exp(-(h / 2 - np.abs(y - cy)) / soft))
            color = rng.uniform(0.15, 0.9) * (1 + rng.uniform(-0.25, 0.25, 3))
            image = image + (0.7 * inside)[..., None] * (color - image)
    image = image * (1 - 0.25 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    dither = rng.uniform(-0.5, 0.5, (size, size, 1))  # against banding in smooth areas
    return np.clip(image * 255 + dither, 0, 255).astype(np.uint8), kind


def compose_poses(rest: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Returns head poses (T, 6): the motion's rotation applied after the rest pose's, the translations added."""
    from models.face.camera import pose_from_rotation

    base = rotation_matrix(rest[:3].astype(np.float64))
    turns = rotation_matrix(motion[:, :3].astype(np.float64)) @ base
    return np.stack([pose_from_rotation(r, rest[3:] + m[3:]) for r, m in zip(turns, motion, strict=True)])


class Stage:
    """Draws one character in one scene, frame after frame."""

    def __init__(self, model: FaceModel, character: Character, scene: Scene):
        self.model, self.character, self.scene = model, character, scene
        size = len(scene.backdrop) * SUPERSAMPLE
        self.backdrop = np.repeat(np.repeat(scene.backdrop, SUPERSAMPLE, 0), SUPERSAMPLE, 1)
        self.color = np.empty((size, size, 3), np.uint8)
        self.label, self.depth = np.empty((size, size), np.uint8), np.empty((size, size), np.float32)
        # The torso stands still; it turns a little with the rest pose.
        self.torso = rotation_matrix(scene.rest[:3] * np.array([0.3, 0.5, 0.3], np.float32))

    def camera_points(self, expression: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Returns all vertices in camera axes (V, 3) metres for one frame's expression (Ne,) and head pose (6,)."""
        from models.face.render import blend_rows, motion, skin_to_camera

        head = rotation_matrix(np.asarray(pose[:3], np.float32))
        shift = np.asarray(pose[3:], np.float32)
        rest = self.scene.rest[3:]
        still = rest + np.float32(0.35) * (shift - rest)  # shoulders sway a little with the head
        person = self.character
        coefficients, transforms = motion(self.model, person.shape, expression)
        return skin_to_camera(
            person.vertices,
            blend_rows(self.model),
            coefficients,
            self.model.skin_weights,
            transforms,
            person.follow,
            head,
            shift,
            self.torso,
            still,
        )

    def draw(self, expression: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws a frame.

        Args:
          expression: (Ne,) float32.
          pose: (6,) float32.

        Returns:
          image (S, S, 3) uint8; labels (S/2, S/2) uint8; landmarks (68, 2) float32 in frame pixels.
        """
        from models.face.render import halve, rasterize, shade, vertex_normals

        points = self.camera_points(expression, pose)
        person, scene = self.character, self.scene
        front, back = shade(
            vertex_normals(points, person.faces),
            person.colors,
            person.gloss,
            scene.light,
            scene.light_color,
            scene.ambient,
        )
        focal, centre = scene.camera[0], scene.camera[1:]
        pixels = points[:, :2] / points[:, 2:] * focal + centre
        marks = landmarks68(self.model, points)
        landmarks = marks[:, :2] / marks[:, 2:] * focal + centre
        drawn = np.concatenate([pixels * SUPERSAMPLE, points[:, 2:]], -1)
        self.color[:] = self.backdrop
        self.label[:] = 0
        self.depth[:] = np.inf
        rasterize(drawn, person.faces, front, back, person.labels, person.two_sided, self.color, self.label, self.depth)
        step = 2 * SUPERSAMPLE
        return halve(self.color), self.label[step // 2 :: step, step // 2 :: step].copy(), landmarks
