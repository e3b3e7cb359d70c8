"""The loss curve of a training job as a picture."""

import io
import json
from pathlib import Path

from models.io import write_file


def draw_curve(log: Path, output: Path, title: str) -> None:
    """Draws the training loss of ``log.jsonl`` over steps, and the held-out losses as points (PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    heldout = [(line["step"], line["heldout"]["loss"]) for line in lines if "heldout" in line]
    figure = Figure(figsize=(6, 3.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*zip(*train, strict=True), lw=1, label="training")
    axes.plot(*zip(*heldout, strict=True), "o--", label="held out")
    if min(loss for _, loss in train + heldout) > 0:
        axes.set_yscale("log")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_file(output, buffer.getvalue())
