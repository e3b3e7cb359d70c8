"""DINOv2 against `transformers` on the same random weights, and the three namings of its weight files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.dinov2 import Dino, DinoConfig, bicubic_weights, load_dino, official_names
from models.errors import InputError
from models.io import flatten
from models.layers.module import abstract

SMALL = DinoConfig(24, 3, 3, patch=14, image=70)


def reference(config: DinoConfig, seed: int = 0):
    """A `transformers` model of the same shape with weights that are all far from their initial values."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name = "Dinov2WithRegisters" if config.registers else "Dinov2"
    extra = {"num_register_tokens": config.registers} if config.registers else {}
    model = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            image_size=config.image,
            patch_size=config.patch,
            use_swiglu_ffn=config.swiglu,
            **extra,
        )
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.7 + 0.3 * values if parameter.ndim == 1 else values / parameter.shape[-1] ** 0.5)
    return model


def run(config, params, pictures):
    graph, _ = abstract(lambda rngs: Dino(config, rngs=rngs))
    return np.asarray(nnx.merge(graph, jax.tree.map(jnp.asarray, params))(jnp.asarray(pictures)))


def pictures(side, seed=1):
    height, width = side
    return np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (SMALL, (70, 70)),
        (SMALL, (56, 98)),
        (dataclasses.replace(SMALL, swiglu=True), (70, 70)),
        (dataclasses.replace(SMALL, registers=4, antialias=True), (42, 84)),
    ],
    ids=["trained-size", "interpolated", "swiglu", "registers"],
)
def test_parity_with_transformers(tmp_path, config, side):
    torch = pytest.importorskip("torch")
    model = reference(config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    x = pictures(side)
    with torch.no_grad():
        expected = model(pixel_values=torch.from_numpy(x.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    made = run(config, load_dino(tmp_path / "pytorch_model.bin", config), x)
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() < 1e-4


def test_files_of_transformers_and_of_meta_are_the_same_parameters(tmp_path):
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(SMALL, swiglu=True)
    model = reference(config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.save_pretrained(tmp_path)  # model.safetensors, in the hub's naming
    meta = {name: torch.from_numpy(value) for name, value in official_names(named(model)).items()}
    assert {"blocks.2.mlp.w12.weight", "blocks.0.attn.qkv.bias", "blocks.1.ls2.gamma", "pos_embed"} <= set(meta)
    torch.save(meta, tmp_path / "dinov2_vitg14_pretrain.pth")
    loaded = [
        flatten(load_dino(tmp_path / name, config))
        for name in ("pytorch_model.bin", "model.safetensors", "dinov2_vitg14_pretrain.pth")
    ]
    for other in loaded[1:]:
        for name, value in loaded[0].items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_the_hub_s_older_naming_is_read():
    names = {
        "dinov2.encoder.layer.0.attention.attention.query.weight": np.full((2, 2), 1.0),
        "dinov2.encoder.layer.0.attention.attention.key.weight": np.full((2, 2), 2.0),
        "dinov2.encoder.layer.0.attention.attention.value.weight": np.full((2, 2), 3.0),
        "dinov2.encoder.layer.0.attention.output.dense.bias": np.zeros(2),
        "dinov2.encoder.layer.0.mlp.weights_in.weight": np.zeros((6, 2)),
    }
    renamed = official_names(names)
    assert set(renamed) == {"blocks.0.attn.qkv.weight", "blocks.0.attn.proj.bias", "blocks.0.mlp.w12.weight"}
    np.testing.assert_array_equal(renamed["blocks.0.attn.qkv.weight"][:, 0], [1, 1, 2, 2, 3, 3])


def named(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_a_missing_and_a_misshapen_tensor_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(v.copy()) for name, v in official_names(named(reference(SMALL))).items()}
    torch.save({k: v for k, v in tensors.items() if k != "blocks.1.attn.qkv.bias"}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"'blocks.1.attn.qkv.bias' is missing, expected shape \(72,\)"):
        load_dino(tmp_path / "a.pth", SMALL)
    torch.save(tensors | {"pos_embed": torch.zeros(1, 50, 24)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"'pos_embed' has shape \(1, 50, 24\), expected \(1, 26, 24\)"):
        load_dino(tmp_path / "b.pth", SMALL)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("target", [3, 5, 9, 16])
def test_bicubic_weights_are_those_of_torch(target, antialias):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x)[None, None], size=(target, 5), mode="bicubic", align_corners=False, antialias=antialias
    )[0, 0].numpy()
    np.testing.assert_allclose(bicubic_weights(7, target, antialias) @ x, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (DinoConfig.small(), 22.06),
        (DinoConfig.base(), 86.58),
        (DinoConfig.large(), 304.37),
        (DinoConfig.giant(), 1136.48),
    ],
)
def test_the_published_sizes(config, millions):
    _, template = abstract(lambda rngs: Dino(config, rngs=rngs))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(template))
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_features_are_the_normed_tokens_of_their_blocks(tmp_path):
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(SMALL, registers=2)
    model = reference(config)
    torch.save(model.state_dict(), tmp_path / "w.bin")
    graph, _ = abstract(lambda rngs: Dino(config, rngs=rngs))
    net = nnx.merge(graph, jax.tree.map(jnp.asarray, load_dino(tmp_path / "w.bin", config)))
    x = pictures((70, 70))
    first, last = net.features(jnp.asarray(x), (0, 2))
    assert first.shape == last.shape == (2, 5, 5, 24)
    np.testing.assert_allclose(last.reshape(2, 25, 24), net(jnp.asarray(x))[:, 3:], atol=1e-5)
    assert np.abs(np.asarray(first - last)).max() > 0.1
