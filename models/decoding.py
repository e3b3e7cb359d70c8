"""Sampling from the prefix language model: the prefix is read once, every later token attends to a cache.

At every position only the ids of one range can be drawn. Rows of a batch are requests of one form: prefixes of their
own lengths, the same ranges in the same order.

Alphabet: as in language_model.py; K positions of the cache.
"""

import functools

import jax
import jax.numpy as jnp

from models.language_model import LanguageModelConfig, Layers, Params, bind
from models.layers.attention import attend


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


def most_likely(logits: jax.Array, top_k: jax.Array) -> jax.Array:
    """Returns the logits with all but the ``top_k`` largest at -inf; 0 keeps all. By bisection, as ``nucleus``.

    Logits that lie within a billionth of the range of all of them count as equal, and equal ones stay together.

    Args:
        logits: float32 (B, V); some may be -inf.
        top_k: int32 scalar.
    """
    finite = jnp.isfinite(logits)
    high = jnp.max(logits, axis=-1, keepdims=True)
    low = jnp.min(jnp.where(finite, logits, high), axis=-1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket  # at least top_k logits are at or above low
        middle = (low + high) / 2
        enough = jnp.sum(logits >= middle, axis=-1, keepdims=True) >= top_k
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, jnp.where(top_k > 0, 30, 0), halve, (low, high))
    return jnp.where((logits >= low) | (top_k <= 0), logits, -jnp.inf)


def draw(key: jax.Array, logits: jax.Array, block: int = 512) -> jax.Array:
    """Draws an id by one uniform number: where it falls in the running sum of the probabilities.

    A random number for every id, as the Gumbel trick of ``jax.random.categorical`` wants, costs more than the model's
    own output. The sum runs over blocks first and then within the one that is hit.

    Args:
        logits: float32 (V,); ids at -inf are never drawn.

    Returns:
        int32 ().
    """
    p = jnp.exp(logits - jnp.max(logits))
    p = jnp.pad(p, (0, -p.size % block)).reshape(-1, block)

    def place(weights, at):
        """Index of the first running sum above ``at``, and the sum before it; rounding never goes past the last."""
        sums = jnp.cumsum(weights)
        at = jnp.minimum(at, jnp.nextafter(sums[-1], jnp.float32(0)))
        index = jnp.sum(sums <= at)
        return index, at - jnp.where(index > 0, sums[index - 1], 0)

    totals = jnp.sum(p, axis=-1)
    which, rest = place(totals, jax.random.uniform(key) * jnp.sum(totals))
    return (which * block + place(p[which], rest)[0]).astype(jnp.int32)


def guide(logits: jax.Array, guidance: jax.Array) -> jax.Array:
    """(2 B, V), rows with conditions before the same rows without -> guided log-probabilities (B, V)."""
    given, free = jnp.split(jax.nn.log_softmax(logits, axis=-1), 2)
    return free + guidance * (given - free)


def _cached_body(model, x, mask, caches, rows, at, clock):
    """The body over new positions, their keys and values put into the caches (L, B, K, M, H) at (rows, at)."""
    now = None if clock is None else clock[rows, at]

    def layer(w: Layers, carry, index):
        x, caches = carry
        q, *new = w.project(x, at, now)
        caches = tuple(cache.at[index, rows, at].set(one) for cache, one in zip(caches, new, strict=True))
        key, value = (jax.lax.dynamic_index_in_dim(cache, index, keepdims=False) for cache in caches)
        return w.finish(x, attend(q, key, value, mask)), caches

    x, caches = model.scan(layer, (x, caches), jnp.arange(model.config.layers, dtype=jnp.int32))
    return model.norm(x), caches


