"""Whisper on tiny random weights in the published format, made here: loading, batches, times, what is stored."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.errors import InputError
from models.signals import AUDIO_RATE, SPEECH_RATE
from pipelines.stages.hallucinations import GuardConfig
from pipelines.stages.transcript import UNDECIDED
from pipelines.stages.whisper import (
    Sound,
    WhisperConfig,
    cuts,
    forward_path,
    in_words,
    load_whisper,
    token_times,
    transcribe_batch,
    weights_sha256,
)

# Nothing is left out: random weights say nothing that a guard would believe.
LIMITS = GuardConfig(heard=0.0, silent=1.0, compression=1e9, repeats=(99, 99, 99), rate_words=99, logprob=-1e9)
SHORT = WhisperConfig(max_tokens=12)
ANYTHING = (SHORT, LIMITS)
LANGUAGES = ("en", "zh", "de")
WORDS = tuple(
    f"\u0120{word}" for word in "red green blue one two three four five six up down left right near far".split()
)


def write_weights(folder: Path, seed: int = 0, multilingual: bool = True) -> Path:
    """A Whisper of two layers with a tokenizer of bytes and a few words, as transformers stores one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )
    from transformers import WhisperConfig as Shape

    marks = ["<|endoftext|>", "<|startoftranscript|>"]
    marks += [f"<|{code}|>" for code in LANGUAGES] if multilingual else []
    marks += ["<|translate|>", "<|transcribe|>", "<|nospeech|>", "<|notimestamps|>", "<|0.00|>", "<|0.02|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: k for k, piece in enumerate([*alphabet, *WORDS, *marks])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=marks[0]).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    torch.set_num_threads(1)  # a network this small only waits for its threads
    torch.manual_seed(seed)
    shape = Shape(
        vocab_size=len(vocabulary),
        num_mel_bins=8,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=64,
        init_std=0.3,
        pad_token_id=vocabulary[marks[0]],
        bos_token_id=vocabulary[marks[0]],
        eos_token_id=vocabulary[marks[0]],
        decoder_start_token_id=vocabulary[marks[1]],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(shape)
    settings = GenerationConfig(
        decoder_start_token_id=vocabulary[marks[1]],
        eos_token_id=vocabulary[marks[0]],
        begin_suppress_tokens=[vocabulary[marks[0]]],
        suppress_tokens=list(range(len(alphabet))),  # whole words only
    )
    if multilingual:
        settings.lang_to_id = {f"<|{code}|>": vocabulary[f"<|{code}|>"] for code in LANGUAGES}
        settings.alignment_heads = [[1, 0], [1, 1]]
    model.generation_config = settings
    model.save_pretrained(folder)
    settings.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def offline():
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    if before is None:
        del os.environ["HF_HUB_OFFLINE"]
    else:
        os.environ["HF_HUB_OFFLINE"] = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


def sound(seed: int, seconds: float) -> Sound:
    audio = np.random.default_rng(seed).normal(0, 3000, int(seconds * AUDIO_RATE)).astype(np.int16)
    return Sound(audio, np.ones(int(seconds * SPEECH_RATE), np.uint8))


def test_a_clip_becomes_words_with_times_language_and_probabilities(folder):
    clip = sound(1, 2.0)
    script = transcribe_batch({"a": clip}, load_whisper(str(folder)), *ANYTHING)["a"]
    assert script.words and script.backend == "whisper"
    assert {f"\u0120{word.word}" for word in script.words} <= set(WORDS)
    assert script.language in LANGUAGES and 1 / 3 < script.language_confidence <= 1
    starts = [word.start for word in script.words]
    assert starts == sorted(starts) and 0 <= starts[0]
    assert all(word.start <= word.end <= 2.0 for word in script.words)
    assert all(0 < word.confidence < 1 for word in script.words)
    assert script.speech_rate == pytest.approx(len(script.words) / 2.0, abs=1e-3)
    (logprob,), (no_speech,) = script.details["logprob"], script.details["no_speech"]
    assert logprob < 0 <= no_speech < 1
    fields = script.fields()
    assert json.loads(fields["words"])[0]["word"] == script.words[0].word and json.loads(fields["flags"]) == []


def test_probabilities_and_language_are_those_of_the_model_itself(folder):
    """Against transformers' own generation and its own language detection."""
    import torch

    whisper, clip = load_whisper(str(folder)), sound(1, 2.0)
    features = whisper.extractor(
        clip.audio.astype(np.float32) / 32768, sampling_rate=AUDIO_RATE, return_tensors="pt"
    ).input_features
    script = transcribe_batch({"a": clip}, whisper, *ANYTHING)["a"]
    number = next(n for n, code in whisper.languages.items() if code == script.language)
    with torch.inference_mode():
        assert int(whisper.model.detect_language(features)[0]) == number
        at_start = whisper.model(features, decoder_input_ids=torch.tensor([[whisper.start]])).logits[0, 0]
        assert script.details["no_speech"] == [pytest.approx(float(at_start.softmax(-1)[whisper.no_speech]), abs=1e-4)]
        prompt = [whisper.start, number, *whisper.task]
        answer = []
        for _ in range(SHORT.max_tokens):
            logits = whisper.model(features, decoder_input_ids=torch.tensor([[*prompt, *answer]])).logits[0, -1]
            logits[whisper.end + 1 :] = -torch.inf
            logits[list(whisper.suppressed)] = -torch.inf
            if not answer:
                logits[list(whisper.suppressed_first)] = -torch.inf
            if int(logits.argmax()) == whisper.end:
                break
            answer.append(int(logits.argmax()))
    expected = [text for text, _, _ in in_words(answer, whisper.tokenizer)]
    assert [word.word for word in script.words] == expected


def test_a_clip_is_the_same_alone_and_in_a_batch(folder):
    clips = {f"clip{k}": sound(k, 1 + k) for k in range(3)} | {"none": sound(9, 0)}
    whisper = load_whisper(str(folder))
    together = transcribe_batch(clips, whisper, *ANYTHING)
    assert list(together) == list(clips) and together["none"].words == ()
    for key, clip in clips.items():
        alone = transcribe_batch({key: clip}, whisper, *ANYTHING)[key]
        assert alone.text == together[key].text and alone.language == together[key].language
        assert alone.words == together[key].words or np.allclose(
            [word.confidence for word in alone.words], [word.confidence for word in together[key].words], atol=1e-3
        )


def test_long_sound_is_heard_in_windows_that_are_cut_where_it_is_quiet(folder):
    clip = sound(2, 40.0)
    quiet = clip.audio.copy()
    quiet[27 * AUDIO_RATE : 27 * AUDIO_RATE + 3200] = 0
    (first, cut), (again, end) = cuts(quiet)
    assert first == 0 and cut == again and 27 <= cut / AUDIO_RATE <= 27.2 and end == len(quiet)
    script = transcribe_batch({"a": Sound(quiet, clip.activity)}, load_whisper(str(folder)), *ANYTHING)["a"]
    assert len(script.details["logprob"]) == 2 and script.words[-1].start > 26
    assert cuts(quiet[:0]) == []


def test_the_guard_is_asked(folder):
    clip = sound(1, 2.0)
    script = transcribe_batch({"a": Sound(clip.audio, 0 * clip.activity)}, load_whisper(str(folder)), SHORT)["a"]
    assert script.words == () and script.flags and script.confidence == script.speech_rate == 0


def test_an_english_model_does_not_say_which_language_it_is(tmp_path):
    script = transcribe_batch({"a": sound(1, 1.0)}, load_whisper(str(write_weights(tmp_path, 1, False))), *ANYTHING)[
        "a"
    ]
    assert script.language == UNDECIDED and script.language_confidence == 0 and script.words


def test_weights_are_identified_by_their_content(folder, tmp_path):
    same = shutil.copytree(folder, tmp_path / "same")
    (same / "README.md").write_text("not a weight")
    assert weights_sha256(str(folder)) == weights_sha256(str(same))
    other = write_weights(tmp_path / "other", seed=5)
    assert weights_sha256(str(folder)) != weights_sha256(str(other))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(InputError, match=name):
        load_whisper(str(copy))


def test_other_files_are_no_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a Whisper model"):
        load_whisper(str(copy))
    with pytest.raises(InputError, match="no such folder"):
        load_whisper(str(tmp_path / "nowhere"))


def test_times_follow_where_the_heads_look():
    looks = np.full((2, 4, 100), 0.001)
    for token, (begin, end) in enumerate([(10, 30), (30, 45), (45, 80), (80, 100)]):
        looks[:, token, begin:end] = 1.0
    assert np.allclose(token_times(looks), [0.0, 0.6, 0.9, 1.6], atol=0.041)
    assert forward_path(np.eye(3)) == [0, 1, 2]
    assert forward_path(np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])) == [0, 2]


def test_words_of_scripts_without_spaces_are_their_characters(folder):
    tokenizer = load_whisper(str(folder)).tokenizer

    def words(text):
        return [word for word, _, _ in in_words(tokenizer.encode(text, add_special_tokens=False), tokenizer)]

    assert words(" Hello there, you") == ["Hello", "there,", "you"]
    assert words("你好 ok") == ["你", "好", "ok"]
    spans = in_words(tokenizer.encode(" é b", add_special_tokens=False), tokenizer)
    assert [span[1:] for span in spans] == [(0, 3), (3, 5)]
