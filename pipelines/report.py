"""The data-quality report: what came in, what was kept, what was not and why, and what the kept clips are like.

archon report --dataset DATASET      ->  DATASET/report/index.html, opened without a network; beside it previews of the
                                         worst clips, and every score and decision as report/scores.parquet
archon report --dataset DATASET --what-if 'face_size>=96'      ->  hours kept then, from the stored scores
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError
from pipelines import overlay, storage
from pipelines.dataset import ANNOTATIONS, Dataset
from pipelines.reporting import bias, decisions, samples, schema
from pipelines.reporting.derived import read_annotations
from pipelines.reporting.findings import Findings
from pipelines.reporting.funnel import build_funnel, failures, rates
from pipelines.reporting.page import render_page
from pipelines.reporting.tables import Tables, flags, join_segments, numbers, read_table, read_tables, texts
from pipelines.stages import filters

if TYPE_CHECKING:
    import pyarrow as pa

REPORT = "report/index.html"
CONTACT_SHEET = "report/contact_sheet.png"


@dataclass(frozen=True)
class ReportConfig:
    """Which dataset to report on, and how much the page shows at most.

    ``clips`` on the contact sheet, ``samples`` pictures for each reason of rejection, ``worst`` clips in each list.
    """

    dataset: str
    clips: int = 48
    samples: int = 8
    worst: int = 6


def account(manifest: Mapping, tables: Tables) -> dict:
    """Counts sources and clips, and raises if the books do not close.

    Sources in = sources with clips + filtered + failed. A source without a clip has one reject row of its own, which
    names no clip. The sources' table, the quality table, the clips column and the manifest say the same.
    """
    import pyarrow.compute as pc

    kept = flags(tables.segments, "kept")
    with_clips = set(texts(tables.segments, "source")[kept])
    whole = tables.rejects.filter(pc.is_null(tables.rejects["clip_id"]))
    without = dict(zip(texts(whole, "source"), texts(whole, "kind"), strict=True))
    kinds = texts(tables.rejects, "kind")
    figures = {
        "sources": int(manifest.get("curation", manifest).get("sources", len(with_clips | set(without)))),
        "sources_with_clips": len(with_clips),
        "sources_rejected": len(without),
        "sources_filtered": sum(kind == "filtered" for kind in without.values()),
        "sources_failed": sum(kind == "failed" for kind in without.values()),
        "clips": int(kept.sum()),
        "filtered": int((kinds == "filtered").sum()),
        "failed": int((kinds == "failed").sum()),
    }
    wrong = []
    if with_clips & set(without):
        wrong.append(f"{len(with_clips & set(without))} sources are both kept and rejected")
    if len(without) != len(whole):
        wrong.append(f"{len(whole)} reject rows for {len(without)} whole sources")
    if figures["sources"] != len(with_clips) + figures["sources_filtered"] + figures["sources_failed"]:
        wrong.append(
            f"{figures['sources']} sources in, {len(with_clips)} with clips, {figures['sources_filtered']} filtered, "
            f"{figures['sources_failed']} failed"
        )
    stored = manifest.get("columns", {}).get("clips", {}).get("count")
    if stored is not None and stored != figures["clips"]:
        wrong.append(f"{figures['clips']} clips kept, but the clips column has {stored}")
    if tables.sources is not None:
        clips = int(np.nansum(numbers(tables.sources, "clips")))
        if len(tables.sources) != figures["sources"] or clips != figures["clips"]:
            wrong.append(f"the sources table has {len(tables.sources)} sources with {clips} clips")
    books = manifest.get("books", {}).get("curate")
    if books is not None:
        counted = (books["kept"], sum(books["filtered"].values()), sum(group["count"] for group in books["failed"]))
        if counted != (len(with_clips), figures["sources_filtered"], figures["sources_failed"]):
            wrong.append("curate's books have {} sources kept, {} filtered, {} failed".format(*counted))
    if wrong:
        raise RuntimeError(f"the books do not close: {'; '.join(wrong)}")
    return figures


def report(config: ReportConfig) -> dict:
    """Writes the report, its contact sheet, previews and scores; returns the counts and where they are."""
    dataset = Dataset(config.dataset)
    manifest = dataset.manifest()
    tables = read_tables(dataset.root, manifest)
    figures = account(manifest, tables)
    limits = decisions.rules(decisions.run_thresholds(manifest))
    columns = {name: dataset.column(name) for name in manifest["columns"]}
    derived, errors = read_annotations(dataset, [name for name in ANNOTATIONS if name in columns])
    scores = schema.scores_table(tables, derived, limits)
    paths = {"scores": schema.write_scores(dataset.root, scores)}
    funnel = build_funnel(tables, limits)
    if not funnel.closes():
        raise RuntimeError(f"the hours do not close: {funnel.hours_in:.6g} in, {funnel.hours_kept:.6g} kept; {funnel}")
    figures["hours_in"] = funnel.hours_in
    figures["hours_kept"] = funnel.hours_kept
    figures["hours_speech"] = None
    if "speech" in columns:
        figures["hours_speech"] = float(np.nansum(numbers(scores, "speech_seconds"))) / 3600
    finder = samples.ClipFinder(dataset, tables.segments)
    cards = samples.clip_cards(columns, samples.spread(figures["clips"], config.clips))
    page = render_page(
        Findings(
            dataset=config.dataset,
            manifest=manifest,
            figures=figures,
            tables=tables,
            scores=scores,
            limits=limits,
            funnel=funnel,
            failures=failures(tables, errors),
            rates=rates(tables.markers),
            errors=errors,
            cards=cards,
            rejected=samples.rejected_samples(tables, config.samples),
            worst=samples.worst_clips(dataset, columns.get("clips", ()), finder, scores, config.worst),
            shares=bias.bias_shares(scores),
        )
    )
    storage.write_bytes(dataset.path(REPORT), page.encode("utf-8", "replace"))
    paths["report"] = dataset.path(REPORT)
    if cards:
        sheet = overlay.grid([card.picture for card in cards], columns=2)
        storage.write_bytes(dataset.path(CONTACT_SHEET), overlay.encode_image(sheet, "PNG"))
        paths["contact_sheet"] = dataset.path(CONTACT_SHEET)
    if tables.stale_duplicates:
        print("report: duplicates/ is stale (not of these clips) and left out; run `archon duplicates`", flush=True)
    print(
        f"report: {figures['sources']} sources in, {figures['sources_with_clips']} gave {figures['clips']} clips "
        f"({figures['hours_kept'] * 60:.1f} min), {figures['sources_rejected']} gave none; {paths['report']}",
        flush=True,
    )
    return {**figures, "annotation_errors": errors, **paths}


def what_if(dataset: str, conditions: list[str], thresholds: list[str]) -> dict:
    """Recounts the hours kept under further conditions and other thresholds, from the stored scores alone.

    Scores of annotations come from report/scores.parquet, which the last report wrote.

    Raises:
        InputError: no such score or threshold, or a score of annotations that no report has stored yet.
    """
    source = Dataset(dataset)
    manifest = source.manifest()
    table = join_segments(read_table(source.root, "quality"), read_table(source.root, "rejects"))
    base = decisions.run_thresholds(manifest)
    changed = decisions.changed_thresholds(base, thresholds)
    table = _with_reported(source, table)
    parsed = filters.parse_conditions(conditions)
    for condition in parsed:
        if condition.score not in table.column_names:
            raise InputError(
                f"--what-if {condition}: {dataset} has no {condition.score} yet; run `archon annotate` and "
                f"`archon report --dataset {dataset}` first"
            )
    counts = decisions.recount(table, base, changed, parsed)
    print(decisions.recount_text(counts), flush=True)
    return {"what_if": counts}


def _with_reported(dataset: Dataset, table: "pa.Table") -> "pa.Table":
    """Adds the columns that only the last report's scores have."""
    import pyarrow.compute as pc
    import pyarrow.parquet

    path = dataset.path(schema.SCORES_FILE)
    if not storage.exists(path):
        return table
    with storage.local_copy(path) as local:
        reported = pyarrow.parquet.read_table(local)
    where = pc.index_in(table["clip_id"], value_set=reported["clip_id"])
    for name in reported.column_names:
        if name not in table.column_names:
            table = table.append_column(name, reported[name].take(where))
    return table


