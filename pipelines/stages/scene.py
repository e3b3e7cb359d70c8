"""Camera, light and place of a rendered clip, and the drawing of its frames.

Array letters: T frames, V vertices, F triangles, L lights, H, W frame height and width in pixels.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from models.face.camera import DEFAULT_FOCAL, rotation_matrix
from models.face.model import FaceModel, landmarks68
from pipelines.stages.backdrops import KINDS, draw_backdrop
from pipelines.stages.character import Character, light_frame
from pipelines.stages.props import Prop

# Millimetres at the head that the short side of a frame covers, and where on its height the eyes are, by framing.
FRAMINGS = {
    "close-up": ((330, 400), (0.44, 0.50)),
    "head and shoulders": ((420, 560), (0.40, 0.46)),
    "half body": ((590, 690), (0.30, 0.36)),
}
_SHADOW_TEXELS, _SHADOW_METRES = 144, 0.62
# Colour temperature (kelvin) -> linear colour of a light, about the colour of a black body against 6500 K.
_KELVIN = np.array([2700, 3500, 4500, 5500, 6500, 8000, 10000])
_KELVIN_COLORS = np.array(
    [
        (1.0, 0.70, 0.42),
        (1.0, 0.80, 0.60),
        (1.0, 0.90, 0.78),
        (1.0, 0.96, 0.91),
        (1.0, 1.0, 1.0),
        (0.88, 0.94, 1.0),
        (0.78, 0.88, 1.0),
    ]
)
# How far a camera's white balance follows the light.
_BALANCE = 0.55


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Attributes: camera (3,) focal, cx, cy in frame pixels; rest (6,) head pose about which the head moves; lights
    (L, 6) float32 unit direction to the light in camera axes and its linear colour, the first one casts shadows; sky,
    ground (3,) float32 light from above and below; backdrop (H, W, 3) uint8; attributes for the description.
    """

    camera: np.ndarray
    rest: np.ndarray
    lights: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    backdrop: np.ndarray
    attributes: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Performer:
    """A character with what it does: expression (T, Ne), pose (T, 6) of the head, rest (T, 6) pose of the shoulders."""

    character: Character
    expression: np.ndarray
    pose: np.ndarray
    rest: np.ndarray


def draw_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Draws framing, light and place of a clip with frames of ``width`` x ``height`` pixels."""
    short = min(width, height)
    framing = tuple(FRAMINGS)[int(rng.choice(3, p=[0.2, 0.55, 0.25]))]
    (near, far), (high, low) = FRAMINGS[framing]
    camera = np.array([DEFAULT_FOCAL * short / 256, width / 2, height / 2], np.float32)
    distance = camera[0] * rng.uniform(near, far) / short / 1000
    # A wide frame leaves room to stand beside its middle.
    off = rng.uniform(-1, 1) * (0.06 + 0.5 * max(0.0, width / height - 1) * 0.5)
    x = off * short / camera[0] * distance
    # In a tall frame the head stays where it would be in a square one about the frame's upper part.
    eyes = rng.uniform(high, low) * short + (height - short) * 0.30
    y = (eyes - height / 2) / camera[0] * distance
    turn = np.radians(rng.uniform((-2, -9, -1.5), (2, 9, 1.5)))
    backdrop, kind = draw_backdrop(rng, width, height)
    lights, sky, ground, attributes = draw_light(rng, backdrop)
    return Scene(
        camera=camera,
        rest=np.array([*turn, x, y, distance], np.float32),
        lights=lights,
        sky=sky,
        ground=ground,
        backdrop=backdrop,
        attributes={"framing": framing, "background": kind, "setting": KINDS[kind], **attributes},
    )


def kelvin_color(temperature: float) -> np.ndarray:
    """Returns the linear colour (3,) of a light of a colour temperature in kelvin."""
    return np.stack([np.interp(temperature, _KELVIN, _KELVIN_COLORS[:, c]) for c in range(3)])


def draw_light(rng: np.random.Generator, backdrop: np.ndarray):
    """Draws a key light, perhaps a fill and a rim, and the light of the surroundings.

    Returns:
      lights (L, 6), sky (3,), ground (3,), attributes (light, light_from, light_kelvin, exposure).
    """
    style = ("soft", "side", "overhead", "even", "rim")[int(rng.choice(5, p=[0.35, 0.2, 0.1, 0.2, 0.15]))]
    side = (-1, 1)[int(rng.integers(2))]
    azimuth, elevation, key, fill, around = {
        "soft": ((12, 45), (20, 45), 0.80, 0.18, 0.35),
        "side": ((52, 75), (10, 35), 1.05, 0.10, 0.28),
        "overhead": ((0, 25), (50, 62), 0.85, 0.10, 0.35),
        "even": ((5, 30), (20, 45), 0.38, 0.25, 0.62),
        "rim": ((25, 50), (15, 40), 0.70, 0.15, 0.28),
    }[style]

    def direction(a, e):
        a, e = np.radians(a), np.radians(e)
        return np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e)])

    temperature = float(np.exp(rng.uniform(np.log(3000), np.log(8500))))
    color = kelvin_color(temperature)
    lights = [(direction(side * rng.uniform(*azimuth), rng.uniform(*elevation)), key * color)]
    other = kelvin_color(float(rng.uniform(3500, 8500)))
    lights.append((direction(-side * rng.uniform(35, 70), rng.uniform(0, 25)), fill * rng.uniform(0.6, 1.4) * other))
    if style == "rim" or rng.random() < 0.25:
        behind = direction(-side * rng.uniform(125, 155), rng.uniform(15, 40))
        lights.append((behind, rng.uniform(0.8, 1.8) * kelvin_color(float(rng.uniform(3000, 10000)))))
    # The surroundings shine on the person with their own colour.
    scene = (backdrop[::8, ::8].reshape(-1, 3).astype(np.float64) / 255) ** 2
    mean = scene.mean(0) / max(scene.mean(), 1e-3)
    tint = 0.5 * color + 0.5 * np.clip(mean, 0.4, 1.8)
    sky, ground = around * tint, around * 0.55 * (0.6 * tint + 0.4 * np.array([1.0, 0.9, 0.8]))
    # Exposure: what a cheek that faces the camera gets; white balance: part of the light's own colour is taken out.
    front = np.array([0, 0, -1.0])
    reach = sum(np.maximum(0, (d @ front + 0.2) / 1.2) * c for d, c in lights) + (sky + ground) / 2
    exposure = float(rng.uniform(0.72, 1.12))
    balance = (reach / reach.mean()) ** -_BALANCE * exposure / reach.mean()
    rows = np.array([[*d, *(c * balance)] for d, c in lights], np.float32)
    sideways = abs(rows[0, 0]) > 0.3
    return (
        rows,
        (sky * balance).astype(np.float32),
        (ground * balance).astype(np.float32),
        {
            "light": style,
            "light_from": ("left" if side < 0 else "right") if sideways else "above" if rows[0, 1] < -0.7 else "front",
            "light_kelvin": round(temperature),
            "exposure": round(exposure, 3),
        },
    )


def compose_poses(rest: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Returns head poses (T, 6): the motion's rotation applied after the rest pose's, the translations added."""
    from models.face.camera import pose_from_rotation

    base = rotation_matrix(rest[:3].astype(np.float64))
    turns = rotation_matrix(motion[:, :3].astype(np.float64)) @ base
    return np.stack([pose_from_rotation(r, rest[3:] + m[3:]) for r, m in zip(turns, motion, strict=True)])


