"""What a report found out, gathered for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.reporting.bias import Shares
from pipelines.reporting.decisions import Rule
from pipelines.reporting.funnel import Failure, Funnel, Rate
from pipelines.reporting.samples import Card, Rejected, WorstClip
from pipelines.reporting.tables import Tables

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows. ``scores`` is the joined table, one row per segment."""

    dataset: str
    manifest: Mapping
    figures: Mapping
    tables: Tables
    scores: "pa.Table"
    limits: Sequence[Rule]
    funnel: Funnel
    failures: Sequence[Failure]
    rates: Sequence[Rate]
    errors: Mapping[str, Sequence[str]]
    cards: Sequence[Card]
    rejected: Mapping[tuple[str, str, str], tuple[int, float, Sequence[Rejected]]]
    worst: Mapping[str, Sequence[WorstClip]]
    shares: Sequence[Shares]
