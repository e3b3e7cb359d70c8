"""The speech tokenizer: rate, streaming, spectrogram, loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InputError
from models.io import save_model
from models.layers.module import abstract, initialise
from models.layers.quantizers import RvqConfig, rvq_init, rvq_train
from models.tokenizers import load_tokenizer, speech

CONFIG = speech.SpeechConfig(
    patch=20,
    width=8,
    strides=(4, 8),
    multipliers=(1, 2),
    dilations=(1,),
    rvq=RvqConfig(levels=4, codes=64, channels=8, decay=0.9, dead_below=0.1),
    windows=(256, 1024),
)


def build(rngs):
    return speech.build(CONFIG, rngs)


def sound(samples: int) -> np.ndarray:
    t = np.arange(samples) / 16000
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) * (np.sin(9 * t) > 0)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("speech")
    params = initialise(build, jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (200, 8))
    books = rvq_train(CONFIG.rvq, rvq_init(CONFIG.rvq), z, jax.random.key(2))[2]
    save_model(directory, "speech", CONFIG, {"params": params, "code": books["code"]})
    made = load_tokenizer(directory)
    made.bucket = 16
    return made


def test_rate_and_arbitrary_lengths(tokenizer):
    for samples, steps in ((1, 1), (640, 1), (641, 2), (16000, 25), (20011, 32)):
        codes = tokenizer.encode(sound(samples))
        assert codes.shape == (4, steps) and codes.dtype == np.int32
    assert tokenizer.decode(codes).shape == (32 * 640,) and tokenizer.decode(codes).dtype == np.float32
    assert tokenizer.decode(codes[:2]).shape == (32 * 640,)
    assert tokenizer.codebook_sizes == (64,) * 4


def test_later_sound_changes_no_earlier_code(tokenizer):
    whole = tokenizer.encode(sound(16000))
    np.testing.assert_array_equal(tokenizer.encode(sound(16000)[: 640 * 9]), whole[:, :9])
    np.testing.assert_allclose(tokenizer.decode(whole[:, :9]), tokenizer.decode(whole)[: 9 * 640], atol=1e-5)


def test_wrong_input_is_named(tokenizer):
    with pytest.raises(InputError, match="int16"):
        tokenizer.encode(np.zeros(640, np.int16))
    with pytest.raises(InputError, match="640"):
        speech.SpeechConfig(patch=1, width=8, strides=(2, 4), multipliers=(1, 1), dilations=(1,), rvq=CONFIG.rvq)


def test_mel_spectrogram_finds_a_tone_in_its_band():
    t = np.arange(16000) / 16000
    mel = np.asarray(speech.mel_spectrogram(jnp.asarray(np.sin(2 * np.pi * 1000 * t), jnp.float32)[None], 1024, 64))[0]
    assert mel.shape == ((16000 - 1024) // 256 + 1, 64)
    filters = speech.mel_filters(1024, 64)
    assert mel.mean(0).argmax() == filters[64].argmax()  # bin 64 is 1000 Hz
    np.testing.assert_allclose(filters.sum(0)[10:], 1, atol=1e-3)


def test_spectral_loss_ranks_distortions():
    x = jnp.asarray(sound(16000))[None] + 0.001 * jax.random.normal(jax.random.key(0), (1, 16000))
    near = x + 0.001 * jax.random.normal(jax.random.key(1), x.shape)
    far = x[:, ::-1]
    distance = jax.jit(lambda y: speech.spectral_loss(x, y, (256, 1024), 64)[0])
    values = [float(distance(y)) for y in (x, near, far)]
    assert values[0] < 1e-3 < values[1] < values[2]


def test_loss_moves_codebooks_only_in_training():
    graph, _ = abstract(build)
    params, books = initialise(build, jax.random.key(0)), rvq_init(CONFIG.rvq)
    batch = {"audio": jnp.asarray(sound(6400)).reshape(1, -1)}
    key = jax.random.key(0)

    @functools.partial(jax.jit, static_argnames="train")
    def loss(books, train):
        return speech.loss(CONFIG, graph, params, books, batch, key, train=train)

    _, _, moved, (real, made) = loss(books, train=True)
    assert real.shape == made.shape == (1, 6400)
    assert int(moved["ready"]) == 1 and float(jnp.abs(moved["code"]).sum()) > 0
    _, _, kept, _ = loss(moved, train=False)
    np.testing.assert_array_equal(kept["code"], moved["code"])
