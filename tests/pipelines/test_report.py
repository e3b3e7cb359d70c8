import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.cli import main
from models.errors import InputError
from pipelines.dataset import MANIFEST, Dataset, update_manifest, write_json
from pipelines.manifest import ShardInfo, clips_mark
from pipelines.report import ReportConfig, account, report, what_if
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.painted import make_dataset
from tests.pipelines.reporting.tables import FINE, make_tables, reject, segment

HOSTILE = 'videos/<img src="http://x/y.png" onerror=alert(1)>.mp4'
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The painted dataset with scores, a rejected segment, hostile names, books and sources."""
    from dataclasses import asdict

    made = make_dataset(tmp_path_factory.mktemp("report"))
    root = Path(made.root)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["columns"]["clips"]["producer"]["thresholds"] = asdict(FilterThresholds())
    manifest["curation"] = {"sources": 4}
    spent = {"requests": 2, "input_tokens": 10, "output_tokens": 3, "cost": "0.25", "currency": "USD"}
    manifest["columns"]["description"]["producer"]["spent"] = spent
    manifest["books"] = {
        "curate": {
            "unit": "sources",
            "items": 4,
            "kept": 2,
            "filtered": {"no_audio": 1},
            "failed": [{"stage": "probe", "type": "DecodeError", "traceback_hash": "ab12", "count": 1}],
        }
    }
    (root / MANIFEST).write_text(json.dumps(manifest))
    rows = pq.read_table(next((root / "quality").glob("*.parquet"))).to_pylist()
    rows = [{**FINE, **row, "blur": 100.0 + row["blur"], "flags": ""} for row in rows]
    small = {**rows[0], "clip_id": "small", "face_size": 20.0, "blur": 300.0, "start_frame": 30, "end_frame": 120}
    rows.append({**small, "kept": False})
    rejects = [
        reject(None, "probe", "DecodeError", "failed", source="videos/bad.mp4", traceback_hash="ab12"),
        reject(None, "audio", "no_audio", source=HOSTILE),
        reject("small", "filters", "face_too_small", source=rows[0]["source"], start_frame=30, end_frame=120),
    ]
    rejects[0] |= {"detail": "moov <atom> not found", "traceback": "Traceback\n  <b>at</b> probe"}
    kept = {"status": "kept", "stage": None, "reason": None, "clips": 1}
    sources = [{"source": row["source"], "seconds": 10.0, **kept} for row in rows[:2]]
    for row in rejects[:2]:
        gone = {"status": row["kind"], "stage": row["stage"], "reason": row["reason"], "clips": 0}
        sources.append({"source": row["source"], "seconds": 20.0, **gone})
    pair = {"group": "clip0", "picture_distance": 1.0, "sound_similarity": 0.9}
    doubles = [
        {"clip_id": "clip0", "duplicate_of": None, "kind": None, **pair},
        {"clip_id": "clip1", "duplicate_of": "clip0", "kind": "both", **pair},
    ]
    tables = {"quality": rows, "rejects": rejects, "sources": sources, "duplicates": doubles}
    for name, table in tables.items():
        (root / name).mkdir(exist_ok=True)
        rows_without = [{k: v for k, v in row.items() if k != "shard"} for row in table]
        pq.write_table(pa.Table.from_pylist(rows_without), root / name / f"{name}-00000-of-00001.parquet")
    name = "duplicates/duplicates-00000-of-00001.parquet"
    info = asdict(ShardInfo(name, len(doubles), (root / name).stat().st_size, "0" * 64))
    found = {"made_from": clips_mark(made.manifest()), "count": len(doubles), "files": [info]}
    update_manifest(root, {}, duplicates=found)
    write_json(f"{root}/_state/curate/clips/00000-of-00001.json", {"seconds": 8.0, "summary": {"video_seconds": 60.0}})
    return made


@pytest.fixture(scope="module")
def reported(dataset):
    return dataset, report(ReportConfig(dataset.root))


class Page(HTMLParser):
    """Checks that tags balance; collects ids, links and the sources of pictures."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.pictures, self.tags = [], set(), [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag


@pytest.fixture(scope="module")
def page(reported):
    text = Path(reported[1]["report"]).read_text()
    parsed = Page()
    parsed.feed(text)
    parsed.close()
    assert not parsed.open
    return text, parsed


def test_figures(reported):
    _, figures = reported
    assert figures["sources"] == 4 and figures["sources_with_clips"] == 2 and figures["sources_rejected"] == 2
    assert figures["clips"] == 2 and figures["failed"] == 1 and figures["filtered"] == 2
    assert figures["hours_kept"] == pytest.approx(2 * 9 / 30 / 3600)
    assert figures["hours_in"] == pytest.approx(60 / 3600)
    assert figures["hours_speech"] == pytest.approx(2 * 8 / 25 / 3600)
    assert figures["annotation_errors"]["semantics"] == ["clip1: segment: ValueError: painted fault"]


def test_page_needs_no_network_and_runs_nothing(page):
    text, parsed = page
    assert not parsed.tags & {"script", "link", "iframe", "object", "b2"}
    assert parsed.pictures and all(source.startswith("data:image/") for source in parsed.pictures)
    assert "url(" not in text and "@import" not in text
    assert len(text) < 15e6


