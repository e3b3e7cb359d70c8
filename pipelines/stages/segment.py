"""Semantic video of a clip: 21 classes per pixel, from landmarks, the fitted head and the clip's own colours.

No network: where the head is comes from the fit, and what skin, hair, clothes and background look like is learnt from
this clip alone, in the manner of GrabCut (Rother et al., 2004) but for four classes and for all frames at once, so that
the labels do not flicker:

1. Geometry gives each pixel a prior: the projected skull, the face outline, where a neck, hair and clothes can be.
2. Four Gaussian mixtures over colour and place (place in the image for the background, relative to the head for the
   rest) are fitted to a sample of the clip's pixels by expectation-maximisation, starting from that prior.
3. Posteriors are smoothed along edges (guided filter, He et al., 2010) and in time, and tidied by connected components.
4. Skin is split into face, ears and neck by geometry; brows, nose, eyes and mouth are found in place (face_parts).

``accessory``, ``beard``, ``glasses`` and ``headwear`` are not told from hair and skin and are never labelled.
"""

from dataclasses import dataclass

import numpy as np

from models.face.model import FaceModel
from models.labels import LABEL_INDEX
from pipelines.stages.face_fit import FaceFit
from pipelines.stages.face_parts import light_of, paint_parts, polygon
from pipelines.stages.head_regions import (
    BACKGROUND,
    CLOTHES,
    HAIR,
    SKIN,
    HeadFrame,
    beside_the_face,
    head_frames,
    log_prior,
    sure_places,
)
from pipelines.stages.mixtures import Mixture, fit_mixture, nowhere

BACKEND = "geometry"

_COMPONENTS = (12, 4, 4, 5)
# What a background's colour is worth less (natural log) where the background has not been seen in that colour.
_ELSEWHERE = 2.5
# A class with fewer sample pixels than this is not in the clip.
_TOO_FEW = 40


@dataclass(frozen=True)
class SegmentConfig:
    """How a clip is segmented; ``size`` is the resolution of the colour models' posteriors."""

    size: int = 128
    sample_frames: int = 12
    sample_pixels: int = 1800
    rounds: int = 3
    place_scale: float = 120.0
    place_evidence: float = 2 * np.log(120.0)
    colour_floor: float = 18.0
    place_floor: float = 60.0
    colour_power: float = 1.0
    prior_power: float = 1.0
    filter_radius: int = 3
    filter_smoothness: float = 1e-3
    seed: int = 0


def _places(size: int, config: SegmentConfig) -> np.ndarray:
    """Where each pixel is in the picture, in units in which a mixture can weigh it against colour: float32 (N, 2)."""
    grid = config.place_scale * ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)
    return np.stack(np.broadcast_arrays(grid[None], grid[:, None]), -1).reshape(-1, 2)


