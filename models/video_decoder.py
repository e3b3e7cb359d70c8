"""The semantic-driven latent video diffusion model: labels, a reference image and text become a video (paper,
"Semantic-driven video diffusion"; the backbone is WALT).

A window of ``K`` latents of ``models.video_autoencoder`` is denoised at a time. Conditions:

* semantic video, embedded on the latent grid and concatenated with the noisy latents on the feature axis;
* the reference image's latent with its segmentation's embedding concatenated, as tokens of the spatial blocks'
  attention;
* text, as tokens of the same attention;
* the first latents of a window (frame prediction): ``concat(mask * z, mask)`` on the channels. Windows that begin with
  the latents that the one before ended with make a video of any length.

v-prediction (Salimans & Ho), v = alpha * eps - sigma * x0 for x_t = alpha * x0 + sigma * eps; WALT prints the
coefficients swapped.

Ours: ``anchor``. A talking head mostly looks like its reference image, moved. With a video r of the reference image
moved by geometry to each frame's labels (``models.semantic_warp``), latents are taken as normal around r's latents with
deviation ``anchor_deviation``, for which the best v is known in closed form; the network sees r and learns the rest. So
a model that trains for a minute begins at the moved reference image instead of at noise. The paper's size does without
(``anchor = False``).

Letters: B batch, K steps, h w latent grid, c latent channels, D width, L text tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from flax import nnx

from models.errors import InputError
from models.labels import COLORS
from models.layers.folding import fold_space, unfold_space
from models.layers.module import abstract
from models.layers.video_attention import MODULATIONS, BlockPair

KIND = "video_decoder"


@dataclass(frozen=True)
class VideoDecoderConfig:
    """Sizes and the conditions' shapes.

    Attributes:
        latent_channels, latent_size: of the autoencoder.
        window_steps: latents of a window, K (5 latents are 17 frames at the start of a clip).
        given_steps: at most so many first latents of a window are given.
        patch: latent cells per side of a token.
        width, heads, pairs, mlp_ratio: of the transformer; a pair is two blocks.
        spatial_window, time_window: sides of the windows in tokens.
        rank: of the per-block correction of the modulation.
        condition_size: side of the label maps in pixels.
        label_pool: colours of label maps are averaged over squares of this side before they are embedded.
        label_width: channels of a latent cell's label embedding.
        vocabulary, text_tokens, text_width: the text tokenizer's size, tokens kept, their embedding.
        self_condition: how often, in training, the model's own first estimate of x0 is given to it (0 leaves the input
            out).
        text_dropout, image_dropout: how often a condition is left out in training, for guidance.
        anchor, anchor_deviation: see the module's description.
        diffusion_steps, beta_start, beta_end: the noise schedule.
    """

    latent_channels: int = 8
    latent_size: int = 16
    window_steps: int = 5
    given_steps: int = 2
    patch: int = 2
    width: int = 96
    heads: int = 4
    pairs: int = 2
    mlp_ratio: int = 3
    spatial_window: int = 8
    time_window: int = 4
    rank: int = 4
    condition_size: int = 128
    label_pool: int = 2
    label_width: int = 48
    vocabulary: int = 512
    text_tokens: int = 64
    text_width: int = 64
    self_condition: float = 0.0
    text_dropout: float = 0.1
    image_dropout: float = 0.1
    anchor: bool = True
    anchor_deviation: float = 0.5
    diffusion_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self):
        grid = self.latent_size // self.patch
        if self.latent_size % self.patch or grid % self.spatial_window or grid % self.time_window:
            raise InputError(
                f"video decoder: windows {self.spatial_window} and {self.time_window} do not tile "
                f"a grid of {self.latent_size} / {self.patch}"
            )
        if self.condition_size % (self.latent_size * self.label_pool):
            raise InputError(
                f"video decoder: condition_size {self.condition_size} is not a multiple of "
                f"latent_size {self.latent_size} x label_pool {self.label_pool}"
            )
        if self.given_steps >= self.window_steps:
            raise InputError(
                f"video decoder: given_steps {self.given_steps} leave nothing of {self.window_steps} to make"
            )


# --- Noise schedule ---------------------------------------------------------------------------------------------------


def schedule(config: VideoDecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Returns (alpha, sigma), float32 (diffusion_steps,): linear betas, rescaled so that the last step is noise alone.

    The rescaling (Lin et al., "Common diffusion noise schedules and sample steps are flawed") shifts and stretches
    sqrt(alpha-bar) so that its first value stays and its last is zero. alpha^2 + sigma^2 = 1.
    """
    betas = jnp.linspace(config.beta_start, config.beta_end, config.diffusion_steps)
    alpha = jnp.sqrt(jnp.cumprod(1 - betas))
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return alpha, jnp.sqrt(1 - alpha**2)


