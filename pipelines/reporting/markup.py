"""Pieces of the report's page: escaping, tables, bars, pictures, the style."""

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { --ink: #1c2330; --dim: #5c6675; --line: #dfe3ea; --soft: #f5f6f9; --kept: #3b6fb6; --lost: #e0a23c;
  --bad: #b3412e; }
* { box-sizing: border-box; }
html { scroll-padding-top: 56px; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; color: var(--ink);
  background: #fff; max-width: 1240px; margin: 0 auto; padding: 26px 28px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 40px 0 4px; padding-top: 12px; border-top: 2px solid var(--ink); break-after: avoid; }
h3 { font-size: 15px; margin: 16px 0 6px; break-after: avoid; }
h3 span { font-weight: 400; font-size: 13.5px; }
p.note { color: var(--dim); margin: 0 0 12px; max-width: 90ch; break-inside: avoid; break-after: avoid; }
a { color: var(--kept); }
code { font: 12.5px ui-monospace, "DejaVu Sans Mono", monospace; }
nav { position: sticky; top: 0; z-index: 1; background: #fff; border-bottom: 1px solid var(--line); padding: 9px 0;
  margin: 14px 0 0; font-size: 14px; display: flex; gap: 2px 18px; overflow-x: auto; white-space: nowrap; }
nav a { text-decoration: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px; margin: 18px 0 12px; }
.tile { background: var(--soft); border-radius: 8px; padding: 11px 14px; break-inside: avoid; }
.tile b { display: block; font-size: 23px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 4px 0 10px; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; font-size: 13px; vertical-align: bottom; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.n + td:not(.n), th.n + th:not(.n) { padding-left: 14px; }
td.bar { width: 30%; min-width: 110px; }
tr { break-inside: avoid; }
tr.sum td { font-weight: 600; border-bottom: 2px solid var(--ink); }
tr.kept td { font-weight: 600; }
thead { display: table-header-group; }
.track { position: relative; height: 14px; margin-top: 4px; background: var(--soft); border-radius: 3px; }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 3px; }
.k { background: var(--kept); } .l { background: var(--lost); } .m { background: #c9d4e6; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; }
.key:first-child { margin-left: 0; }
.path { overflow-wrap: anywhere; }
.dim, .filtered { color: var(--dim); }
.failed { color: var(--bad); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(264px, 1fr)); gap: 18px 20px; }
.chart { break-inside: avoid; }
.chart b { font-size: 14px; }
.chart p { margin: 0; font-size: 12.5px; line-height: 1.35; color: var(--dim); }
.chart img { width: 100%; display: block; margin-top: 3px; }
.wide img { display: block; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 14px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 9px; break-inside: avoid; min-width: 0; }
.card img { width: 100%; display: block; border-radius: 3px; }
.card p { margin: 5px 0 0; font-size: 13px; overflow-wrap: anywhere; }
.groups { display: flex; flex-wrap: wrap; gap: 0 44px; margin-bottom: 10px; }
.group { break-inside: avoid; max-width: 100%; }
.lists { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr)); gap: 0 28px; }
.lists > div { break-inside: avoid; }
.strip { display: flex; flex-wrap: wrap; gap: 10px 8px; margin: 4px 0 8px; }
figure { margin: 0; width: 86px; font-size: 11.5px; line-height: 1.3; overflow-wrap: anywhere; }
figure img { display: block; border-radius: 4px; max-width: 100%; }
figure.frame { width: min-content; min-width: 148px; font-size: 12px; }
figure.frame img, figure .none { height: 120px; max-width: none; }
figure .none { width: 160px; border-radius: 4px; background: var(--soft); color: var(--dim); padding: 10px;
  display: flex; align-items: center; justify-content: center; text-align: center; }
figcaption { margin-top: 3px; color: var(--dim); }
figcaption b { color: var(--ink); }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); gap: 6px 36px; }
.columns > div { break-inside: avoid; }
details { margin: 4px 0; }
details summary { cursor: pointer; color: var(--dim); font-size: 13.5px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; background: var(--soft); border-radius: 6px;
  padding: 10px 12px; margin: 6px 0; }
