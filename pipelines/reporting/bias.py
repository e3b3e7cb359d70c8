"""Who and what the kept hours show: shares of hours by the captioner's words, by language and by where heads point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.reporting.tables import flags, hours, numbers, texts, totals
from pipelines.stages.description_schema import DESCRIPTION_FIELDS, SKIN_TONES, UNKNOWN
from pipelines.stages.transcript import UNDECIDED

if TYPE_CHECKING:
    import pyarrow as pa

NOT_THERE = "not annotated"
_FIELDS = {field.name: field.attributes for field in DESCRIPTION_FIELDS}
# Column -> (title, the words in their order, what made it).
WORDS = {
    "age_group": ("Age group", _FIELDS["age_group"]["value"], "captioner"),
    "gender": ("Gender presentation", _FIELDS["gender"]["value"], "captioner"),
    "skin_tone": ("Skin tone", SKIN_TONES, "captioner"),
    "language": ("Language", (), "script_backend"),
    "lighting_brightness": ("Light", _FIELDS["lighting"]["brightness"], "captioner"),
    "lighting_direction": ("Light comes from", _FIELDS["lighting"]["direction"], "captioner"),
}
# Column -> (title, edges in degrees, names of the bins between them).
ANGLES = {
    "yaw": (
        "Head turned (yaw)",
        (-60, -30, -10, 10, 30, 60),
        ("left over 60°", "left 30-60°", "left 10-30°", "frontal, within 10°", "right 10-30°", "right 30-60°",
         "right over 60°"),
    ),
    "pitch": (
        "Head nodded (pitch)",
        (-20, -7, 7, 20),
        ("down over 20°", "down 7-20°", "level, within 7°", "up 7-20°", "up over 20°"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """``rows``: (word, hours), in the field's order, "unknown" and "not annotated" last. ``made_by``: what said so."""

    title: str
    made_by: str
    rows: list[tuple[str, float]]

    @property
    def total(self) -> float:
        return sum(amount for _, amount in self.rows)


def bias_shares(table: "pa.Table") -> list[Shares]:
    """Returns the shares of the kept hours, by every field of WORDS and ANGLES."""
    kept = flags(table, "kept")
    length = hours(table)[kept]

    def column(name: str) -> np.ndarray:
        return texts(table, name)[kept]

    def backends(name: str) -> str:
        return ", ".join(value for value in totals(column(name), length) if value)

    out = []
    for name, (title, order, maker) in WORDS.items():
        said = np.where(column(name) == "", NOT_THERE, column(name))
        sums = totals(np.where(said == UNDECIDED, UNKNOWN, said), length)
        out.append(Shares(title, backends(maker), _in_order(sums, order)))
    for name, (title, edges, names) in ANGLES.items():
        values = numbers(table, name)[kept]
        words = np.array(names, object)[np.digitize(values, edges)]
        sums = totals(np.where(np.isnan(values), "not measured", words), length)
        out.append(Shares(title, "the filters' landmarks", _in_order(sums, names)))
    return out


def _in_order(sums: dict[str, float], order: Sequence[str]) -> list[tuple[str, float]]:
    """The order's words, also those of no hour, then others by hours, then what is not known."""
    last = [name for name in (UNKNOWN, "not measured", NOT_THERE) if name in sums]
    others = [name for name in sums if name not in order and name not in last]
    shown = [*order, *others, *last] if any(name in sums for name in order) else [*others, *last]
    return [(name, sums.get(name, 0.0)) for name in shown]


def never_said(shares: Sequence[Shares]) -> list[str]:
    """Titles of the fields of which the captioner says "unknown" for every clip."""
    return [item.title for item in shares if item.total and dict(item.rows).get(UNKNOWN, 0.0) >= item.total * 0.9999]
