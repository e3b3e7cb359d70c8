"""Attention over packed rows by blocks, beside the dense reference, both on the same row in one run.

    python -m tests.benchmarks.attention [--repeats 20]

A row of 1,280 positions with three examples and padding, two query heads of 64 on one key/value head: a layer of the
`tiny` language model. Printed is the median time of the forward pass, and of the gradient, and their ratios.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from models.layers.attention import allowed, attend, prefix_bounds
from models.layers.block_attention import block_attend, segment_starts

LENGTH, HEADS, KV_HEADS, HEAD_WIDTH = 1280, 2, 1, 64
EXAMPLES = ((500, 150), (500, 400), (200, 100))  # ids, of them prefix


def timed(function, arrays, repeats: int) -> float:
    jax.block_until_ready(function(*arrays))
    took = []
    for _ in range(repeats):
        start = time.monotonic()
        jax.block_until_ready(function(*arrays))
        took.append(time.monotonic() - start)
    return float(np.median(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    segments, prefix = np.zeros((2, 1, LENGTH), np.int32)
    end = 0
    for number, (size, given) in enumerate(EXAMPLES, 1):
        segments[:, end : end + size], prefix[:, end : end + given] = number, 1
        end += size
    bounds = jnp.asarray(prefix_bounds(segments, prefix))
    mask, starts = allowed(jnp.asarray(segments), bounds), segment_starts(jnp.asarray(segments))
    rng = np.random.default_rng(0)
    arrays = [
        jnp.asarray(rng.normal(size=(1, LENGTH, n, HEAD_WIDTH)), jnp.float32) for n in (HEADS, KV_HEADS, KV_HEADS)
    ]
    ways = {
        "dense": lambda q, k, v: attend(q, k, v, mask),
        "blocks": lambda q, k, v: block_attend(q, k, v, starts, bounds),
    }
    found: dict[str, tuple[float, float]] = {}
    for name, way in ways.items():
        slope = jax.grad(lambda *x, way=way: jnp.sum(jnp.sin(way(*x))), argnums=(0, 1, 2))
        found[name] = timed(jax.jit(way), arrays, args.repeats), timed(jax.jit(slope), arrays, args.repeats)
        print(f"{name}: forward {1e3 * found[name][0]:.1f} ms, gradient {1e3 * found[name][1]:.1f} ms", flush=True)
    ratios = [a / b for a, b in zip(found["dense"], found["blocks"], strict=True)]
    print(f"blocks is {ratios[0]:.1f}x dense forward, {ratios[1]:.1f}x for the gradient")


if __name__ == "__main__":
    main()
