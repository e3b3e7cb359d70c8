"""Decisions from stored scores: what each filter costs, and what other thresholds would keep, without decoding again.

The decision is that of ``filters.decide``, for all rows at once.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError
from pipelines.reporting.tables import flags, hours, numbers, texts
from pipelines.stages.filters import REASONS, SIGNED, Condition, FilterThresholds, thresholds_with

if TYPE_CHECKING:
    import pyarrow as pa

_HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Rule:
    """One limit: a clip whose ``score`` lies on the wrong ``side`` of ``limit`` ("below" or "above") is rejected for
    ``reason``. ``signed``: the limit bounds the score's size.
    """

    reason: str
    score: str
    side: str
    limit: float
    signed: bool


def rules(limits: FilterThresholds) -> list[Rule]:
    """Returns the thresholds that act on scores, the weightiest first: those of filters.decide."""
    out = []
    for name, reason in REASONS.items():
        side, score = name.split("_", 1)
        limit = getattr(limits, name)
        if limit is not None:
            signed = side == "max" and score in SIGNED
            out.append(Rule(reason, score, "below" if side == "min" else "above", limit, signed))
    return out


def run_thresholds(manifest: dict) -> FilterThresholds:
    """Returns the thresholds that curate decided by, from the manifest."""
    stored = manifest["columns"].get("clips", {}).get("producer", {}).get("thresholds", {})
    return thresholds_with([f"{name}={'off' if value is None else value}" for name, value in stored.items()])


def changed_thresholds(base: FilterThresholds, changes: Sequence[str]) -> FilterThresholds:
    """Applies NAME=VALUE texts to thresholds; InputError for a name that stored scores do not decide."""
    for change in changes:
        name = change.partition("=")[0]
        if name in FilterThresholds.__dataclass_fields__ and name not in REASONS:
            raise InputError(
                f"--threshold {change}: {name} acts while a source is cut, so it needs curate again; expected one of "
                f"{', '.join(REASONS)}"
            )
    return thresholds_with(changes, base)


def scored(table: "pa.Table", name: str) -> np.ndarray:
    """float64 (rows,): a score as the decision read it, NaN where it was not measured.

    Scores are stored as float32; decisions are made on numbers rounded to four places.
    """
    return np.round(numbers(table, name), 4)


def misses(table: "pa.Table", limits: Sequence[Rule]) -> np.ndarray:
    """bool (rules, rows): which rows miss which rule. What was not measured misses nothing."""
    out = np.zeros((len(limits), len(table)), bool)
    for index, rule in enumerate(limits):
        values = scored(table, rule.score)
        if rule.signed:
            values = np.abs(values)
        out[index] = values < rule.limit if rule.side == "below" else values > rule.limit
    return out


def marginal_hours(table: "pa.Table", limits: Sequence[Rule]) -> dict[str, float]:
    """Reason -> hours of the segments that were lost for this reason alone: they meet every other limit."""
    # One that was lost before the filters (its landmarks were lost, say) would not come back.
    missed = misses(table, limits) & (texts(table, "stage") == "filters")
    length = hours(table)
    out = {}
    for reason in dict.fromkeys(rule.reason for rule in limits):
        mine = np.array([rule.reason == reason for rule in limits])
        alone = missed[mine].any(axis=0) & ~missed[~mine].any(axis=0)
        out[reason] = float(length[alone].sum())
    return out


def reasons(table: "pa.Table", limits: Sequence[Rule]) -> list[str]:
    """Every reason that a row misses, comma-separated, in the order of the rules; "" if it misses none."""
    missed = misses(table, limits)
    out = [""] * len(table)
    names = list(dict.fromkeys(rule.reason for rule in limits))
    for name in names:
        mine = missed[[rule.reason == name for rule in limits]].any(axis=0)
        for row in np.flatnonzero(mine):
            out[row] = f"{out[row]},{name}" if out[row] else name
    return out


# --- What if ---


def _replaces(condition: Condition, rule: Rule) -> bool:
    side = "below" if condition.sign in (">", ">=") else "above"
    return rule.score == condition.score and rule.side == side


def recount(
    table: "pa.Table", base: FilterThresholds, changed: FilterThresholds, conditions: Sequence[Condition] = ()
) -> dict:
    """Counts what would be kept by other thresholds and by further conditions.

    A condition takes the place of the run's limit on the same side of the same score, so it can also be looser. A
    segment comes back only if it was rejected by nothing but limits that are looser now and has every score that the
    limits ask for; its video is not stored, so it needs curate again. A clip without the score of a condition neither
    meets nor misses it: such clips are counted apart.

    Returns:
        clips and hours ``before``; of these ``after`` (kept then), ``lost`` and ``not_measured``; ``gained`` (they need
        curate again); ``unknown`` (rejected by looser limits, but not every score is there); and for each changed limit
        and condition what it alone would cost.
    """
    kept, length = flags(table, "kept"), hours(table)
    old, new = rules(base), [rule for rule in rules(changed) if not any(_replaces(c, rule) for c in conditions)]
    new_misses = misses(table, new)
    refused = new_misses.any(axis=0)
    missing = np.zeros(len(table), bool)
    rows = []
    for rule, missed in zip(new, new_misses, strict=True):
        if rule not in old:
            text = f"{rule.score}{'>=' if rule.side == 'below' else '<='}{rule.limit:g}"
            rows.append(_cost(text, kept, length, missed, np.isnan(scored(table, rule.score))))
    for condition in conditions:
        values = scored(table, condition.score)
        lacking = np.isnan(values)
        missed = ~lacking & ~_HOLDS[condition.sign](values, condition.limit)
        refused |= missed
        missing |= lacking
        rows.append(_cost(str(condition), kept, length, missed, lacking))
    # What the limits had no part in (an error, lost landmarks) does not come back by a looser limit. The length is
    # looked at before anything else is measured, in the stage "segments".
    by_limits = np.isin(texts(table, "stage").astype(str), ("filters", "segments"))
    back = ~kept & by_limits & misses(table, old).any(axis=0) & ~refused
    measured = ~missing
    for rule in old:
        if rule.score in table.column_names and not np.isnan(numbers(table, rule.score)[kept]).all():
            measured &= ~np.isnan(numbers(table, rule.score))

    def count(which: np.ndarray) -> dict:
        return {"clips": int(which.sum()), "hours": float(length[which].sum())}

    return {
        "before": count(kept),
        "after": count(kept & ~refused & ~missing),
        "lost": count(kept & refused),
        "not_measured": count(kept & ~refused & missing),
        "gained": count(back & measured),
        "unknown": count(back & ~measured),
        "conditions": rows,
    }


def _cost(name: str, kept, length, missed, missing) -> dict:
    return {
        "condition": name,
        "lost_clips": int((kept & missed).sum()),
        "lost_hours": float(length[kept & missed].sum()),
        "not_measured": int((kept & missing).sum()),
    }


def recount_text(counts: dict) -> str:
    """The counts as lines for a terminal."""

    def amount(value: dict) -> str:
        return f"{value['hours']:.4f} h in {value['clips']} clips"

    lines = [f"before        {amount(counts['before'])}", f"after         {amount(counts['after'])}"]
    for row in counts["conditions"]:
        missing = f"; {row['not_measured']} clips lack the score" if row["not_measured"] else ""
        lines.append(f"  {row['condition']}: loses {row['lost_hours']:.4f} h in {row['lost_clips']} clips{missing}")
    if counts["not_measured"]["clips"]:
        lines.append(f"not measured  {amount(counts['not_measured'])} (they lack a score that a condition asks for)")
    if counts["gained"]["clips"]:
        lines.append(f"gained        {amount(counts['gained'])} (needs curate again: their video is not stored)")
    if counts["unknown"]["clips"]:
        lines.append(f"unknown       {amount(counts['unknown'])} (rejected before every score was measured)")
    return "\n".join(f"what-if: {line}" for line in lines)
