import dataclasses
import json

import numpy as np
import pytest

from models.decoding import decode
from models.errors import InputError
from models.io import save_model
from models.language_model import LanguageModelConfig
from models.sampling import Sampling
from models.signals import latent_steps, speech_steps
from tasks import generate as generation
from tasks.generate import Language, Request, TokenSpace, load_language, run_chain
from tasks.loader import LoaderConfig, example
from tasks.modalities import MODALITIES, PAPER_CODEBOOKS, flatten
from tasks.prompts import parse, to_pieces
from tasks.registry import task_named
from tasks.windows import WindowConfig, slide
from tests.token_records import SMALL, ByteText, random_params, record, vocabulary

VOCABULARY = vocabulary()
CONFIG = LanguageModelConfig(
    VOCABULARY.sizes[0][0],
    VOCABULARY.sizes[1][0],
    tuple(n for levels in VOCABULARY.sizes[2:] for n in levels),
    width=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_width=8,
    hidden=16,
    image_width=8,
)
FRAMES = 41  # 11 latent steps: windows of 4, 3, 3 and a last one of 1


@pytest.fixture(scope="module")
def language() -> Language:
    params = random_params(CONFIG)
    return Language(CONFIG, params, VOCABULARY, ByteText(), WindowConfig(3, 3), length=1280)


@pytest.fixture(scope="module")
def clip() -> dict:
    return record(1, FRAMES)


def generate(language, known, want, frames, *, seed=0, **options):
    """One request alone."""
    return generation.generate(language, [Request(known, frames, seed)], want, **options)[0]


def test_every_modality_comes_with_the_shape_of_its_clip_and_valid_codes(language, clip):
    shapes = {
        "speech": (4, speech_steps(FRAMES)),
        "shape": (8,),
        "expression": (8, latent_steps(FRAMES)),
        "pose": (6, latent_steps(FRAMES)),
        "semantics": (latent_steps(FRAMES), 8, 8),
        "image": (16, 16),
    }
    for want, shape in shapes.items():
        given = {"script": clip["script"]} if want == "speech" else {"speech": clip["speech"]}
        codes, count = generate(language, given, want, FRAMES, sampling=Sampling(temperature=2.0, top_p=1.0))
        assert codes.shape == shape and count == codes.size
        flatten(VOCABULARY, want, codes)  # raises on a code outside its level


def test_text_is_text_within_its_limit(language, clip):
    text, count = generate(language, {"image": clip["image"]}, "description", FRAMES)
    assert isinstance(text, str) and 0 <= count <= generation.MAX_TEXT


def test_a_text_follows_its_form(language, clip):
    form = [('{"hair":',), ('"black"', '"brown"'), (',"blinks":',), tuple(f"{n}}}" for n in range(20))]
    given = {"image": clip["image"]}
    made = {generate(language, given, "description", FRAMES, seed=seed, form=form)[0] for seed in range(3)}
    for text in made:
        values = json.loads(text)
        assert values["hair"] in ("black", "brown") and values["blinks"] in range(20)
    assert len(made) > 1