def test_every_link_leads_somewhere(reported, page):
    folder = Path(reported[1]["report"]).parent
    inside = {link[1:] for link in page[1].links if link.startswith("#")}
    outside = {link for link in page[1].links if not link.startswith("#")}
    assert inside and inside <= page[1].ids
    assert {link.split("/")[0] for link in outside} == {"previews", "scores.parquet"}
    for link in outside:
        assert (folder / link).is_file()
    clips = {record["clip_id"]: record["video"] for record in reported[0].column("clips")}
    assert (folder / "previews/clip1.mp4").read_bytes() == clips["clip1"]


def test_text_from_outside_is_no_markup(page):
    text, _ = page
    assert "&lt;script&gt;alert" in text and "moov &lt;atom&gt; not found" in text
    assert "onerror=alert(1)&gt;" in text and '<img src="http' not in text
    assert "&lt;b&gt;at&lt;/b&gt; probe" in text


def test_every_part_of_the_page_is_there(page):
    text, parsed = page
    assert parsed.ids >= {"funnel", "scores", "correlation", "kept", "rejected", "worst", "people", "failures", "rates"}
    assert parsed.ids >= {"annotations", "provenance", "duplicates"}
    assert "0.3 s of 0.6 s would be left" in text
    assert "0.25 USD" in text and "painted fault" in text and "DecodeError" in text and "ab12" in text
    assert "at least 48" in text and "captioner <b>painted</b>" in text
    assert len(re.findall("class=card>", text)) == 2
    # The small face is the only reason that its three seconds are lost.
    assert re.search(r"face too small.*?&minus;3\.0 s.*?<td class=n>3\.0 s</td></tr>", text)


def test_a_table_of_duplicates_of_other_clips_is_left_out_and_said_to_be_stale(reported, tmp_path, capsys):
    dataset, figures = reported
    assert "clip0" in pq.read_table(figures["scores"])["duplicate_of"].to_pylist()
    assert "stale" not in Path(figures["report"]).read_text()
    shutil.copytree(dataset.root, tmp_path / "set")
    update_manifest(tmp_path / "set", {}, duplicates={**dataset.manifest()["duplicates"], "made_from": "0" * 16})
    again = report(ReportConfig(str(tmp_path / "set"), clips=1, samples=0, worst=0))
    text = Path(again["report"]).read_text()
    assert "table of duplicates is <b>stale</b>" in text and "would be left" not in text
    assert "duplicates/ is stale" in capsys.readouterr().out
    assert "duplicate_of" not in pq.read_schema(again["scores"]).names


def test_contact_sheet_shows_every_clip(reported):
    from PIL import Image

    _, figures = reported
    assert Image.open(figures["contact_sheet"]).size[0] > 128 * 4


def test_the_same_dataset_gives_the_same_page(reported):
    dataset, figures = reported
    before = {name: Path(figures[name]).read_bytes() for name in ("report", "scores")}
    again = report(ReportConfig(dataset.root))
    assert before == {name: Path(again[name]).read_bytes() for name in before}


def test_scores_table_has_a_row_for_each_segment(reported):
    rows = pq.read_table(reported[1]["scores"]).to_pylist()
    assert [(row["clip_id"], row["kept"], row["reasons"]) for row in rows] == [
        ("clip0", True, ""),
        ("clip1", True, ""),
        ("small", False, "face_too_small"),
    ]
    assert rows[0]["transcript_confidence"] == 0.5 and rows[2]["transcript_confidence"] is None


@pytest.mark.parametrize(
    "manifest, sources, message",
    [
        ({"sources": 2}, None, "2 sources in, 1 with clips, 0 filtered, 0 failed"),
        ({"sources": 1, "columns": {"clips": {"count": 7}}}, None, "1 clips kept, but the clips column has 7"),
        ({"sources": 1}, [{"source": "a.mp4", "clips": 3}], "the sources table has 1 sources with 3 clips"),
    ],
)
def test_books_that_do_not_close_are_an_error(manifest, sources, message):
    with pytest.raises(RuntimeError, match=message):
        account(manifest, make_tables([segment("a")], sources=sources))


def test_a_source_is_kept_or_rejected_not_both():
    with pytest.raises(RuntimeError, match="1 sources are both kept and rejected"):
        account({"sources": 1}, make_tables([segment("a")], [reject(None, "audio", "no_audio")]))


def test_what_if_recounts_and_writes_nothing(reported, capsys):
    dataset, figures = reported
    files = {path: path.stat().st_mtime_ns for path in Path(dataset.root).rglob("*")}
    assert (
        main(["report", "--dataset", dataset.root, "--what-if", "blur>=101", "transcript_confidence>=0.5", "--json"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    counts = json.loads(lines[-1])["what_if"]
    assert counts["before"]["clips"] == 2 and counts["after"]["clips"] == 1
    assert [row["lost_clips"] for row in counts["conditions"]] == [1, 0]
    loose = what_if(dataset.root, [], ["min_face_size=10"])["what_if"]
    assert loose["gained"] == {"clips": 1, "hours": pytest.approx(3 / 3600)}
    assert "needs curate again" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path(dataset.root).rglob("*")} == files


def test_bad_conditions_name_themselves(reported, capsys):
    dataset, _ = reported
    assert main(["report", "--dataset", dataset.root, "--what-if", "face_siz>=96"]) == 2
    assert "face_siz" in capsys.readouterr().err
    with pytest.raises(InputError, match="sync_confidence"):
        what_if(dataset.root, ["sync_confidence>=3"], [])


def test_a_missing_dataset_is_named(tmp_path):
    with pytest.raises(InputError, match="manifest.json"):
        report(ReportConfig(str(Dataset(tmp_path / "none").root)))