class _Mover:
    """Puts one performer's vertices into camera axes, frame after frame."""

    def __init__(self, model: FaceModel, performer: Performer):
        from models.face.render import blend_rows, motion

        person, rest = performer.character, np.asarray(performer.rest, np.float32)
        self.person, self.basis = person, blend_rows(model)
        self.weights = np.ascontiguousarray(model.skin_weights, np.float32)
        self.coefficients, self.transforms = motion(model, person.shape, performer.expression)
        pose = np.asarray(performer.pose, np.float32)
        self.turns, self.shifts = np.ascontiguousarray(rotation_matrix(pose[:, :3]), np.float32), pose[:, 3:].copy()
        # The torso stands still; it turns a little with the rest pose and sways a little with the head.
        self.torso = np.ascontiguousarray(rotation_matrix(rest[:, :3] * np.array([0.3, 0.5, 0.3], np.float32)))
        self.sway = rest[:, 3:] + np.float32(0.35) * (self.shifts - rest[:, 3:])

    def __call__(self, t: int) -> np.ndarray:
        from models.face.render import skin_to_camera

        return skin_to_camera(
            self.person.vertices,
            self.basis,
            self.coefficients[t],
            self.weights,
            self.transforms[t],
            self.person.follow,
            self.turns[t],
            self.shifts[t],
            self.torso[t],
            self.sway[t],
        )


