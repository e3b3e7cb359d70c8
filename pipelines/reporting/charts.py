"""The report's charts, all in one style, as SVG: sharp on a screen and on paper. Same figures, same bytes."""

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import numpy as np

KEPT, LOST, LIMIT = "#3b6fb6", "#e0a23c", "#b3412e"
INK, DIM, LINE = "#1c2330", "#5c6675", "#dfe3ea"
BINS = 32
RANKED = 10_000  # rows from which correlations are computed, evenly spread, at most


@contextmanager
def _style():
    import matplotlib

    settings = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": "archon",
        "axes.edgecolor": LINE,
        "axes.labelcolor": DIM,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": DIM,
        "ytick.color": DIM,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": INK,
    }
    with matplotlib.rc_context(settings):
        yield


def _svg(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def bin_edges(values: np.ndarray, limits: Sequence[float] = ()) -> np.ndarray:
    """Edges of BINS bins over the middle 99 % of the values, widened to a limit that is near.

    What lies beyond is counted in the outer bins.
    """
    low, high = np.percentile(values, [0.5, 99.5])
    if high - low <= 1e-6 * max(1.0, abs(high)):  # one value: a bar in the middle
        width = max(abs(high), 1.0)
        return np.linspace(low - width / 2, high + width / 2, BINS + 1)
    width = high - low
    near = [limit for limit in limits if low - 0.6 * width <= limit <= high + 0.6 * width]
    low, high = min([low, *near]), max([high, *near])
    return np.linspace(low, high, BINS + 1)


def histogram(kept: np.ndarray, lost: np.ndarray, limits: Sequence[tuple[str, float]]) -> bytes:
    """A score's values as SVG: kept and rejected segments stacked, each limit ("below" or "above", value) as a line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    both = np.concatenate([kept, lost])
    edges = bin_edges(both, [limit for _, limit in limits])
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for values in (kept, lost)]
    margin = 0.02 * (edges[-1] - edges[0])
    left, right = edges[0] - margin, edges[-1] + margin
    top = max(1, (counts[0] + counts[1]).max())
    with _style():
        # A fixed place for the axes: a layout engine would draw every chart twice.
        figure = Figure(figsize=(3.4, 1.75))
        axes = figure.add_axes((0.1, 0.13, 0.88, 0.83))
        axes.add_collection(_bars(edges, np.zeros(BINS), counts[0], KEPT))
        axes.add_collection(_bars(edges, counts[0], counts[0] + counts[1], LOST))
        for side, limit in limits:
            if left <= limit <= right:
                axes.axvline(limit, color=LIMIT, linewidth=1.3)
                # The wrong side of the limit is shaded.
                span = (left, limit) if side == "below" else (limit, right)
                axes.axvspan(*span, color=LIMIT, alpha=0.07, linewidth=0)
        axes.set_xlim(left, right)
        axes.set_ylim(0, top * 1.04)
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.yaxis.grid(True, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.locator_params(axis="x", nbins=6)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        return _svg(figure)


def _bars(edges: np.ndarray, low: np.ndarray, high: np.ndarray, color: str):
    """Bars between two heights, as one artist; empty ones are left out."""
    from matplotlib.collections import PolyCollection

    gap = 0.03 * np.diff(edges)
    left, right = edges[:-1] + gap, edges[1:] - gap
    corners = np.stack([np.stack([left, right, right, left], 1), np.stack([low, low, high, high], 1)], axis=-1)
    return PolyCollection(corners[high > low], facecolors=color, linewidths=0)


def spearman(columns: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Rank correlation of every pair of columns over the rows that have both.

    Returns:
        the columns that vary, and float (n, n), NaN where fewer than three rows have both.
    """
    from scipy.stats import rankdata

    rows = len(next(iter(columns.values()), ()))
    picks = np.unique(np.linspace(0, rows - 1, min(rows, RANKED)).astype(int)) if rows else np.zeros(0, int)
    columns = {name: values[picks] for name, values in columns.items()}
    names = [name for name, values in columns.items() if len(np.unique(values[~np.isnan(values)])) > 1]
    whole = {name: rankdata(columns[name]) for name in names if not np.isnan(columns[name]).any()}
    out = np.full((len(names), len(names)), np.nan)
    for i, first in enumerate(names):
        out[i, i] = 1.0
        for j in range(i):
            second = names[j]
            if first in whole and second in whole:
                a, b = whole[first], whole[second]
            else:
                both = ~np.isnan(columns[first]) & ~np.isnan(columns[second])
                a, b = rankdata(columns[first][both]), rankdata(columns[second][both])
            if len(a) > 2 and a.std() > 0 and b.std() > 0:
                out[i, j] = out[j, i] = np.corrcoef(a, b)[0, 1]
    return names, out


def correlation_matrix(names: Sequence[str], values: np.ndarray) -> bytes:
    """A correlation matrix as SVG: the lower triangle, coloured and with its values in hundredths."""
    from matplotlib.figure import Figure

    count = len(names)
    lower = np.where(np.tri(count, k=-1, dtype=bool), values, np.nan)[1:, :-1]
    with _style():
        figure = Figure(figsize=(2.2 + 0.3 * count, 1.6 + 0.24 * count), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(lower, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(count - 1), names[:-1], rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count - 1), names[1:])
        axes.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(lower):
            if np.isfinite(value):
                text = f"{round(value * 100):d}"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if abs(value) > 0.6 else INK,
                )
        return _svg(figure)
