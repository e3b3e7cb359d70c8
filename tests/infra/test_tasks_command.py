import json

import pytest

from infra.cli import main


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_it_lists_tasks_and_the_papers_vocabulary(capsys):
    assert main(["tasks", "--json"]) == 0
    summary = last_line(capsys)
    assert summary["vocabulary"]["total"] == 546_944
    first = summary["tasks"][0]
    assert {"name", "family", "inputs", "output"} <= first.keys()
    assert {task["family"] for task in summary["tasks"]} == {"continuation", "cross-modal", "chained"}


def test_show_prints_every_step_as_the_model_reads_it(capsys):
    assert main(["tasks", "--show", "speech-image-to-shape-expression-semantics-description", "--json"]) == 0
    example = last_line(capsys)["example"]
    assert [line["output"] for line in example] == ["shape", "expression", "semantics", "description"]
    assert example[1]["reads"].startswith("<given><speech state=current frames=25>[84 speech tokens]</speech><shape>")
    assert example[2]["writes"] == "[448 semantics tokens]"


@pytest.mark.parametrize("arguments", [["--show", "dance"], ["--dataset", "D"]])
def test_bad_usage_is_status_2(capsys, arguments):
    assert main(["tasks", *arguments]) == 2
