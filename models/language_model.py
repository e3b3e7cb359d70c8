"""The prefix language model: decoder only, bidirectional over the prefix, one vocabulary for text and every modality.

RMSNorm, rotary positions, gated MLP, multi-query attention, embeddings tied with the output, no biases. The paper's
backbone is PaLM 2 1B, whose dimensions are unpublished; this one is of the same family and laid out like the public
Gemma.

Alphabet: B rows, S positions, D width, N query heads, M key/value heads, H head width, F hidden width of the MLP, L
layers, R blocks of the head, P positions of a block, I width of the image table.

Flax NNX modules written tree-style: `graph_of` is the module without its arrays, and parameters are nested dicts that
plain ``jax.jit``, ``jax.grad`` and ``jax.lax.scan`` take. Layers are stacked on a leading axis and scanned. The
vocabulary lies in three tables: text, image, and ``levels`` (every range of speech, animation and semantics); the
output's softmax goes over one range at a time (language_head.py). Where a mesh is set, arrays lie on it as
layers/sharding.py says.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.language_head import target_nll
from models.layers.attention import allowed, attend, rotate
from models.layers.block_attention import block_attend, segment_starts
from models.layers.module import abstract
from models.layers.sharding import constrain

Params = dict[str, Any]
ROWS = ("tokens", "positions", "segments", "bounds")  # what the network reads of a batch
ATTENTION = ("dense", "blocks", "splash")


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes. ``levels`` are the sizes of the ranges that follow text and image, in order of their ids.

    The image table is most of a small model: 262,144 rows. With ``image_width`` smaller than ``width`` its rows are
    narrower, and one projection that input and output share takes them to the model's width and back.

    ``dropout`` is the rate at which training forgets numbers of the embeddings and of what each layer adds; half as
    often it forgets whole tokens. A small data set is learned by heart without it.

    With ``clock`` every other rotary frequency turns with the time that a token is of, not with its place in the row:
    what sounds and what is seen at one moment are then at one distance from each other, wherever they stand. Rows have
    one more array.

    ``attention`` is "dense" (the reference), "blocks" (the same in plain JAX without what nobody sees: for processors)
    or "splash" (a TPU's kernel, which works on ``splash_block`` positions at once; interpreted it runs anywhere,
    slowly).
    """

    text: int
    image: int
    levels: tuple[int, ...]
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 1
    head_width: int = 32
    hidden: int = 384
    image_width: int = 128
    dtype: str = "float32"
    remat: bool = False
    attention: str = "dense"
    splash_block: int = 512
    splash_interpret: bool = False
    dropout: float = 0.0
    clock: bool = False

    def __post_init__(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout:g}: expected at least 0, below 1")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention={self.attention!r}: expected one of {', '.join(ATTENTION)}")

    @property
    def tables(self) -> dict[str, int]:
        """Rows of each table, in order of their ids."""
        return {"text": self.text, "image": self.image, "levels": sum(self.levels)}

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """The (table, range size) pairs that a head block can have; its class is an index into these."""
        return (("text", self.text), ("image", self.image), *(("levels", n) for n in sorted(set(self.levels))))

    def head_range(self, start: int, size: int) -> tuple[int, int]:
        """Returns (class, first row in its table) of the ids [start, start + size)."""
        if start == 0:
            return 0, 0
        if start == self.text:
            return 1, 0
        return self.classes.index(("levels", size)), start - self.text - self.image


# --- Parameters -------------------------------------------------------------------------------------------------------


