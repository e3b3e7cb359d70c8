import json
from pathlib import Path

import pytest

from infra.cli import main
from infra.tasks_command import markdown, preset_vocabulary
from tasks import generate
from tasks.generate import TokenSpace
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
from tasks.registry import TASKS
from tests.token_records import ByteText, vocabulary

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/tasks.md"


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_it_lists_tasks_and_the_papers_vocabulary(capsys):
    assert main(["tasks", "--json"]) == 0
    summary = last_line(capsys)
    assert summary["vocabulary"]["total"] == 546_944
    first = summary["tasks"][0]
    assert {"name", "family", "inputs", "output"} <= first.keys()
    assert {task["family"] for task in summary["tasks"]} == {"continuation", "cross-modal", "chained"}
    assert [task["name"] for task in summary["tasks"]] == [task.name for task in TASKS]


def test_the_table_says_everything_of_a_modality(capsys):
    assert main(["tasks", "--preset", "paper", "--seconds", "10", "--json"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("expression  "))
    for word in ("animation", "526,464 - 542,847", "8 x 2,048", "dependent", "past, current", "7.5", "600", "30 fps"):
        assert word in line
    assert "519,296-520,319" in out and "546,944 ids, 72 tasks, tokens of 10 s" in out
    entries = {entry["name"]: entry for entry in json.loads(out.splitlines()[-1])["modalities"]}
    assert entries["speech"]["ranges"][1] == [519_296, 520_319] and entries["speech"]["rate"] == 25
    assert entries["image"]["states"] == [] and not entries["image"]["time_dependent"]
    assert entries["video"]["ranges"] == [] and entries["video"]["tokens"] == 75 * 64 + 256


def test_presets_have_the_papers_codebooks_but_for_text():
    paper = Vocabulary.of_codebooks(PAPER_CODEBOOKS, eos=1)
    assert preset_vocabulary("paper") == paper
    assert preset_vocabulary("tiny").sizes[1:] == paper.sizes[1:]


def test_ids_are_of_the_tokenizers_in_use(capsys, monkeypatch):
    space = TokenSpace(vocabulary(), ByteText(), {})
    monkeypatch.setattr(generate, "read_token_space", lambda tokenizers: space)
    assert main(["tasks", "--tokenizers", "W", "--json"]) == 0
    assert last_line(capsys)["vocabulary"] == vocabulary().to_json()


def test_weights_of_a_file_are_shown(capsys, tmp_path):
    table = {task.name: {"weight": 1.0} for task in TASKS}
    table["speech-to-script"]["weight"] = 29.0
    (tmp_path / "w.json").write_text(json.dumps({"tasks": table}))
    assert main(["tasks", "--weights", str(tmp_path / "w.json"), "--json"]) == 0
    shown = {task["name"]: task["weight"] for task in last_line(capsys)["tasks"]}
    assert shown["speech-to-script"] == 0.29 and shown["image-to-shape"] == 0.01


def test_the_document_has_the_tables_of_the_registry():
    assert markdown() in DOCUMENT.read_text(encoding="utf-8"), "`archon tasks --markdown` prints them"


def test_a_task_that_ends_in_video_shows_the_decoders_part(capsys):
    assert main(["tasks", "--show", "speech-image-to-semantics-video", "--json"]) == 0
    example = last_line(capsys)["example"]
    assert [line["output"] for line in example] == ["semantics", "video"]
    assert example[1]["reads"] == "semantics, image: the decoder"


def test_show_prints_every_step_as_the_model_reads_it(capsys):
    assert main(["tasks", "--show", "speech-image-to-shape-expression-semantics-description", "--json"]) == 0
    example = last_line(capsys)["example"]
    assert [line["output"] for line in example] == ["shape", "expression", "semantics", "description"]
    assert example[1]["reads"].startswith("<given><speech state=current frames=25>[84 speech tokens]</speech><shape>")
    assert example[2]["writes"] == "[448 semantics tokens]"


@pytest.mark.parametrize(
    "arguments", [["--show", "dance"], ["--dataset", "D"], ["--seconds", "0"], ["--weights", "none.json"]]
)
def test_bad_usage_is_status_2(capsys, arguments):
    assert main(["tasks", *arguments]) == 2
