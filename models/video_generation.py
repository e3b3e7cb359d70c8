"""A trained video decoder at work: semantic video, a reference image and text become frames, window after window.

On disk a decoder is a directory with two models, ``autoencoder`` and ``diffusion``; the second says which autoencoder
and which text tokenizer it was trained with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from models import video_decoder
from models.errors import InputError
from models.io import dataclass_from_dict, fill, load_model
from models.semantic_warp import warp
from models.signals import TIME_STRIDE, grid_frames, latent_steps
from models.video_autoencoder import TrainedAutoencoder, load_autoencoder
from models.video_decoder import VideoDecoderConfig


@dataclass(frozen=True)
class Sampling:
    """How windows are sampled.

    Attributes:
        steps: DDIM steps.
        guidance: weight of classifier-free guidance; 1 is none.
        temperature: deviation of the first noise. Below 1 a sample stays near what the conditions make most likely:
            less varied, and cleaner with a small model.
    """

    steps: int = 50
    guidance: float = 1.0
    temperature: float = 1.0


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, N, 3) -> (size, size, 3): areas averaged when shrinking, bicubic when growing."""
    from PIL import Image

    if image.shape[0] == size:
        return image
    kind = Image.Resampling.BOX if size < image.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size, size), kind))


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (..., S, S) -> (..., size, size), nearest."""
    if labels.shape[-1] == size:
        return labels
    at = ((np.arange(size) + 0.5) * labels.shape[-1] / size).astype(np.int64)
    return np.ascontiguousarray(labels[..., at[:, None], at[None]])


def label_steps(labels: np.ndarray) -> np.ndarray:
    """Groups frames into steps, (T = 4k + 1, S, S) -> (k + 1, 4, S, S); the first step holds frame 0 four times."""
    labels = np.concatenate([np.repeat(labels[:1], TIME_STRIDE - 1, axis=0), labels])
    return labels.reshape(-1, TIME_STRIDE, *labels.shape[1:])


def text_condition(ids: np.ndarray | None, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts or pads text ids: returns int32 (length,) and bool (length,); None is no text."""
    ids = np.zeros(0, np.int32) if ids is None else np.asarray(ids, np.int32)[:length]
    padded = np.zeros(length, np.int32)
    padded[: len(ids)] = ids
    return padded, np.arange(length) < len(ids)


@partial(jax.jit, static_argnums=(0, 4))
def _window(
    config: VideoDecoderConfig, params: dict, conditions: dict, key: jax.Array, sampling: Sampling
) -> jax.Array:
    return video_decoder.sample_window(
        config,
        params,
        conditions,
        key,
        steps=sampling.steps,
        guidance=sampling.guidance,
        temperature=sampling.temperature,
    )


@dataclass(frozen=True)
class TrainedDecoder:
    """A loaded decoder.

    Attributes:
        config, params: the diffusion model.
        autoencoder: its latents.
        sampling: the preset's.
        weights_sha256: of the diffusion model.
        text_sha256: of the text tokenizer that it was trained with.
    """

    config: VideoDecoderConfig
    params: dict
    autoencoder: TrainedAutoencoder
    sampling: Sampling
    weights_sha256: str
    text_sha256: str

    @property
    def resolution(self) -> int:
        """Side of the frames it makes."""
        return self.autoencoder.config.resolution

    def generate(
        self,
        labels: np.ndarray,
        image: np.ndarray,
        image_labels: np.ndarray,
        text: np.ndarray | None = None,
        *,
        seed: int = 0,
        given_steps: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Makes a video.

        Args:
            labels: semantic video, uint8 (T = 4k + 1, S, S), any S.
            image: reference image, uint8 (N, N, 3), any N.
            image_labels: its segmentation, uint8 (S, S).
            text: ids of the description; None for no text.
            seed: of the noise.
            given_steps: latents that a window shares with the one before.
            progress: called with (latents made, latents in all).

        Returns:
            uint8 (T, resolution, resolution, 3).

        Raises:
            InputError: the shapes do not fit.
        """
        config = self.config
        frames = len(labels)
        if labels.ndim != 3 or frames < 1 or frames != grid_frames(frames):
            raise InputError(f"video decoder: semantic video of shape {labels.shape}, expected (4k+1, S, S)")
        if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"video decoder: image {image.dtype}{image.shape}, expected uint8 (N, N, 3)")
        if not 1 <= given_steps <= config.given_steps:
            raise InputError(f"video decoder: given_steps {given_steps}, expected 1 to {config.given_steps}")
        labels = resize_labels(labels, config.condition_size)
        image_labels = resize_labels(image_labels, config.condition_size)
        image = resize_image(image, self.resolution)
        fixed = {
            "image": self.autoencoder.encode(image[None])[0],
            "image_labels": image_labels,
            "has_image": np.bool_(True),
        }
        fixed["text"], fixed["text_mask"] = text_condition(text, config.text_tokens)
        moving = {"labels": label_steps(labels)}
        if config.anchor:
            moving["anchor"] = self.autoencoder.encode(warp(image, image_labels, labels))
        latents = self._latents(latent_steps(frames), fixed, moving, seed, given_steps, progress)
        return self.autoencoder.decode(latents)

    def _latents(self, total, fixed, moving, seed, given_steps, progress):
        config = self.config
        shape = (config.window_steps, config.latent_size, config.latent_size, config.latent_channels)
        latents = np.zeros((0, *shape[1:]), np.float32)
        root = jax.random.key(seed)
        while len(latents) < total:
            given = min(given_steps, len(latents))
            start = len(latents) - given
            real = min(config.window_steps, total - start)
            conditions = dict(fixed)
            for name, value in moving.items():
                piece = value[start : start + real]
                conditions[name] = np.concatenate([piece, np.repeat(piece[-1:], config.window_steps - real, axis=0)])
            conditions["given"] = np.zeros(shape, np.float32)
            conditions["given"][:given] = latents[start:]
            conditions["given_mask"] = (np.arange(shape[0]) < given).astype(np.float32)[:, None, None, None]
            batch = {name: jnp.asarray(value)[None] for name, value in conditions.items()}
            made = _window(config, self.params, batch, jax.random.fold_in(root, start), self.sampling)
            latents = np.concatenate([latents, np.asarray(made)[0, given:real]])
            if progress is not None:
                progress(len(latents), total)
        return latents


def load_decoder(directory: Path | str) -> TrainedDecoder:
    """Reads a trained decoder's directory.

    Raises:
        InputError: one of its two models is missing or broken, or they do not belong together.
    """
    directory = Path(directory)
    autoencoder = load_autoencoder(directory / "autoencoder")
    kind, config, params, meta = load_model(directory / "diffusion")
    if kind != video_decoder.KIND:
        raise InputError(f"{directory}/diffusion: a model of kind {kind!r}, expected {video_decoder.KIND!r}")
    if meta.extra["autoencoder_sha256"] != autoencoder.weights_sha256:
        raise InputError(
            f"{directory}/diffusion: trained with the autoencoder {meta.extra['autoencoder_sha256']}, "
            f"{directory}/autoencoder is {autoencoder.weights_sha256}"
        )
    config = dataclass_from_dict(VideoDecoderConfig, config)
    template = jax.eval_shape(lambda key: video_decoder.init(config, key), jax.random.key(0))
    return TrainedDecoder(
        config=config,
        params=jax.tree.map(jnp.asarray, fill(template, params, directory / "diffusion")),
        autoencoder=autoencoder,
        sampling=dataclass_from_dict(Sampling, meta.extra["sampling"]),
        weights_sha256=meta.weights_sha256,
        text_sha256=meta.extra["text_sha256"],
    )
