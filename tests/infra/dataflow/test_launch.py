"""`archon dataflow`, up to the point where it would submit."""

import json

import pytest

from infra.cli import main
from tests.infra.dataflow.test_config import GIVEN
from tests.pipelines import cloud as clouds

WHERE = [word for name in ("project", "region", "image") for word in (f"--{name}", GIVEN[name])]
CURATE = ["dataflow", "curate", "--input", "gs://corpus/videos/*.mp4", "--output", "gs://corpus/set"]


@pytest.fixture(scope="module")
def videos():
    """A bucket with 9 names of videos; nothing opens them."""
    from pipelines import storage

    with clouds.running_cloud() as cloud, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
        for n in range(9):
            storage.write_bytes(f"gs://corpus/videos/{n}.mp4", bytes(n + 1))
        yield cloud


def test_a_dry_run_says_all_and_submits_nothing(videos, capsys):
    status = main([*CURATE, *WHERE, "--temp", "gs://corpus/tmp", "--max-num-workers", "7", "--dry-run", "--json"])
    out = capsys.readouterr().out
    assert status == 0, out
    summary = json.loads(out.splitlines()[-1])
    assert summary["job"] == "curate" and summary["submitted"] is False and summary["shards"] >= 3
    assert "--max_num_workers=7" in summary["options"] and f"--sdk_container_image={GIVEN['image']}" in out
    assert "nothing was submitted" in out and 10_000 < summary["graph_bytes"] < 200_000
    assert int(summary["hints"]["clips"]["min_ram_bytes"]) >= 2e9 and summary["largest_element_bytes"] < 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--input", "videos/*.mp4"], "--input videos/.*gs://"),
        (["--output", "dataset"], "--output dataset: expected a gs:// path"),
        (["--runner", "in-process"], "use `archon curate`"),
        (["--temp", "gs://Corpus/tmp"], "cannot be a bucket"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, says, capsys):
    import re

    assert main([*CURATE, *WHERE, "--temp", "gs://corpus/tmp", "--dry-run", *change]) == 2
    assert re.search(says, capsys.readouterr().err)
