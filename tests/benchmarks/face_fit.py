"""Frames a second of the two fits on a 10 s clip, after compilation: python -m tests.benchmarks.face_fit"""

import argparse
import time

import numpy as np

from models.face.camera import default_camera, project
from models.face.model import deform, load_face_model
from models.face.render import render_preview
from pipelines.stages.face_fit import FitConfig, fit_clip

FRAMES = 301


def clip(model):
    """Returns landmarks (T, 68, 2) and pixels (T, 256, 256, 3) of a head that turns and speaks."""
    time_ = np.arange(FRAMES) / 30
    expression = np.zeros((FRAMES, model.num_expression), np.float32)
    expression[:, model.expression_index("jaw_x")] = 0.1 * (1 - np.cos(15 * time_))
    pose = np.zeros((FRAMES, 6), np.float32)
    pose[:, 0], pose[:, 1], pose[:, 5] = 0.1 * np.sin(1.7 * time_), 0.3 * np.sin(2.1 * time_), 1.6
    shape = np.random.default_rng(0).normal(0, 0.7, model.num_shape).astype(np.float32)
    landmarks = project(deform(model.landmark_model(), shape, expression), pose, default_camera()) - 0.5
    # Every tenth frame is drawn: how long a fit takes does not depend on what it sees.
    frames = render_preview(model, shape, expression[::10], pose[::10])
    return landmarks.astype(np.float32), np.repeat(frames, 10, 0)[:FRAMES]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    model = load_face_model()
    landmarks, frames = clip(model)
    for name, pixels in (("landmark fit", None), ("landmark and photometric fit", frames)):
        seconds = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            fit_clip(landmarks, model, FitConfig(), pixels)
            seconds.append(time.perf_counter() - start)
        best = min(seconds[1:])
        print(
            f"{name}: {FRAMES / best:.0f} frames/s ({best:.2f} s for {FRAMES} frames, best of {runs}); "
            f"first call, with compilation: {seconds[0]:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