def parameter_shapes(config: LanguageModelConfig) -> dict[str, dict[str, tuple[tuple[int, ...], tuple[str, ...], int]]]:
    """Declares every array once: group -> name -> (shape, logical axes, fan in).

    The fan in sets the variance of the initialisation; with 0 the array starts at zero. Embeddings start a quarter as
    large as an input alone would want: they are the output as well, and a new model should give every id its chance.
    """
    c = config
    L, D, N, M, H, F = c.layers, c.width, c.heads, c.kv_heads, c.head_width, c.hidden
    I = c.image_width
    groups = {
        "embedding": {
            "text": ((c.text, D), ("vocabulary", "width"), 16 * D),
            "image": ((c.image, I), ("vocabulary", "width" if I == D else "image_width"), 16 * D),
            "levels": ((sum(c.levels), D), ("levels", "width"), 16 * D),
        },
        "layers": {
            "attention_norm": ((L, D), ("layer", "width"), 0),
            "query": ((L, D, N, H), ("layer", "width", "heads", "head_width"), D),
            "key": ((L, D, M, H), ("layer", "width", "kv_heads", "head_width"), D),
            "value": ((L, D, M, H), ("layer", "width", "kv_heads", "head_width"), D),
            "out": ((L, N, H, D), ("layer", "heads", "head_width", "width"), N * H * 2 * L),
            "mlp_norm": ((L, D), ("layer", "width"), 0),
            "gate": ((L, D, F), ("layer", "width", "hidden"), D),
            "up": ((L, D, F), ("layer", "width", "hidden"), D),
            "down": ((L, F, D), ("layer", "hidden", "width"), F * 2 * L),
        },
        "final": {"norm": ((D,), ("width",), 0)},
    }
    if I != D:
        groups["projection"] = {"image": ((I, D), ("image_width", "width"), I)}
    return groups


def parameter_axes(config: LanguageModelConfig) -> dict[str, dict[str, tuple[str, ...]]]:
    """Returns the logical axes of every array, in the tree of the parameters."""
    return {
        group: {name: axes for name, (_, axes, _) in arrays.items()}
        for group, arrays in parameter_shapes(config).items()
    }


def init_params(config: LanguageModelConfig, key: jax.Array) -> Params:
    """Returns float32 parameters, normal with variance 1 / fan in, smaller with depth where it joins the residual.

    Ids of one range of the ``levels`` begin with a vector in common, as long as the one that each has of its own: which
    range a token is of, and so where in a row it stands, can be read before any id has been learned. The softmax of a
    range does not see it.
    """
    params: Params = {}
    for index, (group, arrays) in enumerate(parameter_shapes(config).items()):
        # One draw a group: XLA needs longer to compile a draw than to make one.
        sizes = [math.prod(shape) if fan_in else 0 for shape, _, fan_in in arrays.values()]
        drawn = jax.random.normal(jax.random.fold_in(key, index), (sum(sizes),)) if sum(sizes) else None
        params[group] = {}
        end = 0
        for (name, (shape, _, fan_in)), size in zip(arrays.items(), sizes, strict=True):
            end += size
            params[group][name] = drawn[end - size : end].reshape(shape) * fan_in**-0.5 if size else jnp.zeros(shape)
    levels, rows = params["embedding"]["levels"], jnp.array(config.levels)
    shared = jax.random.normal(jax.random.fold_in(key, len(params)), (len(config.levels), config.width))
    shared = shared * (16 * config.width) ** -0.5
    params["embedding"]["levels"] = levels + jnp.repeat(shared, rows, axis=0, total_repeat_length=len(levels))
    return params


# --- Modules ----------------------------------------------------------------------------------------------------------


class Arrays(nnx.Module):
    """One group of `parameter_shapes`: each array an attribute. They start at zero; `init_params` draws them."""

    def __init__(self, config: LanguageModelConfig, group: str):
        self.config = config
        for name, (shape, _, _) in parameter_shapes(config)[group].items():
            setattr(self, name, nnx.Param(jnp.zeros(shape)))

    def __getitem__(self, name: str) -> jax.Array:
        return getattr(self, name)[...]


