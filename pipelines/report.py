"""The data-quality report: what came in, what was kept, what was not and why, and what the kept clips are like.

archon report --dataset DATASET      ->  DATASET/report/index.html, one file that needs nothing beside it
"""

import argparse
import base64
import html
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.signals import SPEECH_RATE, VIDEO_FPS
from pipelines import overlay, storage
from pipelines.dataset import ANNOTATIONS, Dataset, Record
from pipelines.state import STATE

REPORT = "report/index.html"
CONTACT_SHEET = "report/contact_sheet.png"
NOT_SCORES = {"source", "clip_id", "start_frame", "end_frame", "kept"}


@dataclass(frozen=True)
class ReportConfig:
    """Which dataset to report on; ``clips`` is how many the contact sheet shows at most."""

    dataset: str
    clips: int = 48


@dataclass(frozen=True)
class Tables:
    """The dataset's tables as lists of rows: rejects, quality, and the seconds that each stage took."""

    rejects: list[dict]
    quality: list[dict]
    stages: list[dict]


def read_table(root: str, name: str) -> list[dict]:
    """Reads every Parquet shard of rejects/ or quality/ as a list of rows."""
    import pyarrow.parquet

    rows = []
    for path in storage.list_files(storage.join(root, name, "*.parquet")):
        with storage.local_copy(path) as local:
            rows += pyarrow.parquet.read_table(local).to_pylist()
    return rows


def read_stages(root: str) -> list[dict]:
    """Reads from the markers how long each step took: job, step, shards, clips, seconds of work."""
    stages: dict[tuple[str, str], dict] = {}
    for path in storage.list_files(storage.join(root, STATE, "*", "*", "*.json")):
        job, step = path.split("/")[-3:-1]
        marker = json.loads(storage.read_bytes(path))
        row = stages.setdefault((job, step), {"job": job, "step": step, "shards": 0, "seconds": 0.0})
        row["shards"] += 1
        row["seconds"] += marker["seconds"]
    return list(stages.values())


def account(manifest: Mapping, tables: Tables) -> dict:
    """Counts sources and clips, and raises if the books do not close.

    Sources in = sources with clips + sources without. A source without a clip has a reject row of its own, which names
    no clip.
    """
    kept = [row for row in tables.quality if row["kept"]]
    with_clips = {row["source"] for row in kept}
    without = {row["source"] for row in tables.rejects if not row["clip_id"]} - with_clips
    sources = manifest.get("sources", len(with_clips | without))
    if len(with_clips) + len(without) != sources:
        raise RuntimeError(
            f"the books do not close: {sources} sources in, {len(with_clips)} with clips, {len(without)} rejected"
        )
    return {
        "sources": sources,
        "sources_with_clips": len(with_clips),
        "sources_rejected": len(without),
        "clips": len(kept),
        "filtered": sum(row["kind"] == "filtered" for row in tables.rejects),
        "failed": sum(row["kind"] == "failed" for row in tables.rejects),
    }


def report(config: ReportConfig) -> dict:
    """Writes the report and its contact sheet; returns the counts and where they are."""
    dataset = Dataset(config.dataset)
    manifest = dataset.manifest()
    columns = {name: dataset.column(name) for name in manifest["columns"]}
    tables = Tables(read_table(dataset.root, "rejects"), read_table(dataset.root, "quality"), read_stages(dataset.root))
    figures = account(manifest, tables)
    frames = sum(row["end_frame"] - row["start_frame"] for row in tables.quality if row["kept"])
    figures["hours_kept"] = frames / VIDEO_FPS / 3600
    figures["hours_speech"] = speech_hours(columns)
    errors = annotation_errors(columns)
    shown = list(range(min(config.clips, len(columns.get("clips", ())))))
    cards = [clip_card(columns, row) for row in shown]
    page = render_page(config, manifest, tables, figures, errors, cards)
    storage.write_bytes(dataset.path(REPORT), page.encode())
    paths = {"report": dataset.path(REPORT)}
    if cards:
        sheet = overlay.grid([card["picture"] for card in cards], columns=2)
        storage.write_bytes(dataset.path(CONTACT_SHEET), overlay.encode_image(sheet, "PNG"))
        paths["contact_sheet"] = dataset.path(CONTACT_SHEET)
    print(
        f"report: {figures['sources']} sources in, {figures['sources_with_clips']} gave {figures['clips']} clips "
        f"({figures['hours_kept'] * 60:.1f} min), {figures['sources_rejected']} gave none; {paths['report']}",
        flush=True,
    )
    return {**figures, "annotation_errors": errors, **paths}


def speech_hours(columns: Mapping[str, Sequence[Record]]) -> float | None:
    """Hours in which somebody speaks, by the speech column's voice activity; None without that column."""
    if "speech" not in columns:
        return None
    steps = sum(int(row["activity"].sum()) for row in columns["speech"] if not row["error"])
    return steps / SPEECH_RATE / 3600