@dataclass(frozen=True)
class ColourModels:
    """What the four classes look like in one clip.

    background: a mixture over colour and place (5 dimensions). table: float32 (64, 64, 64, 4), the log densities of
        background, skin, hair and clothes for Lab colours. hair: 1 if the crown has
        another colour than the face, else 0. length: 1 if hair falls beside the face, 0 if it is short.
    """

    background: Mixture
    table: np.ndarray
    place_evidence: float
    hair: float
    length: float

    def log_likelihood(self, colours: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns log densities float32 (4, N) of pixels: Lab uint8 (N, 3), places (N, 2)."""
        points = np.concatenate([colours.astype(np.float32), places], 1)
        light, a, b = _table_index(colours)
        out = np.empty((4, len(colours)), np.float32)
        classes = self.table[light, a, b].T
        # Where the background has not been seen, its colour alone must do.
        out[0] = np.logaddexp(self.background.log_density(points) + self.place_evidence, classes[0] - _ELSEWHERE)
        out[1:] = classes[1:]
        return out


def _table_index(colours: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cells of the 64 x 64 x 64 table: steps of 4 in L and of 2 in a and b, beyond which real colours hardly reach."""
    chroma = (np.clip(colours[:, 1:], 64, 191) - 64) >> 1
    return colours[:, 0] >> 2, chroma[:, 0], chroma[:, 1]


def _table(mixtures: list[Mixture]) -> np.ndarray:
    cell = np.arange(64, dtype=np.float32)
    grid = np.stack(np.meshgrid(4 * cell + 1.5, 2 * cell + 64.5, 2 * cell + 64.5, indexing="ij"), -1).reshape(-1, 3)
    return np.stack([mixture.log_density(grid) for mixture in mixtures], -1).reshape(64, 64, 64, 4)


def learn_colours(
    small: np.ndarray, heads: list[HeadFrame], landmarks: np.ndarray, config: SegmentConfig
) -> ColourModels:
    """Learns the four colour models of a clip from frames spread over it: small uint8 (T, size, size, 3) Lab."""
    rng = np.random.default_rng(config.seed)
    size, scale = config.size, 256 / config.size
    all_places = _places(size, config)
    colours, places, sure, samples = [], [], [], []
    for t in np.unique(np.linspace(0, len(small) - 1, config.sample_frames).round().astype(int)):
        pixels = rng.choice(size**2, min(config.sample_pixels, size**2), replace=False)
        colours.append(small[t].reshape(-1, 3)[pixels])
        places.append(all_places[pixels])
        sure.append(sure_places(heads[t], landmarks[t], size, scale).reshape(4, -1)[:, pixels])
        samples.append((heads[t], pixels))
    colours, places, sure = np.concatenate(colours), np.concatenate(places), np.concatenate(sure, 1)
    sides = np.concatenate([beside_the_face(head, size, scale).ravel()[pixels] for head, pixels in samples])

    def prior_of(hair, length):
        maps = (log_prior(head, size, hair, length).reshape(4, -1)[:, pixels] for head, pixels in samples)
        return np.concatenate(list(maps), 1)

    lab = colours.astype(np.float32)
    points = (np.concatenate([lab, places], 1), lab, lab, lab)
    floors = [np.full(3, config.colour_floor, np.float32)] * 4
    floors[0] = np.array([config.colour_floor] * 3 + [config.place_floor] * 2, np.float32)

    def fit(k, share, iterations, start=None):
        if share.sum() < _TOO_FEW:
            return nowhere(points[k].shape[1])
        return fit_mixture(points[k], share, _COMPONENTS[k], iterations, floors[k], start)

    # Skin first: the inner face is nothing else. What looks like it is then no sure hair and no sure cloth.
    skin = fit(SKIN, sure[SKIN], 6)
    likeness = skin.log_density(lab)
    least = np.percentile(likeness[sure[SKIN] > 0], 3)
    crown = sure[HAIR] > 0
    hair = float(crown.any() and (crown & (likeness < least)).sum() > 0.15 * crown.sum())
    length = 0.5
    # Necks lie in the shadow of the chin: where clothes begin, skin in the shade is skin.
    lit = np.concatenate([1.3 * lab[:, :1], 128 + 1.2 * (lab[:, 1:] - 128)], 1)
    for k, typical in ((HAIR, likeness >= least), (CLOTHES, np.maximum(likeness, skin.log_density(lit)) >= least)):
        other = sure[k] * ~typical
        sure[k] = other if other.sum() > _TOO_FEW else sure[k]
    mixtures = [
        fit(BACKGROUND, sure[BACKGROUND], 6),
        skin,
        fit(HAIR, sure[HAIR], 6),
        fit(CLOTHES, sure[CLOTHES], 6),
    ]
    for _ in range(config.rounds):
        prior = prior_of(hair, length)
        likelihood = np.stack([m.log_density(p) for m, p in zip(mixtures, points, strict=True)])
        anywhere = mixtures[BACKGROUND].first_dimensions(3).log_density(lab)
        likelihood[BACKGROUND] = np.logaddexp(likelihood[BACKGROUND] + config.place_evidence, anywhere - _ELSEWHERE)
        share = _posterior(prior, likelihood, config)
        # Long hair shows beside the cheeks before it falls past the jaw; the longer side counts.
        seen = [share[HAIR, sides == side].mean() if (sides == side).sum() > 20 else 0.0 for side in (1, 2)]
        length = float(np.clip((max(seen) - 0.25) / 0.35, 0, 1))
        # Undecided pixels teach nothing.
        share = np.where(share > 0.8, share, 0) + 0.2 * sure
        mixtures = [fit(k, share[k], 2, mixtures[k]) for k in range(4)]
    table = _table([mixtures[0].first_dimensions(3), *mixtures[1:]])
    return ColourModels(mixtures[0], table, config.place_evidence, hair, length)


def _posterior(prior: np.ndarray, likelihood: np.ndarray, config: SegmentConfig) -> np.ndarray:
    values = config.prior_power * prior + config.colour_power * likelihood
    values = np.exp(values - values.max(0))
    return values / values.sum(0)


def posteriors(frames: np.ndarray, heads: list[HeadFrame], landmarks: np.ndarray, config: SegmentConfig) -> np.ndarray:
    """Says how likely each pixel is background, skin, hair or clothes: uint8 (T, H, W, 3) -> float32 (T, size, size,
    4).
    """
    import cv2

    size = config.size
    rgb = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])
    small = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in rgb])
    models = learn_colours(small, heads, landmarks, config)
    places = _places(size, config)
    out = np.empty((len(frames), size, size, 4), np.float32)
    for t, head in enumerate(heads):
        likelihood = models.log_likelihood(small[t].reshape(-1, 3), places).reshape(4, size, size)
        prior = log_prior(head, size, models.hair, models.length)
        share = np.ascontiguousarray(_posterior(prior, likelihood, config).transpose(1, 2, 0), np.float32)
        guide = rgb[t].astype(np.float32) / 255
        out[t] = cv2.ximgproc.guidedFilter(guide, share, config.filter_radius, config.filter_smoothness)
    # In time: a quarter of each neighbour, so that noise does not flicker and motion hardly smears.
    before, after = np.concatenate([out[:1], out[:-1]]), np.concatenate([out[1:], out[-1:]])
    return 0.5 * out + 0.25 * (before + after)


