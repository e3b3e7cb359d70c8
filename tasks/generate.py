"""Any modality from any other: one chain of single steps, sampled under a grammar.

Each step is a prompt with everything known so far. A clip longer than a window is made window by window, each with the
past of what is being made. At every position only the ids of the one level that must come there can be drawn, and the
number of positions follows from the number of frames: every sample decodes.

Requests for the same modality are sampled together, as rows of a batch; what a request gets does not depend on the
others beside it, up to rounding.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoding import decode
from models.errors import InputError
from models.io import dataclass_from_dict, fill, load_model
from models.language_model import LanguageModelConfig, init_params
from models.sampling import Sampling
from models.signals import TIME_STRIDE, grid_frames, latent_steps
from tasks.grammar import Form, grammar_table
from tasks.modalities import MODALITIES, STREAMS, Vocabulary, spans, unflatten
from tasks.prompts import TextCodec, block_clock, serialise, to_clock, to_ids, unescape
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


@dataclass(frozen=True)
class Request:
    """One clip to make something for.

    Attributes:
        known: codes or text of what is given, for the whole clip. Codes of what is wanted, shorter than the clip, are
            continued.
        frames: T = 4k + 1 video frames of the clip.
        seed: of the sampling.
    """

    known: Mapping[str, Content]
    frames: int
    seed: int = 0


@dataclass(frozen=True)
class _Ask:
    """One window of one request, ready to be sampled.

    Attributes:
        prefix, free: ids of the prompt, and of the same without its conditions.
        key: sampling key.
        clock, free_clock: ticks of these ids and of what follows them.
    """

    prefix: np.ndarray
    free: np.ndarray
    key: jax.Array
    clock: np.ndarray
    free_clock: np.ndarray


def sample_windows(
    language: Language,
    known: Sequence[Mapping[str, Content]],
    want: str,
    windows: Sequence[Window],
    keys: Sequence[jax.Array],
    sampling: Sampling,
    form: Form | None = None,
) -> list[tuple[Content, int]]:
    """Makes one modality on one window of each of several clips; a text that has a ``form`` follows it.

    Returns:
        For each, (codes of the window, or the text; ids that were drawn).

    Raises:
        InputError: prompt and output are longer than the context.
    """
    made: list[tuple[Content, int] | None] = [None] * len(known)
    forms: dict[tuple[int, int], list[int]] = {}  # what has the same ranges can share a batch
    asks = []
    for index, (given, window) in enumerate(zip(known, windows, strict=True)):
        asks.append(_ask(language, given, want, window, keys[index]))
        is_text = MODALITIES[want].is_text
        first, last = (0, 0) if is_text else MODALITIES[want].step_range(window.start, window.stop)
        room = language.length - max(asks[-1].prefix.size, asks[-1].free.size)
        forms.setdefault((last - first, min(MAX_TEXT, room) if is_text else 0), []).append(index)
        wanted = 1 if is_text else sum(span.count for span in spans(language.vocabulary, want, last - first))
        if room < wanted:
            raise InputError(
                f"{want} from {', '.join(given)}: a prompt of {language.length - room} tokens and an output of "
                f"{wanted} do not fit into the model's context of {language.length}; give fewer modalities or less text"
            )
    for (steps, text), indices in forms.items():
        found = _sample(language, [asks[index] for index in indices], want, steps, text, sampling, form)
        for index, one in zip(indices, found, strict=True):
            made[index] = one
    return made


def _ask(language: Language, known: Mapping[str, Content], want: str, window: Window, key: jax.Array) -> _Ask:
    m = MODALITIES[want]

    def read(inputs: tuple[Source, ...]) -> tuple[np.ndarray, np.ndarray]:
        prompt = step_prompt(inputs, want, known, window, language.window, target=False)
        pieces = serialise(prompt)[0]
        ids = to_ids(pieces, language.vocabulary, language.text)
        clock = [to_clock(pieces, language.text)]
        if m.has_clock:
            first, last = m.step_range(window.start, window.stop)
            tick = m.tick_of(prompt.make.state, prompt.make.frames, last - first)
            clock.append(block_clock(want, last - first, tick))
        return ids, np.concatenate(clock)

    prefix, clock = read(tuple(Source(name) for name in known if name != want))
    free, free_clock = read(())
    return _Ask(prefix, free, key, clock, free_clock)


def _sample(
    language: Language, asks: Sequence[_Ask], want: str, steps: int, text: int, sampling: Sampling, form: Form | None
) -> list[tuple[Content, int]]:
    """Draws one batch: ``steps`` token steps of a modality, or at most ``text`` ids."""
    vocabulary = language.vocabulary
    is_text = MODALITIES[want].is_text
    if is_text:
        ranges = [vocabulary.stream_ranges("text")[0]] * text
    else:
        ranges = [span.range for span in spans(vocabulary, want, steps) for _ in range(span.count)]
    heads = np.zeros((2, language.length), np.int32)
    heads[:, : len(ranges)] = np.array([language.config.head_range(r.start, r.size) for r in ranges]).T
    guided = sampling.guidance != 1
    prompts = [ask.prefix for ask in asks] + [ask.free for ask in asks if guided]
    clocks = [ask.clock for ask in asks] + [ask.free_clock for ask in asks if guided]
    padded, clock = np.zeros((2, len(prompts), language.length), np.int32)
    for row, (ids, ticks) in enumerate(zip(prompts, clocks, strict=True)):
        padded[row, : ids.size] = ids
        clock[row, : ticks.size] = ticks
    out, written = decode(
        language.config,
        language.params,
        padded,
        np.array([ids.size for ids in prompts], np.int32),
        heads[0],
        heads[1],
        np.int32(len(ranges)),
        np.int32(vocabulary.eos if is_text else -1),
        jnp.stack([ask.key for ask in asks]),
        np.float32(sampling.temperature),
        np.int32(sampling.top_k),
        np.float32(sampling.top_p),
        np.float32(sampling.guidance),
        None if form is None else grammar_table(form, language.text.pieces(), vocabulary.eos),
        clock if language.config.clock else None,
        guided=guided,
    )
    made = []
    for row, count in zip(np.asarray(out), np.asarray(written).tolist(), strict=True):
        drawn = row[:count]
        if is_text:
            made.append((unescape(language.text.decode(drawn)), count))
        else:
            made.append((unflatten(vocabulary, want, drawn + np.array([r.start for r in ranges], np.int32)), count))
    return made


def generate(
    language: Language,
    requests: Sequence[Request],
    want: str,
    *,
    sampling: Sampling | None = None,
    form: Form | None = None,
) -> list[tuple[Content, int]]:
    """Makes one modality for each of several clips.

    Args:
        language: the model.
        requests: the clips.
        want: what to make; not "video", which is the decoder's.
        sampling: how tokens are drawn.
        form: what a text may say (``tasks.grammar``); None is anything.

    Returns:
        For each, (codes as in token records, or text; ids that were drawn).

    Raises:
        InputError: what is given does not fit the clip or the context.
    """
    sampling = sampling or Sampling()
    m = MODALITIES.get(want)
    plans: list[list[Window]] = []  # of each request, the windows that are still to be made
    parts: list[list[np.ndarray]] = []
    keys = []
    for request in requests:
        _check(request.known, want, request.frames)
        steps = latent_steps(request.frames)
        keys.append(jax.random.fold_in(jax.random.key(request.seed), list(MODALITIES).index(want)))
        begin = 0
        if not m.has_clock:
            plans.append([Window(0, steps) if want == "script" else window_at(0, steps, language.window)])
        else:
            begin = _continue_at(m, request.known[want], steps) if want in request.known else 0
            plans.append(slide(steps, language.window, begin))
        parts.append([m.take(request.known[want], 0, begin)] if begin else [])
    counts = [0] * len(requests)
    while any(plans):
        rows = [row for row, plan in enumerate(plans) if plan]
        windows = [plans[row].pop(0) for row in rows]
        known = []
        for row in rows:
            sofar = {want: np.concatenate(parts[row], axis=m.time_axis)} if parts[row] else {}
            known.append({**requests[row].known, **sofar})
        drawn = [
            jax.random.fold_in(keys[row], window.start) if m.has_clock else keys[row]
            for row, window in zip(rows, windows, strict=True)
        ]
        found = sample_windows(language, known, want, windows, drawn, sampling, form if m.is_text else None)
        for row, (content, count) in zip(rows, found, strict=True):
            parts[row].append(content)
            counts[row] += count
    return [
        (np.concatenate(made, axis=m.time_axis) if m.has_clock else made[0], count)
        for made, count in zip(parts, counts, strict=True)
    ]


def run_chain(
    model: Path | str,
    tokenizers: Path | str,
    requests: Sequence[Request],
    chain: Sequence[str],
    *,
    sampling: Sampling | None = None,
    forms: Mapping[str, Form] | None = None,
    progress: Callable[[str, list[int], float], None] | None = None,
) -> list[dict[str, Content]]:
    """Makes every link of a chain for each of several clips, each from what is given and the links before it.

    Args:
        model: the language model's directory.
        tokenizers: the directory of the tokenizers' directories.
        requests: the clips and what is given of them.
        chain: modalities to make in order (``chains.parse_chain``); "video" is left to the decoder.
        sampling: how tokens are drawn.
        forms: modality -> what its text may say; without one it may say anything.
        progress: called with (modality, ids drawn for each request, seconds) after each link.

    Returns:
        For each, modality -> codes or text, in the order of the chain, without what was given.
    """
    language = load_language(model, tokenizers)
    requests = list(requests)
    made: list[dict[str, Content]] = [{} for _ in requests]
    for want in chain:
        if want == "video":
            continue
        begin = time.monotonic()
        found = generate(language, requests, want, sampling=sampling, form=(forms or {}).get(want))
        for row, (content, _) in enumerate(found):
            made[row][want] = content
            requests[row] = replace(requests[row], known={**requests[row].known, want: content})
        if progress is not None:
            progress(want, [count for _, count in found], time.monotonic() - begin)
    return made


def _check(known: Mapping[str, Content], want: str, frames: int) -> None:
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


def _continue_at(m, codes: np.ndarray, steps: int) -> int:
    """Returns the last window start that the given codes reach."""
    have = np.asarray(codes).shape[m.time_axis]
    reached = [start for start in (*starts(steps), steps) if m.step_range(0, start)[1] <= have]
    if reached[-1] == 0 or reached[-1] >= steps:
        raise InputError(f"--given {m.name}: {have} token steps, expected at least 1 and fewer than the clip has")
    return reached[-1]
