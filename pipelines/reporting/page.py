"""The report's page, section by section: one HTML file that opens without a network."""

from collections.abc import Sequence

import numpy as np

from pipelines.reporting import charts, gallery, sections
from pipelines.reporting.decisions import Rule, scored
from pipelines.reporting.findings import Findings
from pipelines.reporting.funnel import BETWEEN
from pipelines.reporting.markup import STYLE, bar, duration, escape, image_tag, note, percent, table, words
from pipelines.reporting.schema import SCORES_FILE, TABLES
from pipelines.reporting.tables import flags, hours, numbers, texts, totals
from pipelines.stages.filters import LABELS


def render_page(found: Findings) -> str:
    parts = [
        ("funnel", "Funnel", "Where the hours go", _funnel(found)),
        ("scores", "Scores", "Scores and their thresholds", _scores(found)),
        ("correlation", "Correlation", "Correlation between scores", _correlation(found)),
        ("kept", "Kept", "Kept clips", gallery.kept_section(found)),
        ("rejected", "Rejected", "Rejected, by reason", gallery.rejected_section(found)),
        ("worst", "Worst", "Worst of what was kept", gallery.worst_section(found)),
        ("people", "People", "Who and what the hours show", sections.people_section(found)),
        ("duplicates", "Duplicates", "Duplicates", sections.duplicates_section(found)),
        ("failures", "Failures", "Failures", sections.failures_section(found)),
        ("annotations", "Annotations", "Annotations", sections.annotations_section(found)),
        ("rates", "Rates", "Rates by stage", sections.rates_section(found)),
        ("provenance", "Provenance", "Provenance", sections.provenance_section(found)),
    ]
    parts = [part for part in parts if part[3]]
    links = "".join(f'<a href="#{name}">{short}</a>' for name, short, _, _ in parts)
    body = "\n".join(
        f'<section class="{name}"><h2 id="{name}">{title}</h2>\n{text}</section>' for name, _, title, text in parts
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Data quality: {escape(found.dataset)}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>Data quality</h1><div class=dim><code class=path>{escape(found.dataset)}</code></div>\n"
        f"{_summary(found)}<nav>{links}</nav>\n{body}\n</body></html>\n"
    )


# --- The top ---


def _summary(found: Findings) -> str:
    figures, funnel = found.figures, found.funnel
    kept = funnel.hours_kept
    tiles = []
    if funnel.hours_in is not None:
        tiles.append((duration(funnel.hours_in), "of video in"))
    share = f" ({percent(kept, funnel.hours_in)})" if funnel.hours_in else ""
    tiles.append((duration(kept), f"kept{share}"))
    speech = figures["hours_speech"]
    if speech is not None:
        tiles.append((duration(speech), "of speech in it"))
    tiles += [
        (f"{figures['sources']:,}", "sources in"),
        (f"{figures['sources_with_clips']:,}", "gave clips"),
        (f"{figures['clips']:,}", "clips"),
        (f"{figures['failed']:,}", "rows failed"),
    ]
    inner = "".join(f"<div class=tile><b>{value}</b><span>{text}</span></div>" for value, text in tiles)
    books = _books(found)
    return f"<div class=tiles>{inner}</div>{books}"


def _books(found: Findings) -> str:
    figures = found.figures
    text = (
        f"The books close: {figures['sources']:,} sources in = {figures['sources_with_clips']:,} with clips + "
        f"{figures['sources_filtered']:,} filtered + {figures['sources_failed']:,} failed."
    )
    books = found.manifest.get("books", {})
    rows = [
        (
            escape(job),
            escape(book["unit"]),
            f"{book['items']:,}",
            f"{book['kept']:,}",
            f"{sum(book['filtered'].values()):,}",
            f"{sum(group['count'] for group in book['failed']):,}",
        )
        for job, book in sorted(books.items())
    ]
    jobs = table(("job", "", "in", "kept", "filtered", "failed"), rows, (2, 3, 4, 5)) if rows else ""
    return note(text) + jobs


# --- The funnel ---


def _funnel(found: Findings) -> str:
    funnel = found.funnel
    start = funnel.hours_in
    if start is None:
        start = funnel.hours_kept + sum(loss.hours for loss in funnel.losses)
    start = start or 1e-12
    left = start
    name = "all sources" if funnel.hours_in is not None else "all segments"
    rows = [(f"<b>{name}</b>", "", "", "", duration(left), bar(1.0, kind="m"), "")]
    marks = {0: "sum"}
    for loss in funnel.losses:
        before, left = left, left - loss.hours
        if loss.reason == BETWEEN:
            what, count = "no speech, or no face followed", f"in {loss.count:,} sources"
        else:
            what = words(loss.reason)
            count = f"{loss.count:,} {'source' if loss.whole else 'segment'}{'' if loss.count == 1 else 's'}"
        kind = "failed" if loss.kind == "failed" else "path"
        rows.append(
            (
                f"<span class={kind}>{what}</span>",
                f"<span class=dim>{words(loss.stage)}</span>",
                count,
                f"&minus;{duration(loss.hours)}",
                duration(left),
                bar(loss.hours / start, (before - loss.hours) / start, "l"),
                "" if loss.alone is None else duration(loss.alone),
            )
        )
    rows.append(("<b>kept</b>", "", "", "", duration(left), bar(left / start), ""))
    marks[len(rows) - 1] = "kept"
    key = (
        '<p class="note"><span class="key l"></span>lost here<span class="key k"></span>kept. In the order of the '
        "pipeline; a segment is lost to the weightiest of its reasons. <b>Lost to it alone</b> is the marginal loss: "
        "hours of the segments that meet every other limit, so what dropping this filter would bring back. It is "
        "computed from the stored scores, and empty where a source or segment went before it was measured.</p>"
    )
    return key + table(
        ("", "stage", "", "lost", "left", "", "lost to it alone"), rows, numbers=(2, 3, 4, 6), bars=(5,), marks=marks
    )