@media (max-width: 560px) { body { padding: 16px 14px 40px; } .cards, .columns { grid-template-columns: 1fr; }
  td.bar { min-width: 70px; } th, td { padding-right: 9px; } }
@page { size: A4; margin: 14mm 13mm; }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 11.5px; }
  nav { display: none; }
  h2 { margin-top: 26px; font-size: 17px; } h3 { font-size: 12.5px; } h3 span { font-size: 11.5px; }
  table { font-size: 10.5px; } .chart p { font-size: 10.5px; } .chart b { font-size: 12px; }
  .charts { display: block; font-size: 0; }  /* a grid's rows are cut by pages, lines of blocks are not */
  .charts .chart { display: inline-block; width: 32%; margin: 0 2% 12px 0; vertical-align: top;
    font-size: 12px; }
  .charts .chart:nth-child(3n) { margin-right: 0; }
  .columns, .lists { display: block; }
  .columns > div, .lists > div { display: inline-block; width: 48%; margin: 0 4% 0 0; vertical-align: top; }
  .columns > div:nth-child(2n), .lists > div:nth-child(2n) { margin-right: 0; }
  .cards { grid-template-columns: 1fr 1fr; } section.funnel, section.correlation { break-inside: avoid; }
  section.scores { break-before: page; }
  .cards { gap: 10px; } .card p { font-size: 10.5px; } .lists figure { width: 46px; font-size: 8.5px; }
  figure.frame { font-size: 9.5px; min-width: 106px; } figure.frame img, figure .none { height: 86px; }
  .wide img { max-width: 100%; } .wide { break-inside: avoid; }
  .scroll { overflow: visible; } a { color: inherit; text-decoration: none; }
}
"""


def escape(value) -> str:
    """File names, scripts and error texts come from outside: nothing of them may be markup."""
    return html.escape(str(value))


def base_name(path: str) -> str:
    """A source's file name, escaped."""
    return escape(str(path).rsplit("/", 1)[-1])


def table(
    head: Sequence[str], rows: Sequence[Sequence], numbers: Sequence[int] = (), bars: Sequence[int] = (), marks=None
) -> str:
    """A table; cells are markup already. ``numbers`` and ``bars`` name columns; ``marks``: row index -> class."""
    kinds = {**dict.fromkeys(numbers, " class=n"), **dict.fromkeys(bars, " class=bar")}
    marks = marks or {}
    lines = []
    for index, row in enumerate(rows):
        mark = f" class={marks[index]}" if index in marks else ""
        lines.append(
            f"<tr{mark}>" + "".join(f"<td{kinds.get(i, '')}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        )
    top = "".join(f"<th{kinds.get(i, '')}>{name}</th>" for i, name in enumerate(head))
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<div class=scroll><table>{top}<tbody>{''.join(lines)}</tbody></table></div>"


def bar(share: float, start: float = 0.0, kind: str = "k") -> str:
    """A bar from ``start`` over ``share`` of the cell's width."""
    left, width = (max(0.0, min(1.0, value)) * 100 for value in (start, share))
    if share > 0:
        width = max(width, 0.3)  # a little is not nothing
    return f'<div class=track><i class={kind} style="left:{left:.2f}%;width:{min(width, 100 - left):.2f}%"></i></div>'


def note(text: str) -> str:
    return f"<p class=note>{text}</p>"


def image_tag(data: bytes, kind: str, alt: str, width: int | None = None) -> str:
    size = f' width="{width}"' if width else ""
    return f'<img alt="{escape(alt)}"{size} src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def folded(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def duration(hours: float) -> str:
    """Hours for reading: in seconds, minutes or hours, whichever gives a number of a few digits."""
    seconds = hours * 3600
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    if abs(seconds) < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{hours:,.1f} h"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def words(name: str) -> str:
    """no_audio -> no audio, escaped."""
    return escape(name.replace("_", " "))