class Stage:
    """Draws performers and props in one scene. The masks and landmarks are the first performer's: whatever hides that
    person (another one, a hand, a microphone) is background in the mask.
    """

    def __init__(self, model: FaceModel, scene: Scene, performers: Sequence[Performer], props: Sequence[Prop] = ()):
        self.model, self.scene, self.props = model, scene, props
        self.movers = [_Mover(model, p) for p in performers]
        people = [p.character for p in performers]
        meshes = [*people, *props]
        counts = [len(m.vertices) for m in meshes]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        ends = np.cumsum([len(m.faces) for m in meshes])
        # Per prop its triangles; those of people come first and are always drawn.
        self.spans = list(zip([0, *ends[:-1]], ends, strict=True))[len(people) :]
        self.own = len(people[0].faces)
        self.solid = int(ends[len(people) - 1])

        def join(name, dtype):
            return np.ascontiguousarray(np.concatenate([getattr(m, name) for m in meshes]), dtype)

        self.faces = np.concatenate([m.faces + s for m, s in zip(meshes, self.starts, strict=False)]).astype(np.int32)
        self.colors, self.gloss = join("colors", np.float32), join("gloss", np.float32)
        self.ao, self.weight = join("ao", np.float32), join("weight", np.float32)
        self.material, self.two_sided = join("material", np.uint8), join("two_sided", np.uint8)
        self.groups = np.concatenate(
            [(m.groups if k < len(people) else np.zeros(len(m.faces))) + 24 * k for k, m in enumerate(meshes)]
        ).astype(np.uint8)
        self.labels = np.zeros(self.starts[-1], np.uint8)
        self.labels[: counts[0]] = people[0].labels
        self.uv = np.zeros((len(self.faces), 3, 2), np.float32)
        self.texture = np.full(len(self.faces), 255, np.uint8)
        at = 0
        for k, person in enumerate(people):
            span = slice(at, at + len(person.faces))
            self.uv[span] = person.uv
            self.texture[span] = np.where(person.texture == 255, 255, person.texture + 4 * k)
            at = span.stop
        self.textures = np.concatenate([p.textures for p in people])
        self.sided = np.zeros(len(self.colors), np.uint8)
        self.sided[self.faces[self.two_sided == 1]] = 1
        height, width = scene.backdrop.shape[:2]
        size = len(self.colors)
        self.points, self.normals = np.zeros((size, 3), np.float32), np.zeros((size, 3), np.float32)
        self.seen, self.lit = np.zeros((size, 3), np.float32), np.ones(size, np.float32)
        self.front, self.back = np.zeros((size, 6), np.float32), np.zeros((size, 6), np.float32)
        self.ids = np.zeros((2 * height, 2 * width), np.int32)
        self.depth = np.empty((2 * height, 2 * width), np.float32)
        self.shadow = np.empty((_SHADOW_TEXELS, _SHADOW_TEXELS), np.float32)
        self.color = np.empty((height, width, 3), np.uint8)
        self.label = np.empty((height, width), np.uint8)

    def draw(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws frame ``t``.

        Returns:
          image (H, W, 3) uint8, reused by the next call; labels (H, W) uint8, reused too; landmarks (68, 2) float32
          in frame pixels; hidden (68,) bool, landmarks in front of which a prop or another person is.
        """
        from pipelines.stages import shading

        scene, points = self.scene, self.points
        for k, mover in enumerate(self.movers):
            points[self.starts[k] : self.starts[k + 1]] = mover(t)
        first = len(self.movers)
        shown = [k for k, prop in enumerate(self.props) if prop.shown[t]]
        for k in shown:
            prop = self.props[k]
            place = slice(self.starts[first + k], self.starts[first + k + 1])
            points[place] = prop.vertices @ prop.turns[t].T + prop.shifts[t]
        spans = [(0, self.solid), *(self.spans[k] for k in shown)]
        shading.normals_of(points, self.faces, self.normals)
        head, shift = self.movers[0].turns[t], self.movers[0].shifts[t]
        frame = light_frame(scene.lights[0, :3], shift + np.array([0, 0.05, 0], np.float32))
        shading.seen_from(points, frame, np.float32(_SHADOW_TEXELS / _SHADOW_METRES), _SHADOW_TEXELS, self.seen)
        self.shadow[:] = shading.FAR
        for a, b in spans:
            shading.cast(self.seen, self.faces, self.two_sided, a, b, self.shadow)
        shading.lit_share(self.seen, self.shadow, np.float32(0.007), 1, self.lit)
        up = np.ascontiguousarray(-head[:, 1])
        shading.light_vertices(
            points,
            self.normals,
            up,
            self.material,
            self.colors,
            self.gloss,
            self.ao,
            self.lit,
            scene.lights,
            scene.sky,
            scene.ground,
            self.sided,
            self.front,
            self.back,
        )
        focal, cx, cy = scene.camera
        shading.to_samples(points, focal, cx, cy, self.seen)
        self.depth[:] = shading.FAR
        for a, b in spans:
            shading.draw_ids(self.seen, self.faces, self.two_sided, a, b, self.ids, self.depth)
        shading.resolve(
            self.seen,
            self.faces,
            self.groups,
            self.front,
            self.back,
            self.weight,
            self.uv,
            self.texture,
            self.textures,
            self.labels,
            self.ids,
            self.depth,
            scene.backdrop,
            self.color,
            self.label,
        )
        marks = landmarks68(self.model, points)
        landmarks = marks[:, :2] / marks[:, 2:] * focal + (cx, cy)
        x, y = np.clip((2 * landmarks).astype(int).T, 0, np.array(self.ids.shape)[::-1, None] - 1)
        return (
            self.color,
            self.label,
            landmarks.astype(np.float32),
            (self.ids[y, x] >= self.own) & (self.depth[y, x] < shading.FAR),
        )