# --- The command ---


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes DATASET/report/index.html: hours in and kept, what each filter costs, distributions with thresholds, "
        "contact sheets of what was kept and rejected, failures, rates, shares, provenance; and "
        "DATASET/report/scores.parquet, one row per segment (see docs/schema.md). With --what-if or --threshold it "
        "only recounts the hours kept, from the stored scores, and writes nothing."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples (quote a condition: the shell reads > as a redirection):
  archon report --dataset demo/dataset
  archon report --dataset demo/dataset --what-if 'face_size>=96' 'snr_db>=10'
  archon report --dataset demo/dataset --what-if 'transcript_confidence>=0.6' --json
  archon report --dataset demo/dataset --threshold min_face_size=32 --threshold max_turn=45"""
    parser.add_argument("--dataset", required=True, help="a dataset made by `archon curate`")
    parser.add_argument("--clips", type=int, default=48, help="clips on the contact sheet (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=8, help="pictures for each reason of rejection (default: %(default)s)"
    )
    parser.add_argument("--worst", type=int, default=6, help="clips in each worst-of list (default: %(default)s)")
    parser.add_argument(
        "--what-if",
        nargs="+",
        action="extend",
        default=[],
        metavar="CONDITION",
        help="count the hours that also meet these, such as 'face_size>=96'; a condition takes the place of the run's "
        "limit on that side of that score; may be repeated",
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"count the hours by another threshold; may be repeated. Names: {', '.join(filters.REASONS)}",
    )


def run(args: argparse.Namespace) -> dict:
    for name, least in (("clips", 1), ("samples", 0), ("worst", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} {getattr(args, name)}: expected at least {least}")
    if args.what_if or args.threshold:
        return what_if(args.dataset, args.what_if, args.threshold)
    return report(ReportConfig(args.dataset, args.clips, args.samples, args.worst))
