"""The prefix language model: decoder only, bidirectional over the prefix, one vocabulary for text and every modality.

RMSNorm, rotary positions, gated MLP, multi-query attention, embeddings tied with the output, no biases. The paper's
backbone is PaLM 2 1B, whose dimensions are unpublished; this one is of the same family and laid out like the public
Gemma.

Alphabet: B rows, S positions, D width, N query heads, M key/value heads, H head width, F hidden width of the MLP, L
layers, R blocks of the head, P positions of a block, V ids of a range.

Pure functions over a dict of arrays. Layers are stacked on a leading axis and scanned. The vocabulary lies in three
tables: text, image, and ``levels`` (every range of speech, animation and semantics). A position's softmax goes over
one range only, so the head works on blocks of positions that share a range, and reads no row of another.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from models.layers.attention import allowed, attend, rotate

Params = dict[str, Any]


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes. ``levels`` are the sizes of the ranges that follow text and image, in order of their ids.

    The image table is most of a small model: 262,144 rows. With ``image_width`` smaller than ``width`` its rows are
    narrower, and one projection that input and output share takes them to the model's width and back.
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
    projection = {"image": ((I, D), ("image_width", "width"), I)} if I != D else {}
    return {
        "embedding": {
            "text": ((c.text, D), ("vocabulary", "width"), 16 * D),
            "image": ((c.image, I), ("vocabulary", "width" if I == D else "image_width"), 16 * D),
            "levels": ((sum(c.levels), D), ("vocabulary", "width"), 16 * D),
        },
        "projection": projection,
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


def init_params(config: LanguageModelConfig, key: jax.Array) -> Params:
    """Returns float32 parameters, normal with variance 1 / fan in, smaller with depth where it joins the residual."""
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
    return params


# --- Body -------------------------------------------------------------------------------------------------------------


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """RMSNorm in float32; the scale is stored less one."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
    return (y * (1 + scale)).astype(x.dtype)


def embed(config: LanguageModelConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """int (...) ids -> (..., D), scaled by sqrt(D)."""
    x, start = 0, 0
    for name, rows in config.tables.items():
        inside = (tokens >= start) & (tokens < start + rows)
        # An id of another table reads row 0 and is masked, so its gradient is zero there.
        found = params["embedding"][name][jnp.where(inside, tokens - start, 0)]
        if name in params["projection"]:
            found = jnp.einsum("...I,ID->...D", found, params["projection"][name])
        x = x + jnp.where(inside[..., None], found, 0)
        start += rows
    return (x * config.width**0.5).astype(config.dtype)


def _project(w: Params, x: jax.Array, positions: jax.Array):
    """Normed input -> rotated query, rotated key, value."""
    h = _norm(x, w["attention_norm"])
    q = jnp.einsum("BSD,DNH->BSNH", h, w["query"].astype(h.dtype))
    k = jnp.einsum("BSD,DMH->BSMH", h, w["key"].astype(h.dtype))
    v = jnp.einsum("BSD,DMH->BSMH", h, w["value"].astype(h.dtype))
    return rotate(q, positions), rotate(k, positions), v


def _finish(w: Params, x: jax.Array, mixed: jax.Array) -> jax.Array:
    """Adds what attention gave, then the gated MLP."""
    x = x + jnp.einsum("BSNH,NHD->BSD", mixed, w["out"].astype(x.dtype))
    h = _norm(x, w["mlp_norm"])
    gate = jax.nn.gelu(jnp.einsum("BSD,DF->BSF", h, w["gate"].astype(h.dtype)))
    up = jnp.einsum("BSD,DF->BSF", h, w["up"].astype(h.dtype))
    return x + jnp.einsum("BSF,FD->BSD", gate * up, w["down"].astype(h.dtype))


def hidden_states(
    config: LanguageModelConfig,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    bounds: jax.Array,
) -> jax.Array:
    """Runs the body over packed rows.

    Args:
        tokens: int32 (B, S) ids.
        positions: int32 (B, S), from 0 in each segment.
        segments: int32 (B, S), 0 is padding.
        bounds: int32 (B, S), ``attention.prefix_bounds``.

    Returns:
        (B, S, D), normed: position s holds the prediction of token s + 1.
    """
    mask = allowed(segments, bounds)

    def layer(x, w):
        q, k, v = _project(w, x, positions)
        return _finish(w, x, attend(q, k, v, mask)), None

    if config.remat:
        layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable, prevent_cse=False)
    x, _ = jax.lax.scan(layer, embed(config, params, tokens), params["layers"])
    return _norm(x, params["final"]["norm"])


