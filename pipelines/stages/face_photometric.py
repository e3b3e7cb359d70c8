"""The photometric term of a fit: dense points of the face must have the colour of albedo times light.

Each frame's pixels are read at the projected points, bilinearly, on a blurred picture. Light is spherical harmonics of
second order (nine numbers a channel) over the points' normals, one light a clip; albedo is one colour a point and clip,
drawn toward the mean of its semantic class (skin, lips, brows ...). That pull is what makes the term more than a
tracker of texture: a lip's point that lies on skin has the wrong colour for a lip, and moves.

A point counts as far as it faces the camera, is inside the picture, and its colour can be explained at all
(Geman-McClure's weights: hands, hair and microphones in front of the face drop out).

einsum alphabet: t frames, k points, j nine harmonics, l another such, h colours, i the image's two axes, p parameters.
"""

from dataclasses import dataclass

import numpy as np

from models.face.camera import MODEL_TO_CAMERA
from models.face.model import FaceModel
from models.labels import LABEL_INDEX, NUM_LABELS
from pipelines.stages.face_points import FacePoints, FaceState, face_points, vertex_normals
from pipelines.stages.gauss_newton import Normal, normal_equations

_SKIN = ("face", "nose")
# How many points of these classes are added to the model's dense ones: their edges say where brows, lips and lids are.
_FEATURES = {"brows": 48, "lips": 48, "lashes": 24, "nostrils": 8}
_UNDER_BROWS = 0.003  # metres: skin that the brows cover has their colour


@dataclass(frozen=True)
class PhotometricConfig:
    """Attributes: rounds: how often albedo and light are estimated anew, per level; 0 leaves the term out; steps:
    Gauss-Newton steps a round; levels: halvings of the picture, coarse to fine; sigma: colour difference (0..1) beyond
    which a point is doubted; weight: of the term; landmark_weight: of the landmarks beside it; shape_hold: how
    strongly the shape stays where the landmarks left it, as colours also move it where light and albedo do not explain
    them; own_albedo: how far a point's albedo may leave its class's; feature_weight: of brows, lips and lids against
    skin; ridge: on the light.
    """

    rounds: int = 2
    steps: int = 3
    levels: tuple[int, ...] = (1,)
    sigma: float = 0.10
    weight: float = 0.45
    landmark_weight: float = 0.5
    shape_hold: float = 3.0
    own_albedo: float = 0.3
    feature_weight: float = 2.0
    ridge: float = 1e-2