# --- Scores ---


def chart_limits(limits: Sequence[Rule], score: str) -> list[tuple[str, float]]:
    """The thresholds to draw on a score's histogram; one that bounds its size is drawn on both sides."""
    out = []
    for rule in limits:
        if rule.score == score:
            out += [("below", -rule.limit), ("above", rule.limit)] if rule.signed else [(rule.side, rule.limit)]
    return out


def _score_names(found: Findings) -> list[str]:
    """Every column of numbers of the joined table that has a meaning as a score."""
    meaning = TABLES[SCORES_FILE][1]
    skip = {"start_frame", "end_frame", "group", "words"}
    return [
        name
        for name in found.scores.column_names
        if name not in skip
        and meaning[name][0] in ("float32", "int32")
        and not np.isnan(numbers(found.scores, name)).all()
    ]


def _scores(found: Findings) -> str:
    meaning = TABLES[SCORES_FILE][1]
    kept = flags(found.scores, "kept")
    items = []
    for name in _score_names(found):
        values = scored(found.scores, name)
        there = ~np.isnan(values)
        limits = chart_limits(found.limits, name)
        picture = charts.histogram(values[there & kept], values[there & ~kept], limits)
        bounds = ", ".join(f"{'at least' if side == 'below' else 'at most'} {limit:g}" for side, limit in limits)
        missing = int((kept & ~there).sum())
        more = f" Not measured in {missing:,} kept clips." if missing else ""
        limit = f" <b class=failed>{bounds}</b>" if bounds else ""
        items.append(
            f"<div class=chart><b>{escape(name)}</b>{limit}"
            f"{image_tag(picture, 'svg+xml', f'distribution of {name}')}<p>{escape(meaning[name][1])}.{more}</p></div>"
        )
    if not items:
        return "<p>Nothing was measured.</p>"
    count = f"{int(kept.sum()):,} kept and {int((~kept).sum()):,} rejected segments"
    key = (
        f'<p class="note"><span class="key k"></span>kept<span class="key l"></span>rejected, for whatever reason. '
        f"{count}, counted upwards; a segment that was rejected before a score was measured is not in its chart. The "
        "red line is the threshold, its wrong side is shaded; one far outside is written but not drawn. Outliers (the "
        "outer half per cent on each side) are in the outer bars.</p>"
    )
    return f"{key}<div class=charts>{''.join(items)}</div>{_labels(found)}"


def _labels(found: Findings) -> str:
    kept = flags(found.scores, "kept")
    length = hours(found.scores)
    parts = []
    for name, meaning in LABELS.items():
        if name in found.scores.column_names and not name.endswith("_hash"):
            sums = totals(texts(found.scores, name)[kept], length[kept])
            rows = [(escape(word or "not measured"), duration(value)) for word, value in list(sums.items())[:12]]
            parts.append(f"<div><h3>{escape(name)}</h3>{note(escape(meaning))}{table(('', 'kept'), rows, (1,))}</div>")
    return f"<div class=columns>{''.join(parts)}</div>" if parts else ""


def _correlation(found: Findings) -> str:
    columns = {name: scored(found.scores, name) for name in _score_names(found)}
    if not columns:
        return ""
    measured = ~np.isnan(np.stack(list(columns.values()))).all(axis=0)
    names, values = charts.spearman({name: column[measured] for name, column in columns.items()})
    if len(names) < 2:
        return "<p>Too few segments to correlate.</p>"
    strong = [
        (abs(values[i, j]), f"{escape(names[i])} and {escape(names[j])} ({values[i, j]:+.2f})")
        for i in range(len(names))
        for j in range(i)
        if np.isfinite(values[i, j])
    ]
    strong.sort(key=lambda item: -item[0])
    most = "; ".join(text for _, text in strong[:6])
    rows = int(measured.sum())
    width = min(1184, 230 + 29 * len(names))
    matrix = charts.correlation_matrix(names, values)
    picture = image_tag(matrix, "svg+xml", "rank correlation of every pair of scores", width)
    return (
        note(
            f"Spearman's rank correlation in hundredths, over {min(rows, charts.RANKED):,} measured segments, kept or "
            f"not. Blue: they rise together; red: one falls as the other rises. Strongest: {most}."
        )
        + f'<div class="scroll wide">{picture}</div>'
    )