def head_input(params: Params, name: str, x: jax.Array) -> jax.Array:
    """Takes hidden states (..., D) to the width of a table's rows."""
    if name not in params["projection"]:
        return x
    return jnp.einsum("...D,ID->...I", x, params["projection"][name].astype(x.dtype))


# --- Head -------------------------------------------------------------------------------------------------------------


def _range_logits(table: jax.Array, start: jax.Array, size: int, hidden: jax.Array) -> jax.Array:
    rows = jax.lax.dynamic_slice_in_dim(table, start, size).astype(hidden.dtype)
    return jnp.einsum("PD,VD->PV", hidden, rows, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def range_cross_entropy(
    classes: tuple[tuple[str, int], ...],
    tables: dict[str, jax.Array],
    hidden: dict[str, jax.Array],
    targets: jax.Array,
    starts: jax.Array,
    ends: jax.Array,
) -> jax.Array:
    """Negative log-likelihood of targets under the softmax of their own ranges.

    Blocks are sorted by class, and each class has its loop, as long as it has blocks: a batch without image targets
    runs no image block. The backward pass adds each block's gradient to its slice of the table in place; plain
    differentiation of the loop would write a gradient as large as the table for every block.

    Args:
        classes: (table, range size) of each class.
        tables: the embedding, {name: (rows, D of the table)}.
        hidden: {name: (R, P, D of the table)}.
        targets: int32 (R, P), relative to the block's range.
        starts: int32 (R,), the range's first row in its table.
        ends: int32 (classes,), where the blocks of each class end; blocks after the last are empty.

    Returns:
        float32 (R, P); 0 in empty blocks.
    """
    return _head_forward(classes, tables, hidden, targets, starts, ends)[0]


def _head_forward(classes, tables, hidden, targets, starts, ends):
    def block(name, size, i, carry):
        nll, norm = carry
        logits = _range_logits(tables[name], starts[i], size, hidden[name][i])
        z = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, targets[i][:, None], axis=-1)[:, 0]
        return nll.at[i].set(z - picked), norm.at[i].set(z)

    carry = (jnp.zeros(targets.shape, jnp.float32),) * 2
    begin = 0
    for c, (name, size) in enumerate(classes):
        carry = jax.lax.fori_loop(begin, ends[c], functools.partial(block, name, size), carry)
        begin = ends[c]
    nll, norm = carry
    return nll, (tables, hidden, targets, starts, ends, norm)


def _head_backward(classes, saved, cotangent):
    tables, hidden, targets, starts, ends, norm = saved

    def block(name, size, i, carry):
        grad_hidden, grad_table = carry
        x = hidden[name][i]
        rows = jax.lax.dynamic_slice_in_dim(tables[name], starts[i], size).astype(x.dtype)
        logits = jnp.einsum("PD,VD->PV", x, rows, preferred_element_type=jnp.float32)
        slope = jnp.exp(logits - norm[i][:, None]) * cotangent[i][:, None]
        slope = slope.at[jnp.arange(slope.shape[0]), targets[i]].add(-cotangent[i]).astype(x.dtype)
        grad_hidden = grad_hidden.at[i].set(jnp.einsum("PV,VD->PD", slope, rows))
        add = jnp.einsum("PV,PD->VD", slope, x, preferred_element_type=jnp.float32)
        old = jax.lax.dynamic_slice_in_dim(grad_table, starts[i], size)
        return grad_hidden, jax.lax.dynamic_update_slice_in_dim(grad_table, old + add, starts[i], 0)

    grad_hidden = jax.tree.map(jnp.zeros_like, hidden)
    grads = {name: jnp.zeros(table.shape, jnp.float32) for name, table in tables.items()}
    begin = 0
    for c, (name, size) in enumerate(classes):
        body = functools.partial(block, name, size)
        carry = (grad_hidden[name], grads[name])
        grad_hidden[name], grads[name] = jax.lax.fori_loop(begin, ends[c], body, carry)
        begin = ends[c]
    grads = {name: grad.astype(tables[name].dtype) for name, grad in grads.items()}
    return grads, grad_hidden, None, None, None