def pyramid(frames, levels: tuple[int, ...]):
    """Yields (pictures float32 (T, S / 2^n, S / 2^n, 3) in 0..1, 2^n): averaged, then smoothed by 1 2 1."""
    import jax.numpy as jnp

    for level in levels:
        scale = 2**level
        count, side = len(frames), frames.shape[1] // scale
        images = frames.reshape(count, side, scale, side, scale, 3).astype(jnp.float32).mean((2, 4)) / 255
        padded = jnp.pad(images, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
        images = padded[:, :-2] * 0.25 + padded[:, 1:-1] * 0.5 + padded[:, 2:] * 0.25
        padded = jnp.pad(images, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="edge")
        yield padded[:, :, :-2] * 0.25 + padded[:, :, 1:-1] * 0.5 + padded[:, :, 2:] * 0.25, scale


def sample(images, pixels):
    """Reads pictures between pixels.

    Args:
        images: (T, S, S, 3). pixels: (T, K, 2), the first pixel's edge at 0.

    Returns:
        colours (T, K, 3); their change a pixel to the right and down (T, K, 2, 3); whether inside (T, K).
    """
    import jax.numpy as jnp

    size = images.shape[1]
    at = pixels - 0.5
    inside = ((at >= 0) & (at <= size - 1)).all(-1)
    at = jnp.clip(at, 0, size - 1.001)
    low = at.astype(jnp.int32)
    fx, fy = jnp.moveaxis(at - low, -1, 0)[..., None]
    x, y = low[..., 0], low[..., 1]
    t = jnp.arange(len(images))[:, None]
    a, b, c, d = images[t, y, x], images[t, y, x + 1], images[t, y + 1, x], images[t, y + 1, x + 1]
    upper, lower = a + fx * (b - a), c + fx * (d - c)
    right = (b - a) + fy * ((d - c) - (b - a))
    return upper + fy * (lower - upper), jnp.stack([right, lower - upper], -2), inside


def harmonics(normals):
    """Returns the nine real spherical harmonics up to order two, unnormalised: (..., 3) unit vectors -> (..., 9)."""
    import jax.numpy as jnp

    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return jnp.stack([jnp.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


def estimate_appearance(colours, basis, weight, classes, skin, own_albedo: float, ridge: float):
    """Returns light (9, 3) and albedo (K, 3) of a clip: colours = albedo x (basis @ light), the skin's mean albedo 1.

    Args:
        colours: (T, K, 3). basis: (T, K, 9) harmonics of the normals. weight: (T, K).
        classes: (K, C) one-hot. skin: (K,) 1 for points whose albedo is the skin's.
    """
    import jax.numpy as jnp

    albedo = jnp.ones(colours.shape[1:])
    eye = jnp.eye(basis.shape[-1]).at[0, 0].set(0)
    trust = weight * skin
    for _ in range(2):
        lit = basis[..., None] * albedo[:, None]  # [t, k, j, h]
        normal = jnp.einsum("tk,tkjh,tklh->hjl", trust, lit, lit)
        normal = normal + ridge * trust.sum() * eye
        right = jnp.einsum("tk,tkjh,tkh->hj", trust, lit, colours)
        light = jnp.linalg.solve(normal + 1e-6 * jnp.eye(len(eye)), right[..., None])[..., 0].T
        shade = jnp.clip(basis @ light, 0.02, None)
        top, bottom = (weight[..., None] * colours * shade).sum(0), (weight[..., None] * shade**2).sum(0)
        # Two pseudo-observations hold a point that is hardly seen at its class.
        class_mean = (classes.T @ top) / (classes.T @ bottom + 1e-6)
        mean = classes @ class_mean
        own = top / (bottom + 1e-6)
        albedo = mean + own_albedo * (own - mean)
        # What the camera explains badly with the light so far counts less in the second turn.
        gap = ((colours - albedo * shade) ** 2).sum(-1)
        trust = weight * skin / (1 + gap / (3 * 0.1**2)) ** 2
    return light, albedo


def colour_points(model: FaceModel) -> FacePoints:
    """Returns the points whose colours are compared: the model's dense points that nothing covers, and more on brows,
    lips, lashes and nostrils (where the model has such labels), spread evenly.
    """
    dense = model.dense_model().vertices
    brows = model.vertices[model.labels == LABEL_INDEX["brows"]]
    apart = np.linalg.norm(dense[:, None] - brows[None], axis=-1).min(1) if len(brows) else np.full(len(dense), np.inf)
    seen = apart > _UNDER_BROWS
    faces, corners = [model.dense_faces[seen]], [model.dense_barycentric[seen]]
    normals = vertex_normals(model)
    for name, count in _FEATURES.items():
        own = (model.labels[model.faces] == LABEL_INDEX[name]).all(1)
        front = normals[model.faces].mean(1)[:, 2] > 0.3
        found = np.flatnonzero(own & front)
        chosen = found[_spread(model.vertices[model.faces[found]].mean(1), count)]
        faces.append(chosen.astype(np.int32))
        corners.append(np.full((len(chosen), 3), 1 / 3, np.float32))
    return face_points(model, np.concatenate(faces), np.concatenate(corners))


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Returns indices of up to ``count`` points, each the farthest from those before it."""
    if len(points) <= count:
        return np.arange(len(points))
    chosen, distance = [0], np.linalg.norm(points - points[0], axis=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def photometric_term(model: FaceModel, config: PhotometricConfig):
    """Returns the term as ``term(state, images, scale, mask, camera) -> rows``, where ``rows(state) -> (Normal,
    mean colour difference per frame (T,))`` and the appearance is estimated once, at the first state.
    """
    import jax.numpy as jnp

    points = colour_points(model)
    labels = points.model.labels
    is_feature = np.isin(labels, [LABEL_INDEX[name] for name in _FEATURES])
    importance = config.weight * np.where(is_feature, config.feature_weight, 1.0).astype(np.float32)
    classes = jnp.asarray(np.eye(NUM_LABELS, dtype=np.float32)[labels])
    is_skin = np.isin(labels, [LABEL_INDEX[name] for name in _SKIN])
    skin = jnp.asarray((is_skin if is_skin.any() else np.ones(len(labels))).astype(np.float32))
    flipped = jnp.asarray(points.normals * MODEL_TO_CAMERA)

    def look(state: FaceState, images, scale, camera):
        seen = points.see(state, camera)
        colours, slope, inside = sample(images, seen.pixels / scale)
        normals = jnp.einsum("tcd,kd->tkc", state.rotation, flipped)
        view = seen.points / jnp.linalg.norm(seen.points, axis=-1, keepdims=True)
        facing = jnp.clip((-(normals * view).sum(-1) - 0.2) / 0.3, 0, 1)
        return seen, colours, slope / scale, normals, facing * inside

    def term(state: FaceState, images, scale, mask, camera):
        _, colours, _, normals, visible = look(state, images, scale, camera)
        weight = visible * mask[:, None]
        light, albedo = estimate_appearance(
            colours, harmonics(normals), weight, classes, skin, config.own_albedo, config.ridge
        )

        def rows(state: FaceState) -> tuple[Normal, object]:
            seen, colours, slope, normals, visible = look(state, images, scale, camera)
            gap = colours - albedo * jnp.clip(harmonics(normals) @ light, 0.02, None)
            squared = (gap**2).mean(-1) / config.sigma**2
            trust = importance * visible / (1 + squared) ** 2 / config.sigma**2
            # Three colours at a point say: move by ``wish`` along the two axes, with this information (2, 2).
            information = jnp.einsum("tk,tkih,tkjh->tkij", trust, slope, slope)
            wish = -jnp.einsum("tk,tkih,tkh->tki", trust, slope, gap)
            jacobian, shape_jacobian = points.jacobians(state, seen, camera)
            frames = len(gap)

            def weigh(values):
                blocks = values.reshape(frames, points.model.vertices.shape[0], 2, -1)
                return jnp.einsum("tkij,tkjp->tkip", information, blocks).reshape(values.shape)

            flat = jacobian.reshape(frames, -1, jacobian.shape[-1])
            flat_shape = shape_jacobian.reshape(frames, -1, shape_jacobian.shape[-1])
            normal = normal_equations(flat, flat_shape, weigh, jnp.zeros(flat.shape[:2]), mask)
            wish = wish.reshape(frames, -1)
            ascent = jnp.einsum("tmp,tm->tp", flat, wish)
            shape_ascent = jnp.einsum("tms,tm,t->s", flat_shape, wish, mask) / mask.sum()
            normal = normal._replace(ascent=ascent, shape_ascent=shape_ascent)
            error = (visible * jnp.abs(gap).mean(-1)).sum(1) / (visible.sum(1) + 1e-6)
            return normal, error

        return rows

    return term
