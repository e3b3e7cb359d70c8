"""The script of a clip by Whisper (Radford et al., 2022), from a local folder of its published weights.

The folder is what `transformers` calls a model: config.json, model.safetensors (or its shards), the tokenizer's and the
feature extractor's files. Decoding is greedy and therefore repeats; the language is what the model finds most likely
after the start token; a second pass over the whole answer gives every token's probability and, by dynamic time warping
over the heads that look where the sound is, its time.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InputError
from models.loading import load_once
from models.signals import AUDIO_RATE, SPEECH_RATE
from pipelines import storage
from pipelines.stages.hallucinations import LIMITS, GuardConfig, guard
from pipelines.stages.transcript import (
    UNDECIDED,
    Segment,
    Transcript,
    Word,
    confidence_of,
    in_segments,
    speech_rate,
    without_spaces,
)

BACKEND = "whisper"

# The encoder reads 30 s at a time and puts out 50 steps a second; a window is cut at the quietest place near its end.
_WINDOW, _EARLIEST_CUT, _STEPS = 30.0, 25.0, 50
_NEEDED = ("config.json", "generation_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class WhisperConfig:
    """How Whisper decodes: at most ``max_tokens`` a window."""

    max_tokens: int = 220


_DECODING = WhisperConfig()


@dataclass(frozen=True)
class Sound:
    """One clip: int16 (N,) at 16 kHz, and its voice activity (S,) at 25 Hz."""

    audio: np.ndarray
    activity: np.ndarray


@dataclass(frozen=True)
class Whisper:
    """A loaded model: transformers' model, feature extractor and tokenizer, and the ids of the tokens that steer it."""

    model: object
    extractor: object
    tokenizer: object
    start: int
    end: int
    task: tuple[int, ...]
    no_speech: int | None
    languages: Mapping[int, str]
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]


# --- Loading ---


def weight_files(path: str) -> list[str]:
    """Returns the files of a folder of weights, local or gs://, sorted.

    Raises:
        InputError: the folder or a file that a model needs is not there; it is named.
    """
    files = storage.list_files(storage.join(path, "*"))
    names = {os.path.basename(file) for file in files}
    if not files:
        raise InputError(
            f"--whisper-weights {path}: no such folder; expected one with config.json, model.safetensors ..."
        )
    for name in _NEEDED:
        if name not in names:
            raise InputError(f"--whisper-weights {path}: {name} is missing")
    if not {"model.safetensors", "model.safetensors.index.json"} & names:
        raise InputError(f"--whisper-weights {path}: model.safetensors is missing (other formats are not read)")
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise InputError(f"--whisper-weights {path}: tokenizer.json is missing (or vocab.json and merges.txt)")
    used = (".json", ".txt", ".safetensors")
    return [file for file in files if file.endswith(used)]


@load_once(2)
def weights_sha256(path: str) -> str:
    """A hash over the names and contents of the files that decide what the model says."""
    total = hashlib.sha256()
    for file in weight_files(path):
        with storage.local_copy(file) as local:
            total.update(f"{os.path.basename(file)} {storage.sha256_file(local)}\n".encode())
    return total.hexdigest()


@load_once(1)
def load_whisper(path: str) -> Whisper:
    """Loads a folder of weights, onto the GPU if there is one. Nothing is ever downloaded from a hub.

    Raises:
        InputError: a file is missing or is not of this format.
    """
    import shutil
    import tempfile

    files = weight_files(path)
    if not storage.is_remote(path):
        return _load(path, path)
    folder = tempfile.mkdtemp(prefix="archon-whisper-")
    try:
        for file in files:
            with storage.local_copy(file) as local:
                shutil.copyfile(local, os.path.join(folder, os.path.basename(file)))
        return _load(folder, path)
    finally:
        shutil.rmtree(folder)