range_cross_entropy.defvjp(_head_forward, _head_backward)


def head_loss(
    config: LanguageModelConfig, params: Params, x: jax.Array, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Mean negative log-likelihood of the targets of a batch, from hidden states (B, S, D); see ``loss``."""
    picked = x.reshape(-1, config.width)[batch["head_positions"]]  # (R, P, D)
    nll = range_cross_entropy(
        config.classes,
        params["embedding"],
        {name: head_input(params, name, picked) for name in config.tables},
        batch["head_targets"],
        batch["head_starts"],
        batch["head_ends"],
    )
    weights = batch["head_weights"]
    return jnp.sum(nll * weights) / jnp.maximum(jnp.sum(weights), 1), nll


def loss(config: LanguageModelConfig, params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Mean negative log-likelihood of the target tokens, in nats.

    Args:
        batch: ``tokens``, ``positions``, ``segments``, ``bounds`` int32 (B, S); and the head's blocks:
            ``head_positions`` int32 (R, P) indices into the B * S positions that predict, ``head_targets`` int32 (R, P)
            relative to the block's range, ``head_weights`` float32 (R, P), ``head_starts`` int32 (R,), ``head_ends``
            int32 (classes,).

    Returns:
        (loss, float32 (R, P) of each target, before weights).
    """
    x = hidden_states(config, params, batch["tokens"], batch["positions"], batch["segments"], batch["bounds"])
    return head_loss(config, params, x, batch)


# --- Decoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the most likely token; top_p in (0, 1] keeps the smallest set with that much mass."""

    temperature: float = 1.0
    top_p: float = 0.95


def nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Returns the logits with everything outside the top-p set at -inf (Holtzman et al. 2019).

    The set's least probability is found by bisection: no sort, which would cost more than the model on 262,144 ids.
    The most likely token always stays.

    Args:
        logits: float32 (B, V).
        top_p: scalar.
    """
    p = jax.nn.softmax(logits, axis=-1)
    top = jnp.max(p, axis=-1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket  # mass above low is at least top_p; above high it is not
        middle = (low + high) / 2
        enough = jnp.sum(jnp.where(p >= middle, p, 0), axis=-1, keepdims=True) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(top), top))
    return jnp.where(p >= jnp.minimum(low, top), logits, -jnp.inf)


def _cached_layer(w, x, positions, mask, layer, caches, at):
    """One layer over new positions, with their keys and values put into the caches (L, B, K, M, H) at ``at``."""
    q, k, v = _project(w, x, positions)
    zero = jnp.int32(0)
    caches = tuple(
        jax.lax.dynamic_update_slice(cache, new[None], (layer, zero, at, zero, zero))
        for cache, new in zip(caches, (k, v), strict=True)
    )
    key, value = (jax.lax.dynamic_index_in_dim(cache, layer, keepdims=False) for cache in caches)
    return _finish(w, x, attend(q, key, value, mask)), caches


def _cached_body(config, params, x, positions, mask, caches, at):
    def layer(carry, inputs):
        w, index = inputs
        x, caches = carry
        return _cached_layer(w, x, positions, mask, index, caches, at), None

    (x, caches), _ = jax.lax.scan(layer, (x, caches), (params["layers"], jnp.arange(config.layers, dtype=jnp.int32)))
    return _norm(x, params["final"]["norm"]), caches


@functools.partial(jax.jit, static_argnums=0)
def decode(
    config: LanguageModelConfig,
    params: Params,
    prefix: jax.Array,
    length: jax.Array,
    classes: jax.Array,
    starts: jax.Array,
    count: jax.Array,
    stop: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    grammar: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Writes tokens after a prefix, each from the one range that its position allows.

    The prefix is read once, padded to the context, and every later token attends to the cache: one compiled program
    serves every prompt and every output length.

    Args:
        prefix: int32 (B, S) ids, padded to the context S.
        length: int32 (), tokens of the prefix; the same for all rows.
        classes: int32 (S,), class of each output position (``LanguageModelConfig.head_range``).
        starts: int32 (S,), first row of its range in its table.
        count: int32 (), how many tokens to write at most; length + count <= S.
        stop: int32 (), an id relative to its range at which a row ends; -1 for none.
        key: sampling key.
        temperature: float32 (); 0 is greedy.
        top_p: float32 ().
        grammar: int32 (states, text), for text: the state that each piece leads to, from state 0; below 0 it cannot
            be drawn.

    Returns:
        (int32 (B, S) tokens relative to their ranges, the first ``count`` are meant; int32 (B,) tokens written before
        stop).
    """
    c = config
    B, S = prefix.shape
    dtype = jnp.dtype(c.dtype)
    caches = (jnp.zeros((c.layers, B, S, c.kv_heads, c.head_width), dtype),) * 2
    positions = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    seen = jnp.broadcast_to(jnp.arange(S) < length, (B, S, S))
    x, caches = _cached_body(c, params, embed(c, params, prefix), positions, seen, caches, jnp.int32(0))
    state = jax.lax.dynamic_index_in_dim(x, length - 1, 1, keepdims=False)  # (B, D)
    offsets = jnp.cumsum(jnp.array([0, *c.tables.values()]))[:-1]
    table_of = jnp.array([list(c.tables).index(name) for name, _ in c.classes])

    def pick(index):
        name, size = c.classes[index]

        def branch(state, start, key, follows):
            rows = jax.lax.dynamic_slice_in_dim(params["embedding"][name], start, size).astype(state.dtype)
            x = head_input(params, name, state)
            logits = jnp.einsum("BD,VD->BV", x, rows, preferred_element_type=jnp.float32)
            if name == "text" and grammar is not None:
                logits = jnp.where(grammar[follows] >= 0, logits, -jnp.inf)
            kept = nucleus(logits / jnp.maximum(temperature, 1e-6), top_p)
            drawn = jax.random.categorical(key, kept, axis=-1)
            return jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)

        return branch

    branches = [pick(i) for i in range(len(c.classes))]

    def more(loop):
        i, _, _, _, done, _, _ = loop
        return (i < count) & ~jnp.all(done)

    def write(loop):
        i, state, caches, out, done, written, follows = loop
        token = jax.lax.switch(classes[i], branches, state, starts[i], jax.random.fold_in(key, i), follows)  # (B,)
        if grammar is not None:
            follows = grammar[follows, token]
        out = jax.lax.dynamic_update_slice_in_dim(out, token[:, None], i, 1)
        done = done | (token == stop)
        written = written + ~done
        ids = token + starts[i] + offsets[table_of[classes[i]]]
        at = length + i
        x = embed(c, params, ids[:, None])
        here = jnp.broadcast_to(at, (B, 1))
        mask = jnp.broadcast_to(jnp.arange(S) <= at, (B, 1, S))
        x, caches = _cached_body(c, params, x, here, mask, caches, at)
        return i + 1, x[:, 0], caches, out, done, written, follows

    loop = (
        jnp.int32(0),
        state,
        caches,
        jnp.zeros((B, S), jnp.int32),
        jnp.zeros(B, bool),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, jnp.int32),
    )
    _, _, _, out, _, written, _ = jax.lax.while_loop(more, write, loop)
    return out, written
