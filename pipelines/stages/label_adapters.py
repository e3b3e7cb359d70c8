"""Other label sets in our 21 classes: CelebAMask-HQ's masks, and shapes drawn from MediaPipe's face mesh.

A source's class may cover several of ours (CelebAMask-HQ's "skin" is face, beard and lashes), so a pixel gets a set of
classes, as bits (``models.labels.label_set``), and training rewards any of them. Classes that a source never names
alone are its ``unsupplied`` ones: it cannot teach them, and does not punish them where they may be.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.labels import EVERY_LABEL, LABEL_INDEX, LABELS, label_set
from pipelines.stages.face_parts import polygon, stroke


@dataclass(frozen=True, eq=False)
class PartialLabels:
    """Labels of one picture: ``codes`` uint8 (H, W) index into ``sets`` uint32 (N,), each the classes it may be."""

    codes: np.ndarray
    sets: np.ndarray

    def as_sets(self) -> np.ndarray:
        """Returns uint32 (H, W)."""
        return self.sets[self.codes]


def unsupplied(sets: np.ndarray) -> tuple[str, ...]:
    """Returns the classes that no set names alone."""
    return tuple(name for name in LABELS if label_set(name) not in {int(s) for s in np.asarray(sets)})


# --- CelebAMask-HQ (Lee et al. 2020): 19 classes, one mask file a part ---

CELEBAMASK_FOLDERS = ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno")
_PER_FOLDER = 2000
# In the order in which they are painted, later over earlier (the data set's own colouring script has this order).
CELEBAMASK = {
    # What the set leaves black: mostly background, but also hands, microphones and what else is held.
    "background": label_set("background", "accessory"),
    "skin": label_set("face", "beard", "lashes"),
    "nose": label_set("nose", "nostrils"),
    # The mask fills the lenses: frame and what is seen through.
    "eye_g": label_set("glasses", "face", "nose", "sclera", "iris", "pupil", "lashes", "brows"),
    "l_eye": label_set("sclera", "iris", "pupil", "lashes"),
    "r_eye": label_set("sclera", "iris", "pupil", "lashes"),
    "l_brow": label_set("brows"),
    "r_brow": label_set("brows"),
    "l_ear": label_set("ears"),
    "r_ear": label_set("ears"),
    "mouth": label_set("teeth", "tongue", "other-in-mouth"),
    "u_lip": label_set("lips"),
    "l_lip": label_set("lips"),
    "hair": label_set("hair"),
    "hat": label_set("headwear"),
    "ear_r": label_set("accessory"),
    "neck_l": label_set("accessory"),
    "neck": label_set("neck"),
    "cloth": label_set("clothes"),
}


def celebamask_pictures(root: str | Path) -> list[int]:
    """Returns the numbers of the pictures in a CelebAMask-HQ folder that have masks.

    Raises:
        InputError: the folder has not the data set's layout.
    """
    root = Path(root)
    for name in CELEBAMASK_FOLDERS:
        if not (root / name).is_dir():
            raise InputError(f"{root}: expected CelebAMask-HQ's layout, folder {name} is missing")
    masked = {path.name.split("_")[0] for path in (root / CELEBAMASK_FOLDERS[1]).glob("*/*_skin.png")}
    numbers = sorted(
        int(path.stem)
        for path in (root / CELEBAMASK_FOLDERS[0]).glob("*.jpg")
        if path.stem.isdigit() and path.stem.zfill(5) in masked
    )
    if not numbers:
        raise InputError(f"{root}: no picture N.jpg with a mask NNNNN_skin.png")
    return numbers


def read_celebamask(root: str | Path, number: int) -> tuple[np.ndarray, PartialLabels]:
    """Reads a picture and its masks: (uint8 (512, 512, 3) RGB, labels (512, 512)).

    Raises:
        InputError: the picture or a mask cannot be read, or a mask has another size than 512.
    """
    import cv2

    root = Path(root)
    path = root / CELEBAMASK_FOLDERS[0] / f"{number}.jpg"
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"{path}: not a picture")
    size = 512
    picture = cv2.cvtColor(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    codes = np.zeros((size, size), np.uint8)
    folder = root / CELEBAMASK_FOLDERS[1] / str(number // _PER_FOLDER)
    for code, part in enumerate(CELEBAMASK):
        path = folder / f"{number:05d}_{part}.png"
        if code == 0 or not path.is_file():
            continue
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != (size, size):
            raise InputError(f"{path}: expected a mask of {size} x {size}")
        codes[mask > 127] = code
    return picture, PartialLabels(codes, np.array(list(CELEBAMASK.values()), np.uint32))


# --- MediaPipe's face mesh ---

MESH_POINTS, MESH_POINTS_WITHOUT_IRIS = 478, 468
# Rings of vertices, each in order around its part. "Right" is the subject's right, left in the picture.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
BROWS = (
    (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
    (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
)
# A centre and four points on the rim.
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))

_OUTSIDE, _INSIDE, _LIPS, _MOUTH, _EYE, _IRIS, _LID, _BROW = range(8)
MESH_SETS = np.array(
    [
        # Outside the oval: anything but the parts inside a face.
        label_set("background", "face", "neck", "ears", "hair", "beard", "glasses", "clothes", "headwear", "accessory"),
        label_set("face", "nose", "nostrils", "beard", "glasses", "hair", "headwear", "accessory"),
        label_set("lips"),
        label_set("teeth", "tongue", "other-in-mouth"),
        label_set("sclera", "lashes"),
        label_set("iris", "pupil"),
        label_set("lashes", "face", "glasses", "sclera", "iris", "pupil"),
        label_set("brows"),
    ],
    np.uint32,
)


def mesh_regions(mesh: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Fills the parts of one face's mesh: float (468 or 478, 2) pixels -> bool masks ``face``, ``lips``, ``eyes``,
    ``brows``, and ``mouth`` (the opening between the lips)."""
    mesh = np.asarray(mesh, np.float64) + 0.5  # fill takes x of a pixel's left edge

    def fill(ring):
        return polygon(shape, mesh[list(ring)])

    mouth = fill(LIPS_INNER)
    return {
        "face": fill(FACE_OVAL),
        "lips": fill(LIPS_OUTER) & ~mouth,
        "mouth": mouth,
        "eyes": fill(EYES[0]) | fill(EYES[1]),
        "brows": fill(BROWS[0]) | fill(BROWS[1]),
    }


