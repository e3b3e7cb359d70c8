"""How fast the head moves and is drawn: ``python -m tests.benchmarks.head``."""

import os
import time

import numpy as np

from models.face.camera import rotation_matrix
from models.face.model import deform, load_face_model
from models.face.render import blend_rows, motion, render_preview, skin_to_camera


def _expressions(model, frames):
    low, high = model.expression_range.T
    rng = np.random.default_rng(0)
    amount = rng.random((frames, model.num_expression)) * (rng.random((frames, model.num_expression)) < 0.5)
    return (np.maximum(low, 0) + amount * (high - np.maximum(low, 0))).astype(np.float32)


def _rate(function, frames):
    function()  # compiles
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return frames / best


def main() -> None:
    model = load_face_model()
    frames = 60
    expression = _expressions(model, frames)
    shape = np.zeros(model.num_shape, np.float32)
    person = deform(model, shape, np.zeros(model.num_expression, np.float32))
    turn, shift = rotation_matrix(np.zeros(3, np.float32)), np.zeros(3, np.float32)
    whole, basis, weights = np.ones(len(person), np.float32), blend_rows(model), model.skin_weights

    def skin():
        coefficients, transforms = motion(model, shape, expression)
        for t in range(frames):
            skin_to_camera(person, basis, coefficients[t], weights, transforms[t], whole, turn, shift, turn, shift)

    small = model.landmark_model()
    print(f"{len(model.vertices)} vertices, {len(model.faces)} triangles, {os.cpu_count()} cores; best of 3")
    print(f"skinned and posed, compiled     {_rate(skin, frames):8.0f} heads/s")
    print(f"deform, numpy                   {_rate(lambda: deform(model, shape, expression), frames):8.0f} heads/s")
    print(f"deform of 68 landmarks, numpy   {_rate(lambda: deform(small, shape, expression), frames):8.0f} heads/s")
    preview = _rate(lambda: render_preview(model, shape, expression, size=256), frames)
    print(f"grey preview, 256x256           {preview:8.0f} frames/s")


if __name__ == "__main__":
    main()
