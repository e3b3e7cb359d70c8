"""Tokens a second of our decoding beside `transformers` generate, with the same weights, at batch 1 and 8.

    python -m tests.benchmarks.generation [--tokens 256] [--prompt 64] [--repeats 3]

A Gemma checkpoint with random weights is written by `transformers` and read by both: one with the body of the `tiny`
preset, and a larger one. Both sample with temperature 1 and top-p 0.95, in float32, on all cores; `transformers` uses
its cache and its default attention. Runs alternate, after one of each that compiles and warms up; the ratio is that of
the medians. Before, both continue one token greedily: the same tokens have to come.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from models.language_model import LanguageModelConfig

# name -> (text ids, width, layers, heads, key/value heads, head width, hidden)
SIZES = {"tiny": (1024, 128, 3, 2, 1, 64, 384), "larger": (32_000, 640, 8, 8, 1, 80, 1920)}


def write_checkpoint(folder: str, size: tuple[int, ...]):
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    text, width, layers, heads, kv_heads, head_width, hidden = size
    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=text, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_width, intermediate_size=hidden, max_position_embeddings=2048,
        initializer_range=0.1,
    )  # fmt: skip
    model = GemmaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def theirs(model, prompt: np.ndarray, count: int, sample: bool) -> np.ndarray:
    import torch

    options = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 0} if sample else {"do_sample": False}
    ids = torch.from_numpy(prompt).long()
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
    return out[:, prompt.shape[1] :].numpy()


def ours(config, params, prompt: np.ndarray, count: int, sample: bool, context: int) -> np.ndarray:
    import jax

    from models.decoding import decode

    rows = len(prompt)
    prefix = np.zeros((rows, context), np.int32)
    prefix[:, : prompt.shape[1]] = prompt
    text = np.zeros(context, np.int32)
    out, _ = decode(
        config, params, prefix, np.full(rows, prompt.shape[1], np.int32), text, text, np.int32(count), np.int32(-1),
        jax.random.split(jax.random.key(0), rows), np.float32(1.0 if sample else 0.0), np.int32(0), np.float32(0.95),
        np.float32(1.0),
    )  # fmt: skip
    return np.asarray(out)[:, :count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    import jax
    import jax.numpy as jnp

    from models.gemma import load_gemma
    from tests.token_records import random_params

    context = args.prompt + args.tokens
    print(f"{args.tokens} tokens after {args.prompt}; medians of {args.repeats}")
    print(f"{'model':<8}{'batch':>6}{'transformers, tokens/s':>26}{'ours':>10}{'ratio':>8}")
    for name, size in SIZES.items():
        text, width, layers, heads, kv_heads, head_width, hidden = size
        config = LanguageModelConfig(
            text, 1024, (512,), width=width, layers=layers, heads=heads, kv_heads=kv_heads, head_width=head_width,
            hidden=hidden, image_width=width,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            model = write_checkpoint(folder, size)
            params = jax.tree.map(jnp.asarray, load_gemma(Path(folder), config, random_params(config)))
        one = np.array([[5]], np.int32)
        same = np.array_equal(theirs(model, one, 32, False), ours(config, params, one, 32, False, context))
        assert same, "both continue greedily with the same weights, and disagree"
        for batch in (1, 8):
            prompt = np.random.default_rng(0).integers(1, text, (batch, args.prompt)).astype(np.int32)
            ways = {
                "theirs": lambda p=prompt, m=model: theirs(m, p, args.tokens, True),
                "ours": lambda p=prompt, c=config, w=params: ours(c, w, p, args.tokens, True, context),
            }
            for run in ways.values():
                run()
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(args.repeats):
                for way, run in ways.items():
                    begin = time.perf_counter()
                    assert run().shape == (batch, args.tokens)
                    seconds[way].append(time.perf_counter() - begin)
            rate = {way: batch * args.tokens / statistics.median(times) for way, times in seconds.items()}
            ratio = rate["ours"] / rate["theirs"]
            print(f"{name:<8}{batch:>6}{rate['theirs']:>26,.0f}{rate['ours']:>10,.0f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