def velocity(x0: jax.Array, noise: jax.Array, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
    """v = alpha * eps - sigma * x0."""
    return alpha * noise - sigma * x0


def from_velocity(x: jax.Array, v: jax.Array, alpha: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (x0, eps) of a noisy x and its v."""
    return alpha * x - sigma * v, sigma * x + alpha * v


# --- Network ----------------------------------------------------------------------------------------------------------


class LabelEmbedding(nnx.Module):
    """Labels on the step grid, uint8 (B, K, 4, S, S), -> (B, K, h, w, label_width).

    Labels enter as their colours (the semantic tokenizer's embedding); a latent cell sees its pixels of its step's four
    frames.
    """

    def __init__(self, config: VideoDecoderConfig, *, rngs: nnx.Rngs):
        self.pool = config.label_pool
        self.cell = config.condition_size // config.latent_size // self.pool
        self.first = nnx.Linear(self.cell**2 * 4 * 3, config.label_width, rngs=rngs)
        self.second = nnx.Linear(config.label_width, config.label_width, rngs=rngs)

    def __call__(self, labels: jax.Array) -> jax.Array:
        b, k, frames, s, _ = labels.shape
        colors = (jnp.asarray(COLORS, jnp.float32) / 127.5 - 1)[labels]  # (B, K, 4, S, S, 3)
        small = s // self.pool
        colors = colors.reshape(b, k, frames, small, self.pool, small, self.pool, 3).mean((4, 6))
        x = fold_space(jnp.moveaxis(colors, 2, -2).reshape(b, k, small, small, frames * 3), self.cell)
        return self.second(jax.nn.gelu(self.first(x)))


class VideoDecoder(nnx.Module):
    """Predicts v of a window."""

    def __init__(self, config: VideoDecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        c, d, p = config.latent_channels, config.width, config.patch
        grid = config.latent_size // p
        self.labels = LabelEmbedding(config, rngs=rngs)
        inputs = c + c + 1 + config.label_width  # noisy latents, given latents, their mask, labels
        inputs += c if config.self_condition else 0
        inputs += c if config.anchor else 0
        self.first = nnx.Linear(inputs * p * p, d, rngs=rngs)
        small = nnx.initializers.normal(0.02)
        self.place = nnx.Param(small(rngs.params(), (grid, grid, d)))
        self.step = nnx.Param(small(rngs.params(), (config.window_steps, 1, 1, d)))
        # Conditions: tokens for the spatial blocks, and a vector.
        self.image = nnx.Linear((c + config.label_width) * p * p, d, rngs=rngs)
        self.text_table = nnx.Param(small(rngs.params(), (config.vocabulary, config.text_width)))
        self.text_place = nnx.Param(small(rngs.params(), (config.text_tokens, config.text_width)))
        self.text = nnx.Linear(config.text_width, d, rngs=rngs)
        self.no_image = nnx.Param(small(rngs.params(), (d,)))
        self.no_text = nnx.Param(small(rngs.params(), (d,)))
        self.time1 = nnx.Linear(d, d, rngs=rngs)
        self.time2 = nnx.Linear(d, d, rngs=rngs)
        self.modulation = nnx.Linear(d, MODULATIONS * d, kernel_init=small, rngs=rngs)
        self.last_modulation = nnx.Linear(d, 2 * d, kernel_init=small, rngs=rngs)

        @nnx.vmap(in_axes=0)
        def pairs(key: jax.Array) -> BlockPair:
            return BlockPair(
                d,
                config.heads,
                mlp_ratio=config.mlp_ratio,
                rank=config.rank,
                condition_width=d,
                rngs=nnx.Rngs(key),
            )

        self.pairs = pairs(jax.random.split(rngs.params(), config.pairs))
        self.norm = nnx.LayerNorm(d, use_bias=False, use_scale=False, rngs=rngs)
        self.last = nnx.Linear(d, c * p * p, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)

    def __call__(self, x, t, conditions, estimate=None):
        """Returns the velocity (B, K, h, w, c); arguments as ``predict_velocity``."""
        config, c = self.config, conditions
        alphas, sigmas = schedule(config)
        alpha, sigma = alphas[t][:, None, None, None, None], sigmas[t][:, None, None, None, None]
        has_image = c["has_image"][:, None, None, None, None]

        labels = self.labels(c["labels"])  # (B, K, h, w, label_width)
        image_labels = self.labels(jnp.repeat(c["image_labels"][:, None, None], 4, axis=2))  # (B, 1, h, w, label_width)
        image = c["image"][:, None]  # (B, 1, h, w, c)

        features = [x, c["given"], c["given_mask"], labels]
        if config.self_condition:
            features.append(jnp.zeros_like(x) if estimate is None else estimate)
        if config.anchor:
            center = jnp.where(has_image, c["anchor"], 0.0)
            variance = jnp.where(has_image, config.anchor_deviation**2, 1.0)
            total = alpha**2 * variance + sigma**2  # variance of x at this noise level
            features[0] = (x - alpha * center) * jax.lax.rsqrt(total)
            features[1] = (c["given"] - center) * c["given_mask"]
            features.append(center)
        h = fold_space(jnp.concatenate(features, axis=-1), config.patch)
        h = self.first(h) + self.place[...] + self.step[...]  # (B, K, h/p, w/p, D)

        tokens, mask, pooled = self._condition_tokens(c, image, image_labels)
        vector = self.time2(jax.nn.silu(self.time1(_sinusoids(t, config.width)))) + pooled
        vector = jax.nn.silu(vector)  # (B, D)
        h = self._blocks(h, vector, tokens, mask)
        shift, scale = jnp.split(self.last_modulation(vector)[:, None, None, None, :], 2, axis=-1)
        h = self.last(self.norm(h) * (1 + scale) + shift)
        v = unfold_space(h, config.patch)  # (B, K, h, w, c)
        if config.anchor:
            # The best v for x0 ~ N(center, variance): mean of eps and of x0 given x, and the deviation of what is left.
            error = (x - alpha * center) / total
            best = alpha * sigma * error - sigma * (center + alpha * variance * error)
            v = best + v * jnp.sqrt(variance / total)
        return v

    def _condition_tokens(self, c, image, image_labels):
        """Returns (tokens (B, S, D), mask (B, S), their pooled sum (B, D))."""
        config = self.config
        cells = fold_space(jnp.concatenate([image, image_labels], axis=-1), config.patch)
        seen = (self.image(cells) + self.place[...]).reshape(cells.shape[0], -1, config.width)
        seen = jnp.where(c["has_image"][:, None, None], seen, self.no_image[...])
        text_mask = c["text_mask"].at[:, 0].set(True)  # a text that is left out keeps one token: "no text"
        text = self.text(self.text_table[...][c["text"]] + self.text_place[...])  # (B, L, D)
        text = jnp.where(c["text_mask"].any(1)[:, None, None], text, self.no_text[...])
        tokens = jnp.concatenate([seen, text], axis=1)
        mask = jnp.concatenate([jnp.ones(seen.shape[:2], bool), text_mask], axis=1)
        weight = text_mask[..., None] / text_mask.sum(1)[:, None, None]
        return tokens, mask, seen.mean(1) + (text * weight).sum(1)

    def _blocks(self, h, vector, tokens, mask):
        config = self.config
        graph, stacked = nnx.split(self.pairs)
        modulation = self.modulation(vector)

        def pair(h, params):
            blocks = nnx.merge(graph, params)
            h = blocks.spatial(
                h, vector, modulation, side=config.spatial_window, steps=1, condition=tokens, condition_mask=mask
            )
            return blocks.spatiotemporal(h, vector, modulation, side=config.time_window, steps=h.shape[1]), None

        return jax.lax.scan(pair, h, stacked)[0]


def _sinusoids(t: jax.Array, width: int) -> jax.Array:
    """(B,) -> (B, width): sines and cosines of the time step at periods up to 10,000."""
    rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angles = t[:, None].astype(jnp.float32) * rates
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@lru_cache(maxsize=8)
def _graph(config: VideoDecoderConfig):
    return abstract(lambda rngs: VideoDecoder(config, rngs=rngs))[0]


def init(config: VideoDecoderConfig, key: jax.Array) -> dict:
    """Returns fresh parameters, nested dicts of arrays."""
    return nnx.to_pure_dict(nnx.split(VideoDecoder(config, rngs=nnx.Rngs(key)))[1])


def predict_velocity(
    config: VideoDecoderConfig,
    params: dict,
    x: jax.Array,
    t: jax.Array,
    conditions: dict[str, jax.Array],
    estimate: jax.Array | None = None,
) -> jax.Array:
    """Returns v, float32 (B, K, h, w, c).

    Args:
        config, params: the model.
        x: noisy latents (B, K, h, w, c).
        t: int32 (B,), 0 .. diffusion_steps - 1.
        conditions: ``labels`` uint8 (B, K, 4, S, S), ``image`` (B, h, w, c) the reference's latent, ``anchor`` (B, K,
            h, w, c) the moved reference's latents (if the config has ``anchor``), ``image_labels`` uint8 (B, S, S),
            ``has_image`` bool (B,), ``text`` int32 (B, L), ``text_mask`` bool (B, L) (all False: no text), ``given``
            (B, K, h, w, c) and ``given_mask`` float (B, K, 1, 1, 1) broadcast to (B, K, h, w, 1).
        estimate: an earlier estimate of x0 (self-conditioning).
    """
    conditions = dict(conditions)
    conditions["given_mask"] = jnp.broadcast_to(conditions["given_mask"], (*x.shape[:-1], 1))
    conditions["given"] = conditions["given"] * conditions["given_mask"]
    return nnx.merge(_graph(config), params)(x, t, conditions, estimate)


# --- Training ---------------------------------------------------------------------------------------------------------


def training_loss(
    config: VideoDecoderConfig, params: dict, batch: dict[str, jax.Array], key: jax.Array, *, drop: bool = True
) -> jax.Array:
    """L2 on v over the latents that are not given (with an anchor, in units of the deviation that v then has).

    Args:
        config, params: the model.
        batch: ``latents`` (B, K, h, w, c), ``labels``, ``image``, ``anchor``, ``image_labels``, ``text``, ``text_mask``
            as in ``predict_velocity``, ``steps`` int32 (B,) how many of the K latents exist, ``first`` bool (B,)
            whether the window is a clip's first.
        key: of the noise, the time steps, how many latents are given, and what is left out.
        drop: whether conditions are left out at times.
    """
    x0 = batch["latents"]
    b, k = x0.shape[:2]
    keys = jax.random.split(key, 6)
    alphas, sigmas = schedule(config)
    # Time steps of a batch are spread evenly, which lowers the loss's variance.
    t = (jax.random.uniform(keys[0]) + jnp.arange(b) / b) % 1.0
    t = jax.random.permutation(keys[5], (t * config.diffusion_steps).astype(jnp.int32))
    noise = jax.random.normal(keys[1], x0.shape)
    alpha, sigma = alphas[t][:, None, None, None, None], sigmas[t][:, None, None, None, None]
    # Windows after a clip's first are always made with given latents; a clip's first without, at times with.
    fewest = jnp.where(batch["first"], 0, 1)
    given = jax.random.randint(keys[2], (b,), fewest, config.given_steps + 1)
    given = jnp.minimum(given, batch["steps"] - 1)
    order = jnp.arange(k)[None]
    given_mask = (order < given[:, None]).astype(x0.dtype)[..., None, None, None]  # (B, K, 1, 1, 1)
    counted = ((order >= given[:, None]) & (order < batch["steps"][:, None]))[..., None, None, None]
    keep_text = jax.random.uniform(keys[3], (b,)) >= (config.text_dropout if drop else 0.0)
    keep_image = jax.random.uniform(keys[4], (b,)) >= (config.image_dropout if drop else 0.0)
    conditions = {
        **{name: batch[name] for name in ("labels", "image", "image_labels", "text")},
        **({"anchor": batch["anchor"]} if config.anchor else {}),
        "has_image": keep_image,
        "text_mask": batch["text_mask"] & keep_text[:, None],
        "given": x0,
        "given_mask": given_mask,
    }
    x = alpha * x0 + sigma * noise
    estimate = None
    if config.self_condition:
        v = predict_velocity(config, params, x, t, conditions)
        estimate = jax.lax.stop_gradient(from_velocity(x, v, alpha, sigma)[0])
        use = jax.random.uniform(jax.random.fold_in(key, 6), (b,)) < config.self_condition
        estimate = estimate * use[:, None, None, None, None]
    v = predict_velocity(config, params, x, t, conditions, estimate)
    error = jnp.square(v - velocity(x0, noise, alpha, sigma)) * counted
    if config.anchor:
        # In units of what the anchor leaves to the network (else steps of little noise, where nothing more can be
        # known, would outweigh those of much noise, which decide what the face does).
        variance = jnp.where(keep_image, config.anchor_deviation**2, 1.0)[:, None, None, None, None]
        error = error * (alpha**2 * variance + sigma**2) / variance
    return error.sum() / (counted.sum() * x0[0, 0].size)


# --- Sampling ---------------------------------------------------------------------------------------------------------


def ddim_times(config: VideoDecoderConfig, steps: int) -> jax.Array:
    """Returns int32 (steps,), falling from the last time step (pure noise): evenly spaced, "trailing"."""
    return jnp.round(jnp.linspace(config.diffusion_steps, 0, steps + 1)[:-1]).astype(jnp.int32) - 1


def ddim(config: VideoDecoderConfig, predict, noise: jax.Array, steps: int) -> jax.Array:
    """Deterministic DDIM from noise to x0.

    Args:
        config: gives the schedule.
        predict: (x, t int32 scalar, estimate of x0) -> v.
        noise: the start.
        steps: how many.
    """
    alphas, sigmas = schedule(config)
    times = ddim_times(config, steps)
    after = jnp.concatenate([times[1:], jnp.array([-1])])

    def step(carry, pair):
        x, estimate = carry
        t, following = pair
        x0, eps = from_velocity(x, predict(x, t, estimate), alphas[t], sigmas[t])
        alpha = jnp.where(following < 0, 1.0, alphas[following])
        sigma = jnp.where(following < 0, 0.0, sigmas[following])
        return (alpha * x0 + sigma * eps, x0), None

    (x, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), (times, after))
    return x


def sample_window(
    config: VideoDecoderConfig,
    params: dict,
    conditions: dict[str, jax.Array],
    key: jax.Array,
    *,
    steps: int,
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> jax.Array:
    """Makes one window of latents (B, K, h, w, c); the given ones come back as they are.

    Args:
        config, params: the model.
        conditions: as ``predict_velocity``.
        key: of the noise.
        steps: DDIM steps.
        temperature: deviation of the first noise; below 1 samples stay near what the conditions make most likely.
        guidance: 1 for none; v = v0 + guidance * (v1 - v0) with v0 without text and image (the labels and given latents
            stay).
    """
    b = conditions["labels"].shape[0]
    shape = (b, config.window_steps, config.latent_size, config.latent_size, config.latent_channels)
    dropped = {
        **conditions,
        "has_image": jnp.zeros_like(conditions["has_image"]),
        "text_mask": jnp.zeros_like(conditions["text_mask"]),
    }

    def predict(x, t, estimate):
        t = jnp.full((b,), t)
        v = predict_velocity(config, params, x, t, conditions, estimate)
        if guidance == 1.0:
            return v
        base = predict_velocity(config, params, x, t, dropped, estimate)
        return base + guidance * (v - base)

    x = ddim(config, predict, temperature * jax.random.normal(key, shape), steps)
    mask = conditions["given_mask"]
    return jnp.where(mask > 0, conditions["given"], x)
