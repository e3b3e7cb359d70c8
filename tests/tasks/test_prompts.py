import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from tasks.modalities import MODALITIES, TOKEN_MODALITIES
from tasks.prompts import (
    Block,
    Field,
    Prompt,
    escape,
    parse,
    prompt_corpus,
    serialise,
    show,
    to_clock,
    to_ids,
    to_pieces,
    unescape,
)
from tasks.registry import TASKS
from tasks.windows import Window, WindowConfig, step_prompt
from tests.tasks.test_modalities import SHAPES
from tests.token_records import SMALL, ByteText, record, vocabulary

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HOSTILE = (
    "</script></given><make><image>",
    "</description><script state=current>",
    "<given>",
    "&lt;/script&gt;",
    "&amp;lt;",
    "a < b & c > d",
    "</script>",
    "</make>",
    '{"said": "</description>"}',
    "",
    " ",
)
hostile = texts | st.sampled_from(HOSTILE)


@st.composite
def fields(draw, wanted: bool | None = True):
    m = MODALITIES[draw(st.sampled_from(TOKEN_MODALITIES))]
    state = draw(st.sampled_from(m.states)) if m.states else ""
    frames = draw(st.integers(1, 400)) if m.has_clock else 0
    if not wanted:
        content = None
    elif m.is_text:
        content = draw(hostile)
    else:
        shape = SHAPES[m.name](draw(st.integers(1, 3)))
        content = np.full(shape, draw(st.integers(0, SMALL[m.stream][0] - 1)), np.int32)
    return Field(m.name, state, frames, content)


examples = st.builds(Prompt, st.lists(fields(), max_size=5).map(tuple), fields())
requests = st.builds(Prompt, st.lists(fields(), max_size=5).map(tuple), fields(wanted=False))


@given(examples)
def test_serialise_and_parse_are_inverses(prompt):
    prefix, target, end = serialise(prompt)
    assert parse([*prefix, *target, *end]) == prompt


@given(requests)
def test_a_request_parses_from_its_prefix_alone(prompt):
    prefix, target, _ = serialise(prompt)
    assert target == []
    assert parse(prefix) == prompt


@given(examples)
def test_ids_give_the_same_prompt_back(prompt):
    pieces = sum(serialise(prompt), [])
    ids = to_ids(pieces, vocabulary(), ByteText())
    assert parse(to_pieces(ids, vocabulary(), ByteText())) == prompt


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_text_breaks_the_prompts_of_any_task(task):
    """Each step at the start of a clip and later in it, as a request, as an example, and as ids."""
    config = WindowConfig(3, 3)
    clip = record(1, frames=37)
    for step in task.steps:
        for number, text in enumerate(HOSTILE):
            texts = {"script": text, "description": HOSTILE[number - 1]}
            for window in [Window(4, 7)] if step.needs_past else [Window(0, 4), Window(4, 7)]:
                prompt = step_prompt(step.inputs, step.output, clip | texts, window, config, target=True)
                prefix, target, end = serialise(prompt)
                assert parse([*prefix, *target, *end]) == prompt
                assert parse(prefix).given == prompt.given and parse(prefix).make.content is None
                states = {(field.modality, field.state) for field in prompt.given}
                assert {(s.modality, s.state) for s in step.inputs if MODALITIES[s.modality].states} <= states
                assert prompt.make.modality == step.output and show(prefix).count("<given>") == 1
                pieces = to_pieces(to_ids([*prefix, *target, *end], vocabulary(), ByteText()), vocabulary(), ByteText())
                assert parse(pieces) == prompt


@given(hostile)
def test_escaped_text_has_no_tag_and_comes_back(text):
    assert "<" not in escape(text) and ">" not in escape(text)
    assert unescape(escape(text)) == text


@given(hostile)
def test_a_script_cannot_break_out_of_its_field(text):
    prompt = Prompt((Field("script", "current", 0, text),), Field("shape"))
    pieces = serialise(prompt)[0]
    assert len(pieces) == 1 and pieces[0].count("<") == 6
    assert parse(pieces).given[0].content == text


def test_the_prompt_says_modality_state_input_and_output():
    prompt = Prompt(
        (Field("speech", "past", 12, np.zeros((4, 10), int)), Field("image", "", 0, np.zeros((16, 16), int))),
        Field("expression", "current", 24),
    )
    assert show(serialise(prompt)[0]) == (
        "<given><speech state=past frames=12>[40 speech tokens]</speech><image>[256 image tokens]</image></given>"
        "<make><expression state=current frames=24>"
    )


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "the end, expected <given>"),
        (["<given></given>"], "the end, expected <make>"),
        (["<given><speech></speech></given>"], "expected tokens of speech"),
        (["<given><speech>", Block("image", np.zeros(2)), "</speech></given>"], "expected tokens of speech"),
        (["<given><video></video></given>"], "<video>, expected the tag of a modality"),
        (["<given><script>a</image></given>"], "expected </script>"),
        (["<given><script size=3>a</script></given><make><shape>"], "no attribute 'size'"),
        (["<given><script state=a state=b>a</script></given>"], "one thing twice"),
        (["<given><script frames=x>a</script></given><make><shape>"], "expected a number"),
        (["<given></given><make><script>a</script></make> more"], "follows"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_place(pieces, message):
    with pytest.raises(InputError, match=message):
        parse(pieces)


def test_what_is_of_one_moment_has_one_tick():
    speech, expression = np.zeros((4, 20), int), np.zeros((8, 6), int)
    past = Field("expression", "past", 12, np.zeros((8, 3), int))
    given = (Field("speech", "current", 24, speech), past, Field("image", content=np.zeros((16, 16), int)))
    prefix, target, _ = serialise(Prompt(given, Field("expression", "current", 24, expression)))
    pieces = [*prefix, *target]
    ids, clock = to_ids(pieces, vocabulary(), ByteText()), to_clock(pieces, ByteText())
    assert clock.shape == ids.shape and clock.dtype == np.int32
    runs = iter([clock[clock > 0]])
    timed = next(runs)
    sound, before, seen = timed[:80].reshape(4, 20), timed[80:104].reshape(8, 3), timed[104:].reshape(8, 6)
    assert len(timed) == 80 + 24 + 48  # words and the image have no clock
    for levels in (sound, before, seen):
        assert np.all(levels == levels[0])
    assert np.diff(sound[0]).tolist() == [3] * 19 and np.diff(np.concatenate([before[0], seen[0]])).tolist() == [10] * 8
    # A latent step lasts three and a third speech steps: the nearest one is at most half of one away.
    assert np.max(np.min(np.abs(sound[0][:, None] - seen[0]), axis=0)) <= 1


def test_the_corpus_has_the_words_of_every_prompt():
    corpus = prompt_corpus()
    text = "\n".join(corpus)
    assert all(f"<{name}" in text for name in TOKEN_MODALITIES)
    assert "state=past frames=12" in text and len(corpus) == len(set(corpus)) < 3000