def _load(folder: str, name: str) -> Whisper:
    import torch
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = WhisperForConditionalGeneration.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="eager",  # the others do not tell where they look
            dtype=torch.float16 if device == "cuda" else torch.float32,
        )
        extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise InputError(f"--whisper-weights {name}: not a Whisper model: {type(error).__name__}: {error}") from error
    settings = model.generation_config
    languages = {number: mark.strip("<|>") for mark, number in (getattr(settings, "lang_to_id", None) or {}).items()}
    known = tokenizer.get_vocab()

    def token(*names: str) -> int | None:
        return next((known[name] for name in names if name in known), None)

    task = (token("<|transcribe|>"), token("<|notimestamps|>")) if languages else (token("<|notimestamps|>"),)
    start, end = settings.decoder_start_token_id, settings.eos_token_id
    end = end[0] if isinstance(end, list) else end
    if start is None or end is None or None in task:
        raise InputError(f"--whisper-weights {name}: the tokenizer has no token <|transcribe|> or <|notimestamps|>")
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    # Where the model does not say which heads follow the sound: all of the upper half, as its authors do.
    upper = [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]
    return Whisper(
        model=model.to(device).eval(),
        extractor=extractor,
        tokenizer=tokenizer,
        start=start,
        end=end,
        task=task,
        no_speech=token("<|nospeech|>", "<|nocaptions|>"),
        languages=languages,
        suppressed=tuple(settings.suppress_tokens or ()),
        suppressed_first=tuple(settings.begin_suppress_tokens or ()),
        heads=tuple(tuple(pair) for pair in (getattr(settings, "alignment_heads", None) or upper)),
    )


# --- Transcribing ---


def transcribe_batch(
    clips: Mapping[str, Sound],
    whisper: Whisper,
    config: WhisperConfig = _DECODING,
    limits: GuardConfig = LIMITS,
) -> dict[str, Transcript]:
    """Transcribes clips together: key -> its transcript, without what ``limits`` say that nobody said.

    What a clip's is does not depend on the others.
    """
    windows = {
        (key, k): (begin, sound.audio[begin:end])
        for key, sound in clips.items()
        for k, (begin, end) in enumerate(cuts(sound.audio))
    }
    heard = dict(zip(windows, _windows([piece for _, piece in windows.values()], whisper, config), strict=True))
    transcripts = {}
    for key, sound in clips.items():
        own = [(windows[name][0] / AUDIO_RATE, heard[name]) for name in windows if name[0] == key]
        transcripts[key] = _transcript(own, sound, limits)
    return transcripts


