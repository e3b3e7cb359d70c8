from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.reporting import samples, schema
from pipelines.reporting.decisions import rules
from pipelines.stages.filters import FilterThresholds
from tests.pipelines.reporting.tables import make_tables, reject, segment

LIMITS = rules(FilterThresholds())


def test_the_documentation_is_that_of_the_code():
    text = (Path(__file__).parents[3] / "docs/schema.md").read_text()
    assert text == schema.schema_text(), "write pipelines.reporting.schema.schema_text() to docs/schema.md"


def test_every_table_is_documented():
    from pipelines.curate import quality_schema
    from pipelines.duplicates import duplicates_schema

    names = {"float": "float32", "double": "float64"}
    for name, made in (("quality", quality_schema()), ("duplicates", duplicates_schema())):
        documented = schema.TABLES[f"{name}/*.parquet"][1]
        kinds = {field.name: names.get(str(field.type), str(field.type)) for field in made}
        assert {column: kind for column, (kind, _) in documented.items()} == kinds


def test_worst_of_lists_are_of_documented_scores():
    assert set(samples.WORST) <= set(schema.TABLES[schema.SCORES_FILE][1])


def test_scores_join_everything_and_explain_themselves(tmp_path):
    derived = pa.table(
        {"clip_id": ["b", "a"], "speech_rate": pa.array([1.0, 2.0], pa.float32()), "language": ["en", None]}
    )
    doubles = [{"clip_id": "a", "group": "g", "duplicate_of": "z", "kind": "exact"}]
    tables = make_tables(
        [segment("a"), segment("b", kept=False, blur=1.0, luminance=1.0)],
        [reject("b", "filters", "blurred")],
        duplicates=doubles,
    )
    table = schema.scores_table(tables, derived, LIMITS)
    a, b = table.to_pylist()
    assert (a["reason"], a["reasons"], a["duplicate_of"], a["duplicate_kind"]) == (None, "", "z", "exact")
    assert (b["reason"], b["reasons"], b["speech_rate"], b["language"]) == ("blurred", "blurred,too_dark", 1.0, "en")
    assert "shard" not in table.column_names
    path = schema.write_scores(tmp_path, table)
    first = Path(path).read_bytes()
    schema.write_scores(tmp_path, table)
    assert Path(path).read_bytes() == first
    stored = pq.read_schema(path)
    assert (
        all(field.metadata[b"description"] for field in stored)
        and b"One row per segment" in stored.metadata[b"description"]
    )