def _tidy(share: np.ndarray, head: HeadFrame, scale: float) -> np.ndarray:
    """Gives islands to what surrounds them: the person is one piece that holds the face, its holes are filled."""
    import cv2

    classes = share.argmax(-1)
    shape = classes.shape
    skull = polygon(shape, head.skull / scale)
    face = polygon(shape, head.outline / scale)
    person = (classes != BACKGROUND).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(person, connectivity=4)
    main = np.bincount(pieces[face & (person > 0)], minlength=count)
    main[0] = 0
    if main.max() > 0:
        classes = np.where((pieces != main.argmax()) & (person > 0), BACKGROUND, classes)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((classes == BACKGROUND).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 0.02 * shape[0] * shape[1]
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    at_border = (left == 0) | (top == 0) | (left + stats[:, cv2.CC_STAT_WIDTH] == shape[1])
    hole = small & ~at_border
    hole[0] = False
    if hole.any():
        place = hole[pieces]
        blurred = np.stack([cv2.blur((classes == k).astype(np.float32), (9, 9)) for k in (SKIN, HAIR, CLOTHES)], -1)
        classes = np.where(place, blurred.argmax(-1) + 1, classes)
    # Hair grows from the crown; a piece of it that does not reach there is something else.
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((classes == HAIR).astype(np.uint8), connectivity=4)
    _, up = head.coordinates(shape[0], scale)
    rooted = np.zeros(count, bool)
    rooted[np.unique(pieces[skull & (up > 0.2)])] = True
    second = np.delete(share, HAIR, -1).argmax(-1)
    classes = np.where((classes == HAIR) & ~rooted[pieces], second + (second >= HAIR), classes)
    # Clothes hang below the chin.
    return np.where((classes == CLOTHES) & (up > -0.6) & skull, HAIR, classes)


def _split_skin(labels: np.ndarray, skin: np.ndarray, head: HeadFrame) -> None:
    """Names skin: inside the outline or above the brows face, beside it at the ears' height ears, below neck."""
    right, up = head.coordinates(labels.shape[0], 256 / labels.shape[0])
    face = polygon(labels.shape, head.outline)
    ears = np.zeros(labels.shape, bool)
    for hull in head.ears:
        centre = hull.mean(0)
        ears |= polygon(labels.shape, centre + 1.25 * (hull - centre))
    beside = (up > -0.75) & (up < 0.45)
    is_ear = skin & ~face & beside & ears
    is_face = skin & ((face | (up > 0.2)) | ((up > -0.35) & ~is_ear)) & ~is_ear
    labels[skin] = LABEL_INDEX["neck"]
    labels[is_face] = LABEL_INDEX["face"]
    labels[is_ear] = LABEL_INDEX["ears"]


def segment_clip(
    frames: np.ndarray, landmarks: np.ndarray, fit: FaceFit, model: FaceModel, config: SegmentConfig | None = None
) -> np.ndarray:
    """Labels every pixel of a clip with one of the 21 classes of models/labels.py.

    Args:
        frames: uint8 (T, 256, 256, 3), RGB.
        landmarks: float32 (T, 68, 2), crop pixels; ``fit`` is their fit with ``model``.

    Returns:
        uint8 (T, 256, 256). The same clip always gives the same labels.
    """
    import cv2

    config = config or SegmentConfig()
    heads = head_frames(landmarks, fit, model)
    share = posteriors(frames, heads, landmarks, config)
    height, width = frames.shape[1:3]
    labels = np.empty(frames.shape[:3], np.uint8)
    names = np.array([LABEL_INDEX[name] for name in ("background", "face", "hair", "clothes")], np.uint8)
    skin_light = clip_skin_light(frames, landmarks)
    for t, head in enumerate(heads):
        small = _tidy(share[t], head, 256 / config.size)
        # The tidied classes win where tidying changed them; elsewhere the smooth posteriors place the border.
        kept = np.where((small == share[t].argmax(-1))[..., None], share[t], np.eye(4, dtype=np.float32)[small])
        classes = cv2.resize(kept, (width, height), interpolation=cv2.INTER_LINEAR).argmax(-1)
        labels[t] = names[classes]
        _split_skin(labels[t], classes == SKIN, head)
        paint_parts(labels[t], frames[t], landmarks[t], skin_light)
    return labels


def clip_skin_light(frames: np.ndarray, landmarks: np.ndarray) -> float:
    """Returns the median light of the cheeks over a clip, 0..255."""
    samples = []
    for frame, points in zip(frames[::8], landmarks[::8], strict=True):
        for corner in (points[[1, 31, 48]], points[[15, 35, 54]]):
            x, y = np.clip(corner.mean(0).round().astype(int), 1, np.array(frame.shape[1::-1]) - 2)
            samples.append(light_of(frame[y - 1 : y + 2, x - 1 : x + 2]).ravel())
    return float(np.median(np.concatenate(samples)))