class Layers(Arrays):
    """Attention and gated MLP. Made of all layers; its methods are called on one, cut out by a scan."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__(config, "layers")

    def project(
        self, x: jax.Array, positions: jax.Array, clock: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(B, S, D) -> rotated query (B, S, N, H), rotated key (B, S, M, H), value (B, S, M, H)."""
        h = rms_norm(x, self["attention_norm"])
        q = jnp.einsum("BSD,DNH->BSNH", h, self["query"].astype(h.dtype))
        k = jnp.einsum("BSD,DMH->BSMH", h, self["key"].astype(h.dtype))
        v = jnp.einsum("BSD,DMH->BSMH", h, self["value"].astype(h.dtype))
        return rotate(q, positions, clock), rotate(k, positions, clock), v

    def finish(self, x: jax.Array, mixed: jax.Array) -> jax.Array:
        """Adds what attention gave (B, S, N, H) to (B, S, D), then the gated MLP."""
        x = x + jnp.einsum("BSNH,NHD->BSD", mixed, self["out"].astype(x.dtype))
        h = rms_norm(x, self["mlp_norm"])
        gate = jax.nn.gelu(jnp.einsum("BSD,DF->BSF", h, self["gate"].astype(h.dtype)))
        up = jnp.einsum("BSD,DF->BSF", h, self["up"].astype(h.dtype))
        return x + jnp.einsum("BSF,FD->BSD", gate * up, self["down"].astype(h.dtype))


class LanguageModel(nnx.Module):
    """The network: embed, the layers, and hidden states that predict."""

    def __init__(self, config: LanguageModelConfig):
        self.config = config
        self.embedding = Arrays(config, "embedding")
        self.layers = Layers(config)
        self.final = Arrays(config, "final")
        if "projection" in parameter_shapes(config):
            self.projection = Arrays(config, "projection")

    def _projection(self, name: str) -> jax.Array | None:
        """(its width, D) of a table with narrow rows."""
        narrow = getattr(self, "projection", None)
        return narrow[name] if narrow is not None and hasattr(narrow, name) else None

    def embed(self, tokens: jax.Array) -> jax.Array:
        """int (...) ids -> (..., D), scaled by sqrt(D)."""
        x, start = 0, 0
        for name, rows in self.config.tables.items():
            inside = (tokens >= start) & (tokens < start + rows)
            # An id of another table reads row 0 and is masked, so its gradient is zero there.
            found = self.embedding[name][jnp.where(inside, tokens - start, 0)]
            narrow = self._projection(name)
            if narrow is not None:
                found = jnp.einsum("...I,ID->...D", found, narrow)
            x = x + jnp.where(inside[..., None], found, 0)
            start += rows
        return (x * self.config.width**0.5).astype(self.config.dtype)

    def scan(self, step, carry: Any, *per_layer: Any) -> Any:
        """Runs ``step(one layer, carry, *its part of per_layer) -> carry`` over the layers."""
        graph, arrays = nnx.split(self.layers)

        def layer(carry, inputs):
            weights, *rest = inputs
            return step(nnx.merge(graph, weights), carry, *rest), None

        if self.config.remat:
            layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable, prevent_cse=False)
        return jax.lax.scan(layer, carry, (arrays, *per_layer))[0]

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        bounds: jax.Array,
        clock: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Runs over packed rows.

        Args:
            tokens: int32 (B, S) ids.
            positions: int32 (B, S), from 0 in each segment.
            segments: int32 (B, S), 0 is padding.
            bounds: int32 (B, S), ``attention.prefix_bounds``.
            clock: int32 (B, S), ticks; for a model with a clock, and no other.
            key: of the dropout; None forgets nothing.

        Returns:
            (B, S, D), normed: position s holds the prediction of token s + 1.
        """
        if self.config.clock != (clock is not None):
            raise ValueError(f"clock={self.config.clock} in the model, {clock is not None} in the rows")
        if self.config.attention == "splash":
            from models.layers.prefix_splash import kernels, splash_attend

            made = kernels(bounds, segments, self.config.splash_block, self.config.splash_interpret)
            mix = lambda q, k, v: splash_attend(made, q, k, v, segments)  # noqa: E731
        elif self.config.attention == "blocks":
            starts = segment_starts(segments)
            mix = lambda q, k, v: block_attend(q, k, v, starts, bounds)  # noqa: E731
        else:
            mask = allowed(segments, bounds)
            mix = lambda q, k, v: attend(q, k, v, mask)  # noqa: E731

        rate = self.config.dropout

        def layer(w: Layers, x, *keys):
            y = w.finish(x, mix(*w.project(x, positions, clock)))
            for key in keys:
                y = x + forget(y - x, rate, key)
            return constrain(y, "batch", "length", "features")

        x = constrain(self.embed(tokens), "batch", "length", "features")
        if key is None or not rate:
            return self.norm(self.scan(layer, x))
        keys = jax.random.split(key, 2 + self.config.layers)
        x = forget(x, rate, keys[0])
        x = jnp.where(jax.random.bernoulli(keys[1], rate / 2, tokens.shape)[..., None], 0, x)
        return self.norm(self.scan(layer, x, keys[2:]))

    def norm(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.final["norm"])

    def head_input(self, name: str, x: jax.Array) -> jax.Array:
        """Takes hidden states (..., D) to the width of a table's rows."""
        narrow = self._projection(name)
        return x if narrow is None else jnp.einsum("...D,ID->...I", x, narrow.astype(x.dtype))