@functools.partial(jax.jit, static_argnames=("config", "guided"))
def decode(
    config: LanguageModelConfig,
    params: Params,
    prefix: jax.Array,
    lengths: jax.Array,
    classes: jax.Array,
    starts: jax.Array,
    count: jax.Array,
    stop: jax.Array,
    keys: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    guidance: jax.Array,
    grammar: jax.Array | None = None,
    clock: jax.Array | None = None,
    guided: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Writes tokens after prefixes, each from the one range that its position allows.

    One compiled program serves every prompt and every output length.

    Args:
        prefix: int32 (B, K) ids, padded to the context K. Guided: (2 B, K), the same requests again without their
            conditions after all of them.
        lengths: int32 (B,) or (2 B,), tokens of each prefix.
        classes: int32 (K,), class of each output position (``LanguageModelConfig.head_range``).
        starts: int32 (K,), first row of its range in its table.
        count: int32 (), how many tokens to write at most; lengths + count <= K.
        stop: int32 (), an id relative to its range at which a row ends; -1 for none.
        keys: (B,) sampling keys: what a row draws does not depend on the others.
        temperature, top_k, top_p, guidance: as in ``models.sampling.Sampling``.
        grammar: int32 (states, text), for text: the state that each piece leads to, from state 0; below 0 it cannot
            be drawn.
        clock: int32 (B, K) or (2 B, K), ticks of the prefix and, after it, of what is written; for a model with a
            clock.
        guided: use guidance.

    Returns:
        (int32 (B, K) tokens relative to their ranges, the first ``count`` are meant; int32 (B,) tokens written before
        stop).
    """
    c = config
    model = bind(c, params)
    rows, K = prefix.shape
    B = keys.shape[0]
    row = jnp.arange(rows)[:, None]
    if c.clock != (clock is not None):
        raise ValueError(f"clock={c.clock} in the model, {clock is not None} in the rows")
    caches = (jnp.zeros((c.layers, rows, K, c.kv_heads, c.head_width), c.dtype),) * 2
    positions = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32), (rows, K))
    seen = jnp.broadcast_to(positions[:, None, :] < lengths[:, None, None], (rows, K, K))
    x, caches = _cached_body(model, model.embed(prefix), seen, caches, row, positions, clock)
    state = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]  # (rows, D)
    offsets = jnp.cumsum(jnp.array([0, *c.tables.values()]))[:-1]
    table_of = jnp.array([list(c.tables).index(name) for name, _ in c.classes])

    def pick(index):
        name, size = c.classes[index]

        def branch(state, start, keys, follows):
            ids = jax.lax.dynamic_slice_in_dim(params["embedding"][name], start, size).astype(state.dtype)
            x = model.head_input(name, state)
            logits = jnp.einsum("BD,VD->BV", x, ids, preferred_element_type=jnp.float32)
            if guided:
                logits = guide(logits, guidance)
            if name == "text" and grammar is not None:
                logits = jnp.where(grammar[follows] >= 0, logits, -jnp.inf)
            kept = nucleus(most_likely(logits / jnp.maximum(temperature, 1e-6), top_k), top_p)
            return jnp.where(temperature > 0, jax.vmap(draw)(keys, kept), jnp.argmax(logits, axis=-1).astype(jnp.int32))

        return branch

    branches = [pick(i) for i in range(len(c.classes))]

    def more(loop):
        i, _, _, _, done, _, _ = loop
        return (i < count) & ~jnp.all(done)

    def write(loop):
        i, state, caches, out, done, written, follows = loop
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        token = jax.lax.switch(classes[i], branches, state, starts[i], now, follows)  # (B,)
        if grammar is not None:
            follows = grammar[follows, token]
        out = jax.lax.dynamic_update_slice_in_dim(out, token[:, None], i, 1)
        done = done | (token == stop)
        written = written + ~done
        ids = token + starts[i] + offsets[table_of[classes[i]]]
        x = model.embed(jnp.tile(ids, rows // B)[:, None])
        at = (lengths + i)[:, None]
        mask = positions[:, None, :] <= at[:, None]
        x, caches = _cached_body(model, x, mask, caches, row, at, clock)
        return i + 1, x[:, 0], caches, out, done, written, follows

    nothing = jnp.zeros(B, jnp.int32)
    loop = (jnp.int32(0), state, caches, jnp.zeros((B, K), jnp.int32), jnp.zeros(B, bool), nothing, nothing)
    _, _, _, out, _, written, _ = jax.lax.while_loop(more, write, loop)
    return out, written
