import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipelines.reporting.charts import BINS, bin_edges, correlation_matrix, histogram, spearman


def test_bins_reach_a_near_limit_and_leave_a_far_one_out():
    values = np.linspace(10, 20, 200)
    assert bin_edges(values, [8.0])[0] == 8.0
    assert bin_edges(values, [-100.0])[0] > 9.9
    assert bin_edges(np.append(values, 1e9))[-1] < 21  # an outlier does not flatten the rest
    assert len(bin_edges(values)) == BINS + 1


@pytest.mark.parametrize("value", [0.0, 1.0, -3e5])
def test_bins_of_one_value_have_a_width(value):
    edges = bin_edges(np.full(5, value))
    assert (np.diff(edges) > 0).all() and edges[0] < value < edges[-1]


def test_spearman_is_scipys_over_the_rows_that_have_both():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.integers(0, 5, 300).astype(float)
    c = a**3 + rng.normal(size=300)
    c[::3] = np.nan
    names, matrix = spearman({"a": a, "b": b, "same": np.ones(300), "c": c, "none": np.full(300, np.nan)})
    assert names == ["a", "b", "c"]
    assert matrix[0, 1] == pytest.approx(spearmanr(a, b).statistic)
    both = ~np.isnan(c)
    assert matrix[0, 2] == matrix[2, 0] == pytest.approx(spearmanr(a[both], c[both]).statistic)


def test_charts_are_the_same_svg_every_time():
    kept, lost = np.arange(50.0), np.array([-3.0, 70.0])
    picture = histogram(kept, lost, [("below", 5.0), ("above", 900.0)])
    assert picture == histogram(kept, lost, [("below", 5.0), ("above", 900.0)])
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    names, matrix = spearman({"a": kept, "b": -kept, "c": kept % 7})
    text = correlation_matrix(names, matrix).decode()
    assert ElementTree.fromstring(text) is not None and ">-100<" in text.replace("−", "-")