def annotation_errors(columns: Mapping[str, Sequence[Record]]) -> dict[str, list[str]]:
    """Column -> "clip: error" of each row whose annotator failed."""
    return {
        name: [f"{row['clip_id']}: {row['error']}" for row in columns[name] if row["error"]]
        for name in ANNOTATIONS
        if name in columns
    }


def clip_card(columns: Mapping[str, Sequence[Record]], row: int) -> dict:
    """One clip as a strip of pictures (crop, landmarks, parsing, at two moments) and its texts."""
    from pipelines.stages.frames import decode_video

    clip = columns["clips"][row]
    video = decode_video(clip["video"], clip["clip_id"])
    labels = None
    if "semantics" in columns and not columns["semantics"][row]["error"]:
        labels = columns["semantics"][row]["labels"]
    tiles = []
    for index in (0, len(video) // 2):
        tiles += [video[index], overlay.draw_landmarks(video[index], clip["landmarks"][index])]
        # A clip without parsing leaves its tile empty, so that strips keep one size.
        parsed = np.full_like(video[index], 235)
        tiles.append(parsed if labels is None else overlay.blend_labels(video[index], labels[index], 0.6))
    small = [overlay.resize(tile, 128) for tile in tiles]
    texts = {}
    if "script" in columns and not columns["script"][row]["error"]:
        texts["script"] = columns["script"][row]["text"]
    if "description" in columns and not columns["description"][row]["error"]:
        texts["description"] = columns["description"][row]["description"]
    return {
        "clip_id": clip["clip_id"],
        "source": clip["source"],
        "seconds": clip["num_frames"] / VIDEO_FPS,
        "picture": overlay.grid(small, columns=len(small), gap=2),
        **texts,
    }


# --- The page ---

STYLE = """
:root { --ink: #1c2330; --dim: #5c6675; --line: #dfe3ea; --good: #1a7f5a; --bad: #b3412e; --bar: #4c78c8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 0 auto; padding: 28px 24px
60px; } h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 18px; margin: 36px 0 10px; } p.note { color:
var(--dim); margin: 2px 0 10px; } .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr));
gap: 10px; margin: 18px 0; } .tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; } .tile b {
display: block; font-size: 24px; } .tile span { color: var(--dim); font-size: 13px; } table { border-collapse:
collapse; width: 100%; font-size: 14px; } th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid
var(--line); vertical-align: top; } th { color: var(--dim); font-weight: 600; } td.n { text-align: right; font-variant-
numeric: tabular-nums; } td.path { word-break: break-all; } .filtered { color: var(--dim); } .failed { color:
var(--bad); } .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px; }
.charts img, .card img { width: 100%; display: block; } .cards { display: grid; grid-template-columns: repeat(auto-
fill, minmax(520px, 1fr)); gap: 14px; } .card { border: 1px solid var(--line); border-radius: 8px; padding: 10px;
break-inside: avoid; } .card p { margin: 6px 0 0; font-size: 13px; } .card code { font-size: 12px; color: var(--dim); }
details summary { cursor: pointer; color: var(--dim); font-size: 13px; } pre { white-space: pre-wrap; font-size: 12px;
} @media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } }
"""


def escape(value) -> str:
    """File names, scripts and error texts come from outside: nothing of them may be markup."""
    return html.escape(str(value))


def table(head: Sequence[str], rows: Sequence[Sequence], numbers: Sequence[int] = ()) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i in numbers else ''}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"


