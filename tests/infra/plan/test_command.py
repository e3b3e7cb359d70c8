"""The plan: its arithmetic on figures that can be worked out by hand, and that every figure says where it is from."""

import json

import pytest

from infra.cli import main
from infra.plan.command import PRESETS, PlanConfig, lines_of, make_plan
from infra.plan.measured import KEPT_HOURS, SOURCE_HOURS, Measured, Rate, read_measured
from infra.plan.prices import DEFAULT, Prices, read_prices
from models.errors import InputError
from tests.infra.plan.finished import write_finished

MEASURED = Measured(
    "one core",
    "2026-01-01",
    "set",
    0.5,
    (
        Rate("curate", 7200.0, SOURCE_HOURS, 0.1, "cpu", "archon curate --output DATASET"),
        Rate("annotate pose", 3600.0, KEPT_HOURS, 0.05, "cpu", "archon annotate --dataset DATASET"),
    ),
    {"clips": 1e9, "pose": 1e6},
    2e9,
)
PRICES = Prices(True, "EUR", "2026-01-01", "my list", 0.1, 0.01, 0.001, 0.02, 0.05, {"nvidia-l4": 1.0})
CONFIG = PlanConfig(hours=100.0, machine_type="n2-standard-4", disk_gb=100.0, workers=5, overhead=0.25, months=2.0)


def test_the_arithmetic_by_hand():
    plan = make_plan(CONFIG, MEASURED, PRICES)
    curate, pose = plan["stages"]
    # 100 h x 2 CPU hours x 1.25; four at once; five workers.
    assert (curate["cpu_hours"], curate["worker_hours"], curate["wall_hours"]) == (250.0, 62.5, 12.5)
    # 50 h of clips x 1 CPU hour x 1.25.
    assert (pose["cpu_hours"], pose["worker_hours"]) == (62.5, 15.625)
    # A worker hour: 4 x 0.1 + 16 x 0.01 + 100 x 0.001.
    assert curate["cost"] == pytest.approx(62.5 * 0.66) and pose["cost"] == pytest.approx(15.625 * 0.66)
    stores = {item["what"]: item for item in plan["storage"]}
    assert (stores["source videos"]["gb"], stores["clips"]["gb"], stores["pose"]["gb"]) == (200.0, 50.0, 0.05)
    assert stores["clips"]["cost"] == pytest.approx(50 * 0.02 * 2)
    assert plan["costs"]["network"] == pytest.approx(200 * 0.05)
    assert plan["cost"] == pytest.approx(78.125 * 0.66 + 250.05 * 0.04 + 10.0)
    assert plan["wall_hours"] == pytest.approx(78.125 / 5)


def test_a_gpu_makes_the_named_stage_faster_and_dearer():
    from dataclasses import replace

    config = replace(CONFIG, gpu="nvidia-l4", gpu_factors=(("curate", 5.0),))
    curate, pose = make_plan(config, MEASURED, PRICES)["stages"]
    assert curate["worker_hours"] == 12.5 and curate["gpu"] and not pose["gpu"]
    assert curate["cost"] == pytest.approx(12.5 * 1.66)
    assert "as given by --gpu-stage" in curate["source"]


def test_every_figure_says_where_it_comes_from():
    plan = make_plan(CONFIG, MEASURED, PRICES)
    for item in [*plan["stages"], *plan["storage"]]:
        assert item["source"].startswith("measured: ")
    text = "\n".join(lines_of(plan))
    assert all(name in text for name in ("curate", "annotate pose", "source videos", "my list", "total", "EUR"))
    assert "placeholders" not in text
    shipped = make_plan(PRESETS["paper"], MEASURED, read_prices())
    assert "PLACEHOLDERS" in "\n".join(lines_of(shipped)) and shipped["prices_checked"] is False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hours": 0.0}, "--hours 0.0"),
        ({"workers": 0}, "--workers 0"),
        ({"keep_share": 1.5}, "--keep-share 1.5"),
        ({"overhead": -0.1}, "--overhead -0.1"),
        ({"machine_type": "large"}, "give --vcpus"),
        ({"gpu_factors": (("curate", 2.0),)}, "--gpu-stage: needs --gpu"),
        ({"gpu": "nvidia-x"}, "--gpu nvidia-x: no price"),
        ({"gpu": "nvidia-l4", "gpu_factors": (("sing", 2.0),)}, "--gpu-stage sing: no such stage"),
    ],
)
def test_wrong_settings_are_named(change, says):
    from dataclasses import replace

    with pytest.raises(InputError, match=says):
        make_plan(replace(CONFIG, **change), MEASURED, PRICES)


@pytest.fixture
def dataset(tmp_path):
    return write_finished(str(tmp_path / "set"))


def test_the_command_follows_the_users_dataset_and_prices(dataset, tmp_path, capsys):
    (tmp_path / "p.toml").write_text(DEFAULT.read_text().replace("checked = false", "checked = true"))
    words = ["plan", "--hours", "36", "--preset", "pilot", "--from", dataset, "--prices", str(tmp_path / "p.toml")]
    assert main([*words, "--write-rates", str(tmp_path / "rates.json"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["stages"][0]["cpu_hours"] == pytest.approx(36 * 1000 / 3600 * 1.15) and first["prices_checked"]
    assert main(["plan", "--hours", "36", "--preset", "pilot", "--rates", str(tmp_path / "rates.json"), "--json"]) == 0
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert second["stages"] == first["stages"]
    assert main(["plan", "--from", str(tmp_path / "none")]) == 2


def test_the_shipped_rates_and_prices_make_a_plan():
    plan = make_plan(PRESETS["paper"], read_measured(), read_prices())
    assert plan["cost"] > 0 and plan["hours"] == 6000
