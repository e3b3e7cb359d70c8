"""A checkpoint that `transformers` writes, read by us: the same logits."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InputError
from models.gemma import checkpoint_files, load_gemma, read_sizes
from models.language_model import LanguageModelConfig, hidden_states
from models.layers.attention import prefix_bounds
from tests.token_records import random_params

TEXT = 96
CONFIG = LanguageModelConfig(
    TEXT, 50, (7, 9), width=32, layers=3, heads=4, kv_heads=2, head_width=16, hidden=48, image_width=16
)


@pytest.fixture(scope="module")
def gemma():
    """A tiny Gemma with random weights; norms' scales are random as well, since they start at zero."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    model = GemmaForCausalLM(
        GemmaConfig(
            vocab_size=TEXT,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=48,
            max_position_embeddings=64,
            attn_implementation="eager",
            initializer_range=0.2,
        )  # fmt: skip
    ).eval()
    with torch.no_grad():
        for name, array in model.named_parameters():
            if "norm" in name:
                array.normal_(0, 0.3)
    return model


@pytest.fixture(scope="module")
def folder(gemma, tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma")
    gemma.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def logits_of(params, tokens: np.ndarray) -> np.ndarray:
    """Causal logits over the text table, float32 (B, S, text)."""
    segments = np.ones_like(tokens)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    bounds = prefix_bounds(segments, np.zeros_like(tokens))
    x = hidden_states(CONFIG, params, *map(jnp.asarray, (tokens, positions, segments, bounds)))
    return np.asarray(jnp.einsum("BSD,VD->BSV", x, params["embedding"]["text"]))


def test_logits_are_those_of_transformers(gemma, folder, params):
    import torch

    tokens = np.random.default_rng(1).integers(0, TEXT, (2, 40)).astype(np.int32)
    with torch.no_grad():
        theirs = gemma(torch.from_numpy(tokens).long()).logits.numpy()
    ours = logits_of(load_gemma(folder, CONFIG, params), tokens)
    assert theirs.std() > 0.5
    assert np.abs(ours - theirs).max() < 1e-4


def test_files_in_pieces_give_the_same(gemma, folder, params, tmp_path):
    gemma.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(checkpoint_files(tmp_path)) > 1
    whole, pieces = (load_gemma(path, CONFIG, params) for path in (folder, tmp_path))
    for group in ("embedding", "layers", "final"):
        for name, array in whole[group].items():
            np.testing.assert_array_equal(array, pieces[group][name])


def test_new_rows_are_as_large_as_the_texts(folder, params):
    loaded = load_gemma(folder, CONFIG, params)
    sizes = {name: np.sqrt(np.mean(np.square(table))) for name, table in loaded["embedding"].items()}
    assert sizes["image"] == pytest.approx(sizes["text"], rel=1e-3) == sizes["levels"]
    turned = np.corrcoef(loaded["embedding"]["image"].ravel(), np.ravel(params["embedding"]["image"]))[0, 1]
    assert turned == pytest.approx(1)
    assert set(loaded) == set(params) and loaded["projection"] is params["projection"]


def test_another_architecture_is_refused(folder, tmp_path):
    values = json.loads((folder / "config.json").read_text())
    for change, says in (
        ({"model_type": "gemma2"}, "model_type is 'gemma2', expected 'gemma'"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05"),
        ({"hidden_size": None}, "hidden_size is None, expected a whole number"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(InputError, match=says):
            read_sizes(tmp_path)
    with pytest.raises(InputError, match=r"nothing/config.json: expected the config.json of a Gemma"):
        read_sizes(tmp_path / "nothing")


def test_what_does_not_fit_is_named(folder, params, tmp_path):
    import dataclasses

    with pytest.raises(InputError, match="hidden is 48, the model has 64"):
        load_gemma(folder, dataclasses.replace(CONFIG, hidden=64), params)
    with pytest.raises(InputError, match="embedding has 96 rows, the text tokenizer 97 pieces"):
        load_gemma(folder, dataclasses.replace(CONFIG, text=97), params)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="found neither"):
        load_gemma(tmp_path, CONFIG, params)
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"\.\./model.safetensors: no such file"):
        load_gemma(tmp_path, CONFIG, params)


def test_a_missing_and_a_foreign_tensor_are_named(folder, params, tmp_path):
    from safetensors.numpy import load_file, save_file

    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.layers.9.x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="'model.layers.9.x' is not part of a Gemma of 3 layers"):
        load_gemma(tmp_path, CONFIG, params)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="'model.layers.1.mlp.up_proj.weight' is missing"):
        load_gemma(tmp_path, CONFIG, params)
