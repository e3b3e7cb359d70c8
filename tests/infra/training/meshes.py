"""Run by test_placement in a process of eight devices: the loss and gradient of one batch on every mesh, as JSON."""

import dataclasses
import json
import sys

import jax
import numpy as np

from infra.training.language_job import gradient
from infra.training.placement import Placement, make_mesh
from models.language_model import parameter_axes
from tests.language import language_batch, language_config
from tests.token_records import random_params

MESHES = ((1, 1), (8, 1), (4, 2), (2, 4), (1, 8))


def measure(config, params, batch, sizes: tuple[int, int], parts: int = 1) -> dict:
    """Loss, gradient and the most pieces that an array lies in, on a mesh of (fsdp, tensor)."""
    devices = jax.devices()[: sizes[0] * sizes[1]]
    place = Placement(make_mesh(dict(zip(("fsdp", "tensor"), sizes, strict=True)), devices), parameter_axes(config))
    state = place.state(params)
    with place.scope():
        value, grads = jax.jit(lambda p, b: gradient(config, p, b, parts))(state, place.batch(batch))
    pieces = max(len({str(piece.index) for piece in a.addressable_shards}) for a in jax.tree.leaves(state))
    return {"loss": float(value), "pieces": pieces, "grads": jax.device_get(grads)}


def furthest(grads, truth) -> float:
    """The largest difference of two gradients, each array's in parts of its own largest entry."""
    off = jax.tree.map(lambda a, b: float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9)), grads, truth)
    return max(jax.tree.leaves(off))


def main() -> None:
    found = {}
    # Tables whose rows every mesh divides, with full-width image rows; then a text table that none divides, narrow
    # image rows, and attention by blocks held against the dense.
    for name, changes, meshes in (
        ("even", {"image_width": 32, "text": 264}, MESHES),
        ("odd", {"image_width": 16, "text": 259}, ((1, 1), (2, 4))),
    ):
        config = language_config(heads=8, kv_heads=1, layers=1, **changes)
        batch = language_batch(config, rows=8, length=512, look_at=1)
        params = random_params(config, 1)
        runs = {f"{name} {'x'.join(map(str, sizes))}": measure(config, params, batch, sizes) for sizes in meshes}
        if name == "even":
            runs["even 1x1 in parts"] = measure(config, params, batch, (1, 1), parts=4)
            runs["even 2x2 in parts"] = measure(config, params, batch, (2, 2), parts=4)
        else:
            by_blocks = dataclasses.replace(config, attention="blocks")
            runs["odd 2x4 by blocks"] = measure(by_blocks, params, batch, (2, 4))
        truth = runs[f"{name} 1x1"]["grads"]
        for run, one in runs.items():
            found[run] = {"loss": one["loss"], "pieces": one["pieces"], "off": furthest(one["grads"], truth)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
