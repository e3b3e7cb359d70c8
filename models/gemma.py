"""A public Gemma checkpoint as the beginning of the language model.

The folder is what the model's hub gives: ``config.json`` and ``model.safetensors``, or several files that
``model.safetensors.index.json`` lists. Only the first Gemma's architecture (``"model_type": "gemma"``) is the one of
models/language_model.py: RMSNorm before each part, rotary positions, gated MLP with GELU, tied embeddings. Later ones
norm and mask differently, and are refused.

The text table is the checkpoint's embedding; tables of the other modalities are new rows, as large as the text's.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.language_model import LanguageModelConfig, Params
from models.state_dicts import read_state_dict

# Fields of config.json by our names.
_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "hidden": "intermediate_size",
}
# What the architecture fixes, with the value that counts where the file does not say.
_FIXED = {
    "model_type": ("gemma", None),
    "rms_norm_eps": (1e-6, 1e-6),
    "rope_theta": (10_000.0, 10_000.0),
    "attention_bias": (False, False),
    "tie_word_embeddings": (True, True),
    "activation": ("gelu_pytorch_tanh", "gelu_pytorch_tanh"),
}


@dataclasses.dataclass(frozen=True)
class GemmaSizes:
    """Sizes of a checkpoint; ``text`` are the rows of its embedding. The other names as in LanguageModelConfig."""

    text: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int


def read_sizes(folder: Path | str) -> GemmaSizes:
    """Reads a checkpoint's config.json.

    Raises:
        InputError: it is missing, a field is, or it is of another architecture.
    """
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected the config.json of a Gemma checkpoint ({error})") from None
    values = {
        # Newer files keep these two under other names.
        "rope_theta": (values.get("rope_parameters") or {}).get("rope_theta"),
        "activation": values.get("hidden_activation") or None,
        **{name: value for name, value in values.items() if value is not None},
    }
    for name, (expected, default) in _FIXED.items():
        found = values.get(name) if values.get(name) is not None else default
        if found != expected:
            raise InputError(f"{path}: {name} is {found!r}, expected {expected!r}: the first Gemma's architecture")
    names = {"text": "vocab_size", **_SIZES}
    for name in names.values():
        if not isinstance(values.get(name), int) or values[name] < 1:
            raise InputError(f"{path}: {name} is {values.get(name)!r}, expected a whole number")
    return GemmaSizes(**{ours: values[theirs] for ours, theirs in names.items()})


def checkpoint_files(folder: Path | str) -> list[Path]:
    """The checkpoint's safetensors files, in the order of their names.

    Raises:
        InputError: there are none, or one that the index names is missing.
    """
    folder = Path(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected model.safetensors or model.safetensors.index.json, found neither"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{index}: expected a weight_map of tensor names to files ({error})") from None
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise InputError(f"{index}: {missing[0]}: no such file in {folder}")
    return [folder / name for name in names]


def load_gemma(folder: Path | str, config: LanguageModelConfig, params: Params) -> Params:
    """Puts a checkpoint's weights into new parameters.

    Args:
        folder: of the checkpoint.
        config: the model's sizes; its text table has the checkpoint's rows, or fewer (rows that the text tokenizer
            has no piece for).
        params: new parameters (numpy or jax arrays); their rows of other modalities are kept, scaled to the root mean
            square of the text's.

    Returns:
        The parameters, float32 numpy arrays.

    Raises:
        InputError: sizes differ, or a tensor is missing, unknown or of another shape.
    """
    sizes = read_sizes(folder)
    for name in _SIZES:
        if getattr(config, name) != getattr(sizes, name):
            raise InputError(f"{folder}: {name} is {getattr(sizes, name)}, the model has {getattr(config, name)}")
    if not config.text <= sizes.text < config.text + max(1024, config.text // 100):
        raise InputError(
            f"{folder}: the embedding has {sizes.text} rows, the text tokenizer {config.text} pieces; "
            "expected the tokenizer that belongs to the checkpoint (its tokenizer.model)"
        )
    tensors: dict[str, np.ndarray] = {}
    for path in checkpoint_files(folder):
        tensors |= read_state_dict(path)
    tensors.pop("lm_head.weight", None)  # tied: some files hold it twice

    def take(name: str, *shape: int) -> np.ndarray:
        """A tensor as float32, taken out of what is left; PyTorch's matrices are (outputs, inputs)."""
        if name not in tensors:
            raise InputError(f"{folder}: tensor {name!r} is missing")
        if tensors[name].shape != shape:
            raise InputError(f"{folder}: tensor {name!r} has shape {tensors[name].shape}, expected {shape}")
        return tensors.pop(name).astype(np.float32)

    c = config
    D, N, M, H, F = c.width, c.heads, c.kv_heads, c.head_width, c.hidden
    layers: dict[str, list[np.ndarray]] = {name: [] for name in params["layers"]}
    for index in range(c.layers):
        at = f"model.layers.{index}"
        made = {
            "attention_norm": take(f"{at}.input_layernorm.weight", D),
            "query": take(f"{at}.self_attn.q_proj.weight", N * H, D).T.reshape(D, N, H),
            "key": take(f"{at}.self_attn.k_proj.weight", M * H, D).T.reshape(D, M, H),
            "value": take(f"{at}.self_attn.v_proj.weight", M * H, D).T.reshape(D, M, H),
            "out": take(f"{at}.self_attn.o_proj.weight", D, N * H).T.reshape(N, H, D),
            "mlp_norm": take(f"{at}.post_attention_layernorm.weight", D),
            "gate": take(f"{at}.mlp.gate_proj.weight", F, D).T,
            "up": take(f"{at}.mlp.up_proj.weight", F, D).T,
            "down": take(f"{at}.mlp.down_proj.weight", D, F).T,
        }
        for name, array in made.items():
            layers[name].append(array)
    text = take("model.embed_tokens.weight", sizes.text, D)[: c.text]
    final = take("model.norm.weight", D)
    left = [name for name in tensors if not name.endswith("rotary_emb.inv_freq")]
    if left:
        raise InputError(f"{folder}: tensor {left[0]!r} is not part of a Gemma of {c.layers} layers")
    size = float(np.sqrt(np.mean(np.square(text, dtype=np.float64))))
    embedding = {"text": text}
    for name in ("image", "levels"):
        rows = np.asarray(params["embedding"][name], np.float32)
        embedding[name] = rows * (size / max(float(np.sqrt(np.mean(np.square(rows)))), 1e-12))
    return {
        **params,
        "embedding": embedding,
        "layers": {name: np.stack(arrays) for name, arrays in layers.items()},
        "final": {"norm": final},
    }