def cuts(audio: np.ndarray) -> list[tuple[int, int]]:
    """Cuts a sound into windows of at most 30 s, at the quietest 40 ms of the last five seconds of each."""
    begin, parts = 0, []
    hop = AUDIO_RATE // SPEECH_RATE
    while len(audio) - begin > _WINDOW * AUDIO_RATE:
        first = begin + int(_EARLIEST_CUT * AUDIO_RATE)
        steps = audio[first : begin + int(_WINDOW * AUDIO_RATE)].astype(np.float64)
        power = (steps[: len(steps) // hop * hop].reshape(-1, hop) ** 2).mean(1)
        end = first + int(power.argmin()) * hop + hop // 2
        parts.append((begin, end))
        begin = end
    return [*parts, (begin, len(audio))] if len(audio) > begin else parts


@dataclass(frozen=True)
class _Heard:
    words: tuple[Word, ...]
    logprob: float
    no_speech: float | None
    languages: dict[str, float]


def _transcript(windows: Sequence[tuple[float, _Heard]], sound: Sound, limits: GuardConfig) -> Transcript:
    segments: list[Segment] = []
    for offset, heard in windows:
        moved = [
            Word(word.word, round(word.start + offset, 2), round(word.end + offset, 2), word.confidence)
            for word in heard.words
        ]
        segments += in_segments(moved, heard.logprob, heard.no_speech)
    kept, flags = guard(segments, sound.activity, limits)
    words = tuple(word for segment in kept for word in segment.words)
    language, sure = UNDECIDED, 0.0
    if windows and windows[0][1].languages:
        likely = windows[0][1].languages
        language = max(likely, key=likely.__getitem__)
        sure = round(likely[language], 4)
    details = {
        "logprob": [round(heard.logprob, 4) for _, heard in windows],
        "no_speech": [None if heard.no_speech is None else round(heard.no_speech, 4) for _, heard in windows],
    }
    return Transcript(
        words,
        language,
        sure,
        confidence_of(words),
        speech_rate(words, sound.activity),
        BACKEND,
        tuple(flags),
        details,
    )


def _windows(pieces: Sequence[np.ndarray], whisper: Whisper, config: WhisperConfig) -> list[_Heard]:
    """Hears pieces of sound of at most 30 s each, all at once."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    if not pieces:
        return []
    model = whisper.model
    with torch.inference_mode():
        features = whisper.extractor(
            [piece.astype(np.float32) / 32768 for piece in pieces],
            sampling_rate=AUDIO_RATE,
            return_tensors="pt",
        ).input_features.to(model.device, model.dtype)
        hidden = model.get_encoder()(features).last_hidden_state
        first = torch.full((len(pieces), 1), whisper.start, device=model.device)
        at_start = model(encoder_outputs=BaseModelOutput(hidden), decoder_input_ids=first).logits[:, 0].float()
        languages, prompt = _languages(at_start, whisper, first)
        answers = _greedy(hidden, prompt, whisper, config)
        no_speech = at_start.softmax(-1)[:, whisper.no_speech].tolist() if whisper.no_speech is not None else None
        heard = []
        for k, (piece, answer) in enumerate(zip(pieces, answers, strict=True)):
            steps = -(-len(piece) * _STEPS // AUDIO_RATE)
            words, logprob = _timed(hidden[k : k + 1], prompt[k].tolist(), answer, max(steps, 1), whisper)
            heard.append(_Heard(words, logprob, no_speech[k] if no_speech else None, languages[k]))
    return heard


def _languages(logits, whisper: Whisper, first):
    """The probabilities of the languages by their codes, and the prompt that asks for the likeliest: (B, P)."""
    import torch

    task = torch.tensor(whisper.task, device=first.device).expand(len(first), -1)
    if not whisper.languages:
        return [{} for _ in range(len(first))], torch.cat([first, task], 1)
    numbers = sorted(whisper.languages)
    shares = logits[:, numbers].softmax(-1)
    likeliest = torch.tensor(numbers, device=first.device)[shares.argmax(-1)][:, None]
    languages = [{whisper.languages[n]: float(p) for n, p in zip(numbers, row, strict=True)} for row in shares]
    return languages, torch.cat([first, likeliest, task], 1)


def _greedy(hidden, prompt, whisper: Whisper, config: WhisperConfig) -> list[list[int]]:
    """The likeliest next token, again and again, until every answer has ended: (B, P) -> B lists of tokens."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    model, encoded = whisper.model, BaseModelOutput(hidden)
    answers: list[list[int]] = [[] for _ in range(len(prompt))]
    ended = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    tokens, past = prompt, None
    # Special tokens, timestamps among them, come after the end token in every vocabulary of Whisper.
    special = whisper.end + 1
    room = min(config.max_tokens, model.config.max_target_positions - prompt.shape[1])
    for k in range(room):
        out = model(encoder_outputs=encoded, decoder_input_ids=tokens, past_key_values=past, use_cache=True)
        past, logits = out.past_key_values, out.logits[:, -1].float()
        logits[:, special:] = -torch.inf
        logits[:, [n for n in whisper.suppressed if n < special]] = -torch.inf
        if k == 0:
            logits[:, [n for n in whisper.suppressed_first if n < special]] = -torch.inf
        best = logits.argmax(-1)
        ended = ended | (best == whisper.end)
        if bool(ended.all()):
            break
        for row in (~ended).nonzero()[:, 0].tolist():
            answers[row].append(int(best[row]))
        tokens = best[:, None]
    return answers


def _timed(
    hidden, prompt: list[int], answer: list[int], steps: int, whisper: Whisper
) -> tuple[tuple[Word, ...], float]:
    """Words with times (seconds) and probabilities of an answer, and the mean log-probability of its tokens."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    if not answer:
        return (), 0.0
    tokens = torch.tensor([[*prompt, *answer, whisper.end]], device=hidden.device)
    out = whisper.model(
        encoder_outputs=BaseModelOutput(hidden), decoder_input_ids=tokens[:, :-1], output_attentions=True
    )
    begin = len(prompt) - 1
    logprobs = out.logits[0, begin:].float().log_softmax(-1).gather(-1, tokens[0, begin + 1 :, None])[:, 0].tolist()
    looks = torch.stack([out.cross_attentions[layer][0, head] for layer, head in whisper.heads])
    times = token_times(looks[:, begin:, :steps].float().cpu().numpy())
    words = []
    for text, first, last in in_words(answer, whisper.tokenizer):
        sure = float(np.exp(np.mean(logprobs[first:last])))
        words.append(Word(text, round(times[first], 2), round(times[last], 2), round(sure, 4)))
    return tuple(words), float(np.mean(logprobs))


def token_times(attention: np.ndarray) -> list[float]:
    """When each token begins, seconds: (heads, tokens, steps) -> one time a token.

    Attention is standardised over the tokens, smoothed over seven steps, averaged over the heads; the times are where
    the best path that goes only forward through tokens and steps reaches each token.
    """
    from scipy.ndimage import median_filter

    spread = attention.std(1, keepdims=True)
    level = (attention - attention.mean(1, keepdims=True)) / np.maximum(spread, 1e-6)
    score = median_filter(level, size=(1, 1, 7), mode="reflect").mean(0)
    return [first / _STEPS for first in forward_path(score)]


def forward_path(score: np.ndarray) -> list[int]:
    """The first column of each row on the path of greatest sum that goes right, down or both: (rows, columns)."""
    rows, columns = score.shape
    total = np.full((rows + 1, columns + 1), -np.inf)
    total[0, 0] = 0
    came = np.zeros((rows, columns), np.int8)  # 0 from the left above, 1 from above, 2 from the left
    for i in range(rows):
        for j in range(columns):
            options = total[i, j], total[i, j + 1], total[i + 1, j]
            came[i, j] = best = int(np.argmax(options))
            total[i + 1, j + 1] = options[best] + score[i, j]
    first, i, j = [0] * rows, rows - 1, columns - 1
    while i >= 0 and j >= 0:
        first[i] = j
        step = came[i, j]
        i, j = (i - 1 if step != 2 else i), (j - 1 if step != 1 else j)
    return first


def in_words(tokens: Sequence[int], tokenizer) -> list[tuple[str, int, int]]:
    """Cuts an answer into words: (text, first token, token after the last).

    A word begins at a space; where a script has none, at every whole character.
    """
    pieces: list[tuple[str, int, int]] = []
    first = 0
    for k in range(len(tokens)):
        text = tokenizer.decode(list(tokens[first : k + 1]))
        if "\ufffd" in text and k + 1 < len(tokens):
            continue  # a character of which only some bytes are there
        pieces.append((text, first, k + 1))
        first = k + 1
    words: list[tuple[str, int, int]] = []
    for text, begin, end in pieces:
        apart = text[:1].isspace() or without_spaces(text.strip())
        if words and not apart and not without_spaces(words[-1][0]):
            words[-1] = (words[-1][0] + text, words[-1][1], end)
        else:
            words.append((text, begin, end))
    return [(text.strip(), begin, end) for text, begin, end in words if text.strip()]