def forget(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout: sets numbers to nought at a rate, and enlarges the others so that the mean stays."""
    return jnp.where(jax.random.bernoulli(key, rate, x.shape), 0, x / (1 - rate)).astype(x.dtype)


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """RMSNorm in float32; the scale is stored less one."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
    return (y * (1 + scale)).astype(x.dtype)


@functools.cache
def graph_of(config: LanguageModelConfig) -> Any:
    """Returns the module without its arrays, made once for a config."""
    return abstract(lambda rngs: LanguageModel(config))[0]


def bind(config: LanguageModelConfig, params: Params) -> LanguageModel:
    """Returns the module with these parameters (arrays or tracers)."""
    return nnx.merge(graph_of(config), params)


def hidden_states(
    config: LanguageModelConfig,
    params: Params,
    *rows: jax.Array,
    clock: jax.Array | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """`LanguageModel.__call__` as a function of the parameters; ``rows`` are the arrays of ``ROWS``."""
    return bind(config, params)(*rows, clock=clock, key=key)


# --- Loss -------------------------------------------------------------------------------------------------------------


def head_nll(config: LanguageModelConfig, params: Params, x: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Negative log-likelihood, float32 (B, R, P), of the head's targets from hidden states (B, S, D)."""
    model = bind(config, params)
    narrow = [name for name in config.tables if name in params.get("projection", {})]
    hidden = {"width": x} | {name: model.head_input(name, x) for name in narrow}
    axes = parameter_axes(config)["embedding"]
    return target_nll(config.classes, params["embedding"], axes, hidden, batch)


def loss(
    config: LanguageModelConfig,
    params: Params,
    batch: dict[str, jax.Array],
    total: jax.Array | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mean negative log-likelihood of the target tokens, in nats.

    Args:
        batch: ``tokens``, ``positions``, ``segments``, ``bounds``, with a clock ``clock``, int32 (B, S); and the head's
            blocks of each row:
            ``head_positions`` int32 (B, R, P), which position of the row predicts, ``head_targets`` int32 (B, R, P)
            relative to the block's range, ``head_weights`` float32 (B, R, P), ``head_starts`` int32 (B, R),
            ``head_ends`` int32 (B, classes).
        total: what the sum is divided by, in place of the sum of the weights: a part of a batch has the whole's.
        key: of the dropout, in training.

    Returns:
        (loss, float32 (B, R, P) of each target, before weights).
    """
    x = hidden_states(config, params, *(batch[name] for name in ROWS), clock=batch.get("clock"), key=key)
    nll, weights = head_nll(config, params, x, batch), batch["head_weights"]
    total = jnp.maximum(jnp.sum(weights), 1) if total is None else total
    return jnp.sum(jnp.where(weights > 0, nll * weights, 0)) / total, nll
