import re
from html.parser import HTMLParser

import pytest

from pipelines.report import ReportConfig, Tables, account, report, thresholds_of
from tests.pipelines.painted import make_dataset


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    dataset = make_dataset(tmp_path_factory.mktemp("report"))
    return dataset, report(ReportConfig(dataset.root))


def test_figures(reported):
    _, figures = reported
    assert figures["sources"] == 3 and figures["sources_with_clips"] == 2 and figures["sources_rejected"] == 1
    assert figures["clips"] == 2 and figures["failed"] == 1 and figures["filtered"] == 0
    assert figures["hours_kept"] == pytest.approx(2 * 9 / 30 / 3600)
    assert figures["hours_speech"] == pytest.approx(2 * 8 / 25 / 3600)
    assert figures["annotation_errors"]["semantics"] == ["clip1: segment: ValueError: painted fault"]


def test_page_needs_nothing_beside_it_and_runs_nothing(reported):
    _, figures = reported
    page = open(figures["report"]).read()
    sources = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "link", "iframe", "b2")
            sources.extend(value for name, value in attrs if name in ("src", "href"))

    Parser().feed(page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "&lt;script&gt;alert" in page and "moov &lt;atom&gt; not found" in page
    assert "painted fault" in page and "DecodeError" in page
    assert len(re.findall("class=card>", page)) == 2


def test_contact_sheet_shows_every_clip(reported):
    from PIL import Image

    _, figures = reported
    assert Image.open(figures["contact_sheet"]).size[0] > 128 * 4


def test_books_that_do_not_close_are_an_error():
    kept = {"source": "a", "kept": True}
    tables = Tables(rejects=[], quality=[kept], stages=[])
    with pytest.raises(RuntimeError, match="2 sources in, 1 with clips, 0 rejected"):
        account({"sources": 2}, tables)


def test_thresholds_are_read_by_their_names():
    manifest = {"columns": {"clips": {"producer": {"thresholds": {"min_face_size": 64, "max_yaw": 45.0}}}}}
    assert thresholds_of(manifest) == {"face_size": {"min": 64}, "yaw": {"max": 45.0}}