def mesh_labels(mesh: np.ndarray, shape: tuple[int, int]) -> PartialLabels:
    """Draws one face's mesh as labels: float (468 or 478, 2) pixels -> labels of a picture of ``shape``.

    Raises:
        InputError: another number of points.
    """
    if mesh.shape not in ((MESH_POINTS, 2), (MESH_POINTS_WITHOUT_IRIS, 2)):
        raise InputError(f"mesh: shape {mesh.shape}, expected ({MESH_POINTS}, 2) or ({MESH_POINTS_WITHOUT_IRIS}, 2)")
    regions = mesh_regions(mesh, shape)
    points = np.asarray(mesh, np.float64) + 0.5
    codes = np.full(shape, _OUTSIDE, np.uint8)
    codes[regions["face"]] = _INSIDE
    codes[regions["brows"]] = _BROW
    codes[regions["lips"]] = _LIPS
    codes[regions["mouth"]] = _MOUTH
    for ring in EYES:
        opened = polygon(shape, points[list(ring)])
        if len(points) == MESH_POINTS:
            codes[opened] = _EYE
            for centre, *rim in IRISES:
                radius = np.linalg.norm(points[rim] - points[centre], axis=1).mean()
                y, x = np.mgrid[: shape[0], : shape[1]]
                disc = np.hypot(x + 0.5 - points[centre, 0], y + 0.5 - points[centre, 1]) < radius
                codes[opened & disc] = _IRIS
        else:
            codes[opened] = _LID
        # Where the lid ends and lashes begin, a mesh does not say.
        length = np.linalg.norm(points[ring[8]] - points[ring[0]])
        codes[stroke(shape, points[[*ring, ring[0]]], max(1.0, 0.06 * length))] = _LID
    return PartialLabels(codes, MESH_SETS)


def truth_labels(labels: np.ndarray) -> PartialLabels:
    """Labels that are known: uint8 (H, W), our classes."""
    return PartialLabels(labels, np.array([1 << k for k in range(len(LABELS))], np.uint32))


UNKNOWN = EVERY_LABEL
BACKGROUND = 1 << LABEL_INDEX["background"]
