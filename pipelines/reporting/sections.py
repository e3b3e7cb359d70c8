"""The page's tables: shares of hours, doubles, failures, annotations, rates, provenance."""

import json
import re
from collections.abc import Mapping

import numpy as np

from models.signals import VIDEO_FPS
from pipelines.dataset import ANNOTATIONS
from pipelines.reporting.bias import never_said
from pipelines.reporting.findings import Findings
from pipelines.reporting.funnel import Rate
from pipelines.reporting.markup import bar, base_name, duration, escape, folded, note, percent, table, words
from pipelines.reporting.schema import SCORES_FILE
from pipelines.reporting.tables import flags, hours, texts, totals

LISTED = 200  # failures and annotation errors that are listed
MANIFEST_CHARACTERS = 200_000
BLIND = (
    "A captioner gives an impression, not a fact about a person: gender presentation is what it takes a person for, an "
    "age group is a guess, skin tone is the skin as this light shows it, and dim or coloured light moves it. It cannot "
    "see who somebody is, where they come from or what they would call themselves."
)


def people_section(found: Findings) -> str:
    captioners = sorted({item.made_by for item in found.shares if item.title != "Language"} - {""})
    captioners = [name for name in captioners if name != "the filters' landmarks"]
    who = ", ".join(f"<b>{escape(name)}</b>" for name in captioners)
    silent = never_said([item for item in found.shares if item.made_by in captioners])
    text = "Share of the kept hours. "
    if who:
        text += f"Described by the captioner {who}."
    else:
        text += "There is no description yet; <code>archon annotate --columns description</code> adds it."
    if silent:
        text += f" This captioner says “unknown” for every clip about: {escape(', '.join(silent).lower())}."
    parts = [note(f"{text} {BLIND}")]
    for item in found.shares:
        rows = [
            (escape(word), bar(amount / item.total if item.total else 0), percent(amount, item.total), duration(amount))
            for word, amount in item.rows
        ]
        by = f" <span class=dim>by {escape(item.made_by)}</span>" if item.made_by else ""
        shares = table((), rows, numbers=(2, 3), bars=(1,))
        parts.append(f"<div><h3>{escape(item.title)}{by}</h3>{shares}</div>")
    return f"{parts[0]}<div class=columns>{''.join(parts[1:])}</div>"


def duplicates_section(found: Findings) -> str:
    double = found.tables.duplicates
    if found.tables.stale_duplicates:
        again = f"archon duplicates --dataset {escape(found.dataset)}"
        return note(
            "The table of duplicates is <b>stale</b>: it is not of these clips, and left out. "
            f"<code>{again}</code> makes it again."
        )
    if double is None:
        return ""
    if len(double) == 0:
        return "<p>No clip has a double.</p>"
    groups = len(np.unique(texts(double, "group").astype(str)))
    kinds = totals(texts(double, "kind"), np.ones(len(double)))
    rows = [(words(kind or "the one to keep"), f"{int(count):,}") for kind, count in kinds.items()]
    length = hours(found.scores)[flags(found.scores, "kept")]
    extra = texts(found.scores, "duplicate_of")[flags(found.scores, "kept")] != ""
    text = (
        f"{len(double):,} clips in {groups:,} groups of doubles. Without all but the one to keep of each, "
        f"{duration(float(length[~extra].sum()))} of {duration(float(length.sum()))} would be left."
    )
    return note(text) + table(("what is the same", "clips"), rows, (1,))


def failures_section(found: Findings) -> str:
    if not found.failures:
        return "<p>Nothing failed.</p>"
    rows = []
    for item in found.failures[:LISTED]:
        detail = f"<span class=path>{escape(item.detail)}</span>"
        if item.traceback:
            detail += folded("traceback", item.traceback)
        rows.append(
            (
                escape(item.stage),
                f"<span class=failed>{escape(item.type)}</span>",
                f"<code>{escape(item.traceback_hash)}</code>",
                f"{item.count:,}",
                f"<span class=path>{base_name(item.example)}</span>",
                detail,
            )
        )
    how = note("Grouped by stage, type of error and hash of the traceback; one example of each.")
    return how + table(("stage", "type", "traceback", "count", "example", "detail"), rows, (3,))


