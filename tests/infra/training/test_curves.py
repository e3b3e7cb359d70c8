"""The curve is a picture of the log."""

import json

from PIL import Image

from infra.training.curves import draw_curve


def test_curve_is_drawn_also_for_negative_losses(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"step": 0, "heldout": {"loss": 2.0}}, {"step": 1, "loss": 1.5}, {"step": 9, "loss": -0.5}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curve(log, tmp_path / "curve.png", "a job")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (600, 350) and len(picture.convert("RGB").getcolors(1 << 20)) > 10