def image_tag(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def histogram(name: str, values: Sequence[float], threshold: Mapping | None) -> str:
    """A small histogram with its threshold, as an image tag."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1, 1.9), dpi=110)
    axes = figure.add_subplot()
    axes.hist(values, bins=min(24, max(6, len(values))), color="#4c78c8")
    for side, bound in (threshold or {}).items():
        axes.axvline(bound, color="#b3412e", linewidth=1.2, label=f"{side} {bound:g}")
    if threshold:
        axes.legend(fontsize=6, frameon=False)
    axes.set_title(name, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return image_tag(buffer.getvalue(), "png", f"distribution of {name}")


def thresholds_of(manifest: Mapping) -> dict[str, dict[str, float]]:
    """Score -> {"min": bound, "max": bound}, read from the filter configuration that curate stored in the manifest."""
    bounds: dict[str, dict[str, float]] = {}
    stored = manifest["columns"].get("clips", {}).get("producer", {}).get("thresholds", {})
    for name, bound in stored.items():
        for side in ("min", "max"):
            if name.startswith(f"{side}_") and isinstance(bound, int | float):
                bounds.setdefault(name[len(side) + 1 :], {})[side] = bound
    return bounds


def render_page(
    config: ReportConfig,
    manifest: Mapping,
    tables: Tables,
    figures: Mapping,
    errors: Mapping[str, Sequence[str]],
    cards: Sequence[Mapping],
) -> str:
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Data quality: {escape(config.dataset)}</title>",
        '<meta name="viewport" content="width=device-width">',
        f"<style>{STYLE}</style><h1>Data quality</h1><p class=note>{escape(config.dataset)}</p>",
        _tiles(figures),
        f"<p class=note>The books close: {figures['sources']} sources in = {figures['sources_with_clips']} with clips "
        f"+ {figures['sources_rejected']} without.</p>",
        "<h2>Why sources and segments were not kept</h2>",
        _rejects(tables.rejects),
        "<h2>The kept clips</h2>",
        _distributions(manifest, tables.quality),
        "<h2>Contact sheet</h2>",
        "<p class=note>First and middle frame of each clip: the crop, its landmarks, its parsing.</p>",
        f"<div class=cards>{''.join(_card(card) for card in cards)}</div>",
        "<h2>Annotations</h2>",
        _annotations(manifest, errors),
        "<h2>Seconds of work by stage</h2>",
        table(
            ("job", "step", "shards", "seconds"),
            [(escape(r["job"]), escape(r["step"]), r["shards"], f"{r['seconds']:.1f}") for r in tables.stages],
            (2, 3),
        ),
        "<p class=note>Summed over workers: what two workers share takes about half of this on the clock.</p>",
        "<h2>Provenance</h2>",
        f"<details><summary>manifest</summary><pre>{escape(json.dumps(manifest, indent=1, sort_keys=True))}</pre>",
        "</details>",
        "</html>\n",
    ]
    return "\n".join(parts)


def _tiles(figures: Mapping) -> str:
    speech = figures["hours_speech"]
    tiles = [
        (figures["sources"], "sources in"),
        (figures["clips"], "clips kept"),
        (figures["sources_rejected"], "sources that gave none"),
        (figures["filtered"], "rows filtered"),
        (figures["failed"], "rows failed"),
        (f"{figures['hours_kept']:.4f}", "hours kept"),
        ("not measured" if speech is None else f"{speech:.4f}", "hours of speech"),
    ]
    inner = "".join(f"<div class=tile><b>{value}</b><span>{text}</span></div>" for value, text in tiles)
    return f"<div class=tiles>{inner}</div>"


def _rejects(rejects: Sequence[Mapping]) -> str:
    if not rejects:
        return "<p>Nothing was rejected.</p>"
    counts = Counter((row["stage"], row["kind"], row["reason"]) for row in rejects)
    summary = table(
        ("stage", "kind", "reason", "rows"),
        [
            (escape(s), f"<span class={escape(k)}>{escape(k)}</span>", escape(r), n)
            for (s, k, r), n in counts.most_common()
        ],
        (3,),
    )
    rows = [
        (
            f"<span class=path>{escape(str(row['source']).rsplit('/', 1)[-1])}</span>",
            "whole source" if row["start_frame"] is None else f"{row['start_frame']}-{row['end_frame']}",
            escape(row["stage"]),
            escape(row["reason"]),
            escape(row["detail"] or ""),
        )
        for row in rejects[:500]
    ]
    return f"{summary}<h2>Each of them</h2>{table(('source', 'frames', 'stage', 'reason', 'detail'), rows)}"


def _distributions(manifest: Mapping, quality: Sequence[Mapping]) -> str:
    bounds = thresholds_of(manifest)
    charts = []
    for name in quality[0] if quality else ():
        values = [row[name] for row in quality if isinstance(row[name], int | float) and np.isfinite(row[name])]
        if name not in NOT_SCORES and values:
            charts.append(f"<div>{histogram(name, values, bounds.get(name))}</div>")
    return f"<div class=charts>{''.join(charts)}</div>" if charts else "<p>No clips.</p>"


def _card(card: Mapping) -> str:
    name = escape(str(card["source"]).rsplit("/", 1)[-1])
    lines = [image_tag(overlay.encode_image(card["picture"]), "jpeg", name)]
    lines.append(f"<p><b>{name}</b> {card['seconds']:.1f} s <code>{escape(card['clip_id'])}</code></p>")
    if card.get("script"):
        lines.append(f"<p>{escape(card['script'])}</p>")
    if card.get("description"):
        text = escape(card["description"])
        lines.append(f"<details><summary>description</summary><pre>{text}</pre></details>")
    return f"<div class=card>{''.join(lines)}</div>"


def _annotations(manifest: Mapping, errors: Mapping[str, Sequence[str]]) -> str:
    rows = []
    for name in ANNOTATIONS:
        if name in manifest["columns"]:
            column = manifest["columns"][name]
            backend = column["producer"].get("backend", "")
            which = escape("; ".join(errors[name][:5]))
            rows.append((name, escape(backend), column["count"], len(errors[name]), which))
    return table(("column", "backend", "rows", "errors", "which"), rows, (2, 3)) if rows else "<p>Not annotated.</p>"


# --- The command ---


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes DATASET/report/index.html: counts, reasons, distributions, contact sheet, provenance."
    parser.epilog = "example:\n  archon report --dataset demo/dataset"
    parser.add_argument("--dataset", required=True, help="a dataset made by `archon curate`")
    parser.add_argument("--clips", type=int, default=48, help="clips on the contact sheet (default: %(default)s)")


def run(args: argparse.Namespace) -> dict:
    if args.clips < 1:
        raise InputError(f"--clips {args.clips}: expected at least 1")
    return report(ReportConfig(args.dataset, args.clips))
