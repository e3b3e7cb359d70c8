"""Any modality from any other: one chain of single steps, sampled under a grammar.

Each step is a prompt with everything known so far. A clip longer than a window is made window by window, each with the
past of what is being made. At every position only the ids of the one level that must come there can be drawn, and the
number of positions follows from the number of frames: every sample decodes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import InputError
from models.io import dataclass_from_dict, fill, load_model
from models.language_model import LanguageModelConfig, Sampling, decode, init_params
from models.signals import TIME_STRIDE, grid_frames, latent_steps
from tasks.grammar import Form, grammar_table
from tasks.modalities import MODALITIES, STREAMS, Vocabulary, spans, unflatten
from tasks.prompts import TextCodec, serialise, to_ids, unescape
from tasks.registry import Source
from tasks.windows import Content, Window, WindowConfig, slide, starts, step_prompt, window_at

TOKENIZER_OF = {stream: stream for stream in STREAMS} | {"semantics": "semantic"}
MAX_TEXT = 512  # ids of a generated text; the room that a prompt leaves may be less


@dataclass(frozen=True)
class Language:
    """A trained language model with what it takes to talk to it.

    Attributes:
        config, params: the network.
        vocabulary: the ranges it was trained with.
        text: the text tokenizer.
        window: the windows it was trained on.
        length: its context, in ids.
    """

    config: LanguageModelConfig
    params: Any
    vocabulary: Vocabulary
    text: TextCodec
    window: WindowConfig
    length: int


@dataclass(frozen=True)
class TokenSpace:
    """What trained tokenizers come to; ``weights`` is tokenizer name -> sha256."""

    vocabulary: Vocabulary
    text: TextCodec
    weights: dict[str, str]


def read_token_space(tokenizers: Path | str) -> TokenSpace:
    """Computes the vocabulary of the trained tokenizers in a directory."""
    from models.tokenizers import load_tokenizer

    loaded = {stream: load_tokenizer(Path(tokenizers) / name) for stream, name in TOKENIZER_OF.items()}
    codebooks = {stream: tokenizer.codebook_sizes for stream, tokenizer in loaded.items()}
    return TokenSpace(
        vocabulary=Vocabulary.of_codebooks(codebooks, loaded["text"].eos_id),
        text=loaded["text"],
        weights={TOKENIZER_OF[stream]: tokenizer.weights_sha256 for stream, tokenizer in loaded.items()},
    )


def load_language(model: Path | str, tokenizers: Path | str) -> Language:
    """Loads a trained language model for use with the given tokenizers.

    Raises:
        InputError: no language model there, or tokenizers that are not those it was trained with: other ranges, or the
            same ranges with another meaning.
    """
    kind, config, params, meta = load_model(model)
    if kind != "language":
        raise InputError(f"{model}/model.json: kind {kind!r}, expected 'language'")
    for field in ("vocabulary", "tokenizers", "window", "length"):
        if field not in meta.extra:
            raise InputError(f"{model}/model.json: no field extra.{field}; train the language model again")
    config = dataclass_from_dict(LanguageModelConfig, config)
    vocabulary = Vocabulary.from_json(meta.extra["vocabulary"])
    found = read_token_space(tokenizers)
    if found.vocabulary != vocabulary:
        raise InputError(
            f"{model}: trained with the ranges ({vocabulary.show()}), but the tokenizers in {tokenizers} have "
            f"({found.vocabulary.show()}); expected the tokenizers it was trained with"
        )
    check_weights(meta.extra["tokenizers"], found.weights, f"{model}: trained with", f"{tokenizers} has")
    template = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return Language(
        config=config,
        params=jax.tree.map(jnp.asarray, fill(template, params, model)),
        vocabulary=vocabulary,
        text=found.text,
        window=dataclass_from_dict(WindowConfig, meta.extra["window"]),
        length=meta.extra["length"],
    )


def check_weights(trained: Mapping[str, str], found: Mapping[str, str], one: str, other: str) -> None:
    """Raises InputError, naming both, where two sets of tokenizers differ: their ids would not mean the same."""
    for name in found:
        if trained.get(name) != found[name]:
            raise InputError(f"{one} {name} tokenizer {trained.get(name)}, but {other} {found[name]}")


# --- One step ---------------------------------------------------------------------------------------------------------


def sample_window(
    language: Language,
    known: Mapping[str, Content],
    want: str,
    window: Window,
    key: jax.Array,
    sampling: Sampling,
    form: Form | None = None,
) -> tuple[Content, int]:
    """Makes one modality on one window; a text that has a ``form`` follows it.

    Returns:
        (codes of the window, or the text; ids that were drawn).

    Raises:
        InputError: prompt and output are longer than the context.
    """
    vocabulary = language.vocabulary
    inputs = tuple(Source(name) for name in known if name != want)
    prompt = step_prompt(inputs, want, known, window, language.window, target=False)
    prefix = to_ids(serialise(prompt)[0], vocabulary, language.text)
    room = language.length - prefix.size
    is_text = MODALITIES[want].is_text
    if is_text:
        ranges = [vocabulary.stream_ranges("text")[0]] * max(0, min(MAX_TEXT, room))
    else:
        first, last = MODALITIES[want].step_range(window.start, window.stop)
        ranges = [span.range for span in spans(vocabulary, want, last - first) for _ in range(span.count)]
    if not ranges or len(ranges) > room:
        raise InputError(
            f"{want} from {', '.join(known)}: a prompt of {prefix.size} tokens and an output of {len(ranges)} do not "
            f"fit into the model's context of {language.length}; give fewer modalities or less text"
        )
    heads = np.zeros((2, language.length), np.int32)
    heads[:, : len(ranges)] = np.array([language.config.head_range(r.start, r.size) for r in ranges]).T
    padded = np.zeros((1, language.length), np.int32)
    padded[0, : prefix.size] = prefix
    out, written = decode(
        language.config,
        language.params,
        padded,
        np.int32(prefix.size),
        heads[0],
        heads[1],
        np.int32(len(ranges)),
        np.int32(vocabulary.eos if is_text else -1),
        key,
        np.float32(sampling.temperature),
        np.float32(sampling.top_p),
        None if form is None else grammar_table(form, language.text.pieces(), vocabulary.eos),
    )
    count = int(written[0])
    drawn = np.asarray(out[0, :count])
    if is_text:
        return unescape(language.text.decode(drawn)), count
    return unflatten(vocabulary, want, drawn + np.array([r.start for r in ranges], np.int32)), count


def generate(
    language: Language,
    known: Mapping[str, Content],
    want: str,
    frames: int,
    *,
    seed: int = 0,
    sampling: Sampling | None = None,
    form: Form | None = None,
) -> tuple[Content, int]:
    """Makes one modality for a clip.

    Args:
        language: the model.
        known: codes or text of what is given, for the whole clip. Codes of ``want`` itself, shorter than the clip, are
            continued.
        want: what to make; not "video", which is the decoder's.
        frames: T = 4k + 1 video frames.
        seed: of the sampling.
        sampling: temperature and top_p.
        form: what a text may say (``tasks.grammar``); None is anything.

    Returns:
        (codes as in token records, or text; ids that were drawn).

    Raises:
        InputError: what is given does not fit the clip or the context.
    """
    sampling = sampling or Sampling()
    m = _check(known, want, frames)
    steps = latent_steps(frames)
    key = jax.random.fold_in(jax.random.key(seed), list(MODALITIES).index(want))
    if not m.has_clock:
        window = Window(0, steps) if want == "script" else window_at(0, steps, language.window)
        return sample_window(language, known, want, window, key, sampling, form if m.is_text else None)
    parts, total = [], 0
    windows = slide(steps, language.window)
    if want in known:
        begin = _continue_at(m, known[want], steps)
        parts = [m.take(known[want], 0, begin)]
        windows = slide(steps, language.window, begin)
    for window in windows:
        sofar = {want: np.concatenate(parts, axis=m.time_axis)} if parts else {}
        codes, count = sample_window(
            language, {**known, **sofar}, want, window, jax.random.fold_in(key, window.start), sampling
        )
        parts.append(codes)
        total += count
    return np.concatenate(parts, axis=m.time_axis), total


def run_chain(
    model: Path | str,
    tokenizers: Path | str,
    given: Mapping[str, Content],
    chain: Sequence[str],
    frames: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 0.95,
    forms: Mapping[str, Form] | None = None,
    progress: Callable[[str, int, float], None] | None = None,
) -> dict[str, Content]:
    """Makes every link of a chain, each from what is given and the links before it.

    Args:
        model: the language model's directory.
        tokenizers: the directory of the tokenizers' directories.
        given: modality -> codes as in token records, or text.
        chain: modalities to make in order (``chains.parse_chain``); "video" is left to the decoder.
        frames: T = 4k + 1 video frames of the clip.
        seed, temperature, top_p: of the sampling.
        forms: modality -> what its text may say; without one it may say anything.
        progress: called with (modality, ids drawn, seconds) after each link.

    Returns:
        Modality -> codes or text, in the order of the chain, without what was given.
    """
    language = load_language(model, tokenizers)
    known = dict(given)
    made: dict[str, Content] = {}
    for want in chain:
        if want == "video":
            continue
        begin = time.monotonic()
        form = (forms or {}).get(want)
        content, count = generate(
            language, known, want, frames, seed=seed, sampling=Sampling(temperature, top_p), form=form
        )
        known[want] = made[want] = content
        if progress is not None:
            progress(want, count, time.monotonic() - begin)
    return made


def _check(known: Mapping[str, Content], want: str, frames: int):
    if want not in MODALITIES or not MODALITIES[want].stream:
        raise InputError(f"--want {want}: the language model does not make it")
    if frames < 1 or frames != grid_frames(frames):
        raise InputError(f"frames={frames}: expected {TIME_STRIDE}k + 1")
    for name, content in known.items():
        if name not in MODALITIES or not MODALITIES[name].stream:
            raise InputError(f"--given {name}: not a modality with tokens")
        m = MODALITIES[name]
        if m.is_text != isinstance(content, str):
            raise InputError(f"--given {name}: expected {'text' if m.is_text else 'codes'}")
        if m.time_axis is not None and name != want:
            have = np.asarray(content).shape[m.time_axis]
            if have != m.steps(frames):
                raise InputError(f"--given {name}: {have} token steps, expected {m.steps(frames)} for {frames} frames")
    if want in known and not MODALITIES[want].has_clock:
        raise InputError(f"--want {want}: it is given already, and has no time along which to continue")
    return MODALITIES[want]


def _continue_at(m, codes: np.ndarray, steps: int) -> int:
    """Returns the last window start that the given codes reach."""
    have = np.asarray(codes).shape[m.time_axis]
    reached = [start for start in (*starts(steps), steps) if m.step_range(0, start)[1] <= have]
    if reached[-1] == 0 or reached[-1] >= steps:
        raise InputError(f"--given {m.name}: {have} token steps, expected at least 1 and fewer than the clip has")
    return reached[-1]