def annotations_section(found: Findings) -> str:
    rows = []
    for name in ANNOTATIONS:
        if name in found.manifest["columns"]:
            column = found.manifest["columns"][name]
            made = column["producer"]
            spent = made.get("spent")
            paid = f"{spent['cost']} {spent['currency']}" if spent else ""
            counts = (f"{column['count']:,}", f"{len(found.errors.get(name, ())):,}")
            rows.append((name, escape(made.get("backend", "")), *counts, escape(paid)))
    if not rows:
        return "<p>Not annotated.</p>"
    which = [text for errors in found.errors.values() for text in errors]
    title = f"errors: {len(which):,}" + (f", the first {LISTED}" if len(which) > LISTED else "")
    more = folded(title, "\n".join(which[:LISTED])) if which else ""
    return table(("column", "made by", "rows", "errors", "paid"), rows, (2, 3)) + more


def rates_section(found: Findings) -> str:
    if not found.rates:
        return ""

    def per_second(amount: float | None, seconds: float, unit: str) -> str:
        return "" if amount is None or seconds <= 0 else f"{_rate(amount / seconds)}{unit}"

    def video(rate: Rate) -> float | None:
        return rate.video_seconds if rate.frames is None else rate.frames / VIDEO_FPS

    longest = max(rate.seconds for rate in found.rates) or 1.0
    rows = [
        (
            escape(rate.job),
            escape(rate.step),
            f"{rate.shards:,}",
            duration(rate.seconds / 3600),
            bar(rate.seconds / longest, kind="m"),
            per_second(rate.frames, rate.seconds, ""),
            per_second(video(rate), rate.seconds, "&times;"),
        )
        for rate in found.rates
    ]
    head = ("job", "step", "shards", "work", "", "frames per second", "real time")
    return note(
        "Work is summed over workers, each of which has one core: what two share takes about half of it on the clock. "
        "Real time: seconds of video per second of work."
    ) + table(head, rows, numbers=(2, 3, 5, 6), bars=(4,))


def provenance_section(found: Findings) -> str:
    rows = []
    for name, column in sorted(found.manifest["columns"].items()):
        made = column.get("producer", {})
        made = made.get("made_by", {}).get(name, made)
        hashes = [_short(made.get(key, "")) for key in ("code", "config", "weights")]
        rows.append(
            (
                name,
                escape(made.get("backend", "")),
                f"{column['count']:,}",
                f"{len(column.get('shards', ())):,}",
                *hashes,
            )
        )
    text = json.dumps(found.manifest, indent=1, sort_keys=True, ensure_ascii=False)
    title = "the whole manifest"
    if len(text) > MANIFEST_CHARACTERS:
        text = text[:MANIFEST_CHARACTERS]
        title = f"the manifest's first {MANIFEST_CHARACTERS:,} characters"
    producers = table(("column", "made by", "rows", "shards", "code", "configuration", "weights"), rows, (2, 3))
    scores = f'<a href="{SCORES_FILE.split("/")[-1]}">{SCORES_FILE}</a>'
    where = (
        f"Every score and decision of this report is in {scores}, one row per segment ({len(found.scores):,}); what "
        "its columns mean is in the file's schema and in docs/schema.md."
    )
    return note(where) + producers + folded(title, text)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _short(value) -> str:
    """A hash, or names with hashes, as shown: a hash's first characters, all of it in the tooltip; a name a line."""
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(name)} {_short(item)}" for name, item in sorted(value.items()))
    text = escape(value)
    short = re.sub(r"[0-9a-f]{17,}", lambda found: found[0][:16], text).replace(", ", "<br>")
    return f'<code title="{text}">{short}</code>' if text else ""