def test_the_seed_decides(language, clip):
    given = {"image": clip["image"], "speech": clip["speech"]}
    draws = [generate(language, given, "pose", FRAMES, seed=s)[0] for s in (5, 5, 6)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


def test_a_later_window_reads_the_past_of_what_is_made(language, clip, monkeypatch):
    """What is given of the output is kept and continued, window by window."""
    prompts = []

    def spy(config, params, prefix, lengths, *rest, **options):
        pieces = to_pieces(np.asarray(prefix[0, : int(lengths[0])]), VOCABULARY, ByteText())
        prompts.append(parse(pieces))
        return decode(config, params, prefix, lengths, *rest, **options)

    monkeypatch.setattr(generation, "decode", spy)
    past = clip["semantics"][:7]
    codes, count = generate(language, {"semantics": past, "speech": clip["speech"]}, "semantics", FRAMES)
    np.testing.assert_array_equal(codes[:7], past)
    assert codes.shape == (11, 8, 8) and count == 4 * 64
    assert [p.make.frames for p in prompts] == [12, 4]
    for prompt, start, stop in zip(prompts, (7, 10), (10, 11), strict=True):
        speech, before = prompt.given
        assert (before.modality, before.state, before.frames) == ("semantics", "past", 12)
        np.testing.assert_array_equal(before.content, codes[start - 3 : start])
        np.testing.assert_array_equal(speech.content, MODALITIES["speech"].take(clip["speech"], start, stop))


def test_a_request_has_the_ticks_of_the_example_that_it_was_learned_from(language, clip, monkeypatch):
    seen = []

    def spy(config, params, prefix, lengths, *rest, **options):
        seen.append((np.asarray(prefix[0]), int(lengths[0]), rest[-1][0]))
        return decode(config, params, prefix, lengths, *rest, **options)

    monkeypatch.setattr(generation, "decode", spy)
    timed = dataclasses.replace(language, config=dataclasses.replace(CONFIG, clock=True))
    step = task_named("past-expression-speech-to-expression").steps[0]
    loader = LoaderConfig(1280, 1, 64, 1, WindowConfig(3, 3), clock=True)
    made, _ = generate(timed, {"speech": clip["speech"]}, "expression", FRAMES)
    windows = slide(latent_steps(FRAMES), WindowConfig(3, 3))
    assert len(seen) == len(windows) == 4
    for (prefix, length, clock), window in zip(seen[1:], windows[1:], strict=True):
        known = clip | {"expression": made}
        built = example(step, known, window, loader, VOCABULARY, ByteText())
        size = built["tokens"].size
        np.testing.assert_array_equal(built["tokens"][:length], prefix[:length])
        np.testing.assert_array_equal(built["clock"], clock[:size])
        assert built["clock"].any() and not clock[size:].any()


@pytest.mark.parametrize(
    ("given", "want", "frames", "message"),
    [
        ({"speech": np.zeros((4, 3), int)}, "pose", FRAMES, "3 token steps, expected 35 for 41 frames"),
        ({"image": np.zeros((16, 16), int)}, "video", FRAMES, "does not make it"),
        ({"image": np.zeros((16, 16), int)}, "pose", 40, "4k . 1"),
        ({"smell": 1}, "pose", FRAMES, "not a modality"),
        ({"script": np.zeros(3)}, "pose", FRAMES, "expected text"),
        ({"image": "a.png"}, "pose", FRAMES, "expected codes"),
        ({"shape": np.zeros(8, int)}, "shape", FRAMES, "given already"),
        ({"pose": np.zeros((6, 11), int)}, "pose", FRAMES, "fewer than the clip has"),
        ({"script": "x" * 1300}, "pose", FRAMES, "do not fit into the model's context"),
    ],
)
def test_what_does_not_fit_is_refused(language, given, want, frames, message):
    with pytest.raises(InputError, match=message):
        generate(language, given, want, frames)


def test_a_chain_feeds_each_link_to_the_next(language, clip, monkeypatch, tmp_path):
    monkeypatch.setattr(generation, "load_language", lambda model, tokenizers: language)
    seen = []
    given = {"speech": clip["speech"], "image": clip["image"]}
    chain = ("shape", "expression", "video")
    line = lambda *line: seen.append(line[:2])  # noqa: E731
    (made,) = run_chain(tmp_path, tmp_path, [Request(given, FRAMES, seed=2)], chain, progress=line)
    assert list(made) == ["shape", "expression"]
    assert seen == [("shape", [8]), ("expression", [88])]
    alone, _ = generate(language, {**given, "shape": made["shape"]}, "expression", FRAMES, seed=2)
    np.testing.assert_array_equal(made["expression"], alone)


def test_requests_of_a_batch_are_what_they_are_alone(language):
    """Clips of other lengths, given other modalities: they share batches where their ranges are the same."""
    clips = [record(index, frames) for index, frames in enumerate((FRAMES, 17, FRAMES))]
    requests = [
        Request({"speech": clips[0]["speech"], "image": clips[0]["image"]}, FRAMES, seed=4),
        Request({"script": clips[1]["script"]}, 17, seed=5),
        Request({"speech": clips[2]["speech"], "pose": clips[2]["pose"][:, :4]}, FRAMES, seed=6),
    ]
    together = generation.generate(language, requests, "pose")
    for request, (codes, count) in zip(requests, together, strict=True):
        alone, counted = generate(language, request.known, "pose", request.frames, seed=request.seed)
        np.testing.assert_array_equal(codes, alone)
        assert count == counted
    assert [codes.shape[1] for codes, _ in together] == [11, 5, 11]


def test_guidance_reads_the_same_request_without_its_conditions(language, clip, monkeypatch):
    prompts = []

    def spy(config, params, prefix, lengths, *rest, **options):
        prompts.append([parse(to_pieces(p[:n], VOCABULARY, ByteText())) for p, n in zip(prefix, lengths, strict=True)])
        return decode(config, params, prefix, lengths, *rest, **options)

    monkeypatch.setattr(generation, "decode", spy)
    given = {"speech": clip["speech"], "image": clip["image"]}
    guided, _ = generate(language, given, "pose", FRAMES, sampling=Sampling(guidance=6.0))
    for number, (with_conditions, without) in enumerate(prompts):
        assert {field.modality for field in with_conditions.given} >= {"speech", "image"}
        assert [(f.modality, f.state) for f in without.given] == ([("pose", "past")] if number else [])
        assert with_conditions.make == without.make
    assert np.any(guided != generate(language, given, "pose", FRAMES)[0])


def save(language: Language, directory, **changes) -> None:
    extra = {
        "vocabulary": language.vocabulary.to_json(),
        "tokenizers": {"speech": "abc"},
        "window": dataclasses.asdict(language.window),
        "length": language.length,
    }
    save_model(directory, changes.get("kind", "language"), language.config, language.params, extra)


def use(monkeypatch, found, speech="abc") -> None:
    space = TokenSpace(found, ByteText(), {"speech": speech})
    monkeypatch.setattr(generation, "read_token_space", lambda tokenizers: space)


def test_a_saved_model_comes_back_and_makes_the_same(language, clip, monkeypatch, tmp_path):
    save(language, tmp_path)
    use(monkeypatch, VOCABULARY)
    loaded = load_language(tmp_path, "tokenizers")
    given = {"image": clip["image"]}
    left, right = (generate(m, given, "shape", FRAMES, seed=3)[0] for m in (language, loaded))
    np.testing.assert_array_equal(left, right)


def test_tokenizers_of_other_ranges_are_refused_with_both_shown(language, monkeypatch, tmp_path):
    save(language, tmp_path)
    other = vocabulary(SMALL | {"image": (1024,)})
    use(monkeypatch, other)
    with pytest.raises(InputError, match=rf"{VOCABULARY.total}.*{other.total}") as refused:
        load_language(tmp_path, "tokenizers")
    for part in ("image 259-770, speech 771-1282 in levels of 128 + 128", "image 259-1282, speech 1283-1794"):
        assert part in str(refused.value)


def test_tokenizers_of_the_same_ranges_but_other_weights_are_refused(language, monkeypatch, tmp_path):
    save(language, tmp_path)
    use(monkeypatch, VOCABULARY, speech="def")
    with pytest.raises(InputError, match="speech tokenizer abc, but tokenizers has def"):
        load_language(tmp_path, "tokenizers")


def test_another_kind_of_model_is_refused(language, tmp_path):
    save(language, tmp_path, kind="speech")
    with pytest.raises(InputError, match="kind 'speech', expected 'language'"):
        load_language(tmp_path, "tokenizers")


def test_the_vocabulary_is_computed_from_the_trained_tokenizers(monkeypatch):
    class Tokenizer:
        eos_id = 1

        def __init__(self, name):
            self.weights_sha256 = f"sha of {name}"
            self.codebook_sizes = PAPER_CODEBOOKS["semantics" if name == "semantic" else name]

    monkeypatch.setattr("models.tokenizers.load_tokenizer", lambda directory: Tokenizer(directory.name))
    space = generation.read_token_space("W/models")
    assert space.vocabulary.total == 546_944 and space.text.eos_id == 1
    assert space.weights["semantic"] == "sha of semantic" and len(space.weights) == 7
