"""The page's pictures: kept clips, what was rejected and why, the worst of what was kept."""

import json

from pipelines import overlay
from pipelines.reporting.findings import Findings
from pipelines.reporting.markup import base_name, duration, escape, folded, image_tag, note, table, words
from pipelines.reporting.samples import WORST, Card, Rejected
from pipelines.reporting.schema import SCORES_FILE, TABLES

GROUPS = 48  # reasons of rejection that are shown with pictures
LISTED = 200  # rejected rows that are listed


def kept_section(found: Findings) -> str:
    if not found.cards:
        return "<p>No clip was kept.</p>"
    parts = "the crop, its landmarks" + (", its parsing" if "semantics" in found.manifest["columns"] else "")
    total = found.figures["clips"]
    which = f"{len(found.cards):,} of {total:,} clips, evenly spread. First and middle frame of each: {parts}."
    return note(which) + f"<div class=cards>{''.join(map(_card, found.cards))}</div>"


def _card(card: Card) -> str:
    name = base_name(card.source)
    lines = [image_tag(overlay.encode_image(card.picture), "jpeg", card.source)]
    lines.append(f"<p><b>{name}</b> {card.seconds:.1f} s<br><code class=dim>{escape(card.clip_id)}</code></p>")
    if card.script:
        lines.append(f"<p>{escape(_cut(card.script, 600))}</p>")
    if card.description:
        lines.append(folded("description", _cut(_pretty(card.description), 4000)))
    return f"<div class=card>{''.join(lines)}</div>"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    except json.JSONDecodeError:
        return text


def rejected_section(found: Findings) -> str:
    if not found.rejected:
        return "<p>Nothing was rejected.</p>"
    parts = [
        note(
            "Segments, and sources of which no segment was cut. Pictures come from the source videos, read when this "
            "report was made: the middle of a segment, a third into a source."
        )
    ]
    groups = []
    for (stage, kind, reason), (count, hours, samples) in list(found.rejected.items())[:GROUPS]:
        shown = "" if len(samples) == count else f", {len(samples)} shown"
        long = f", {duration(hours)}" if hours else ""
        failed = " <span class=failed>failed</span>" if kind == "failed" else ""
        tiles = "".join(_reject_tile(item) for item in samples)
        groups.append(
            f"<div class=group><h3>{words(reason)}{failed} <span class=dim>in {words(stage)}: {count:,}{long}{shown}"
            f"</span></h3><div class=strip>{tiles}</div></div>"
        )
    parts.append(f"<div class=groups>{''.join(groups)}</div>")
    if len(found.rejected) > GROUPS:
        parts.append(note(f"{len(found.rejected) - GROUPS:,} rarer reasons are not shown."))
    return "".join(parts) + _reject_list(found)


def _reject_tile(item: Rejected) -> str:
    if item.picture is None:
        picture = f"<div class=none>no picture: {escape(item.note)}</div>"
    else:
        picture = image_tag(item.picture, "jpeg", item.source)
    detail = escape(_cut(item.detail, 140))
    return (
        f"<figure class=frame>{picture}<figcaption><b>{base_name(item.source)}</b> {escape(item.span)}<br>{detail}"
        "</figcaption></figure>"
    )


def _reject_list(found: Findings) -> str:
    rejects = found.tables.rejects
    first = rejects.slice(0, LISTED).to_pylist()
    rows = []
    for row in first:
        whole = row.get("start_frame") is None
        rows.append(
            (
                f"<span class=path>{base_name(row['source'])}</span>",
                "whole source" if whole else f"{row['start_frame']}&ndash;{row['end_frame']}",
                words(row["stage"]),
                f"<span class={escape(row['kind'])}>{words(row['reason'])}</span>",
                f"<span class=path>{escape(row['detail'] or '')}</span>",
            )
        )
    title = f"the rows of rejects/: {len(rejects):,}" + (f", the first {LISTED}" if len(rejects) > LISTED else "")
    rows_text = table(("source", "frames", "stage", "reason", "detail"), rows)
    return f"<details><summary>{title}</summary>{rows_text}</details>"


def worst_section(found: Findings) -> str:
    if not found.worst:
        return ""
    meaning = TABLES[SCORES_FILE][1]
    parts = [note("The kept clips nearest to being rejected, or first to be looked at. A picture opens the clip.")]
    for score, clips in found.worst.items():
        side = "lowest" if WORST[score] == "low" else "highest"
        tiles = "".join(
            f'<figure><a href="{escape(clip.preview)}">{image_tag(clip.picture, "jpeg", clip.source)}</a>'
            f"<figcaption><b>{clip.value:.4g}</b> {base_name(clip.source)}</figcaption></figure>"
            for clip in clips
        )
        parts.append(
            f"<div><h3>{side} {escape(score)} <span class=dim>{escape(meaning[score][1])}</span></h3>"
            f"<div class=strip>{tiles}</div></div>"
        )
    return f"{parts[0]}<div class=lists>{''.join(parts[1:])}</div>"
