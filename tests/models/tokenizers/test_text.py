"""The text tokenizer loses nothing and is deterministic."""

import pytest

from models.errors import InputError
from models.tokenizers import load_tokenizer, text

LINES = [
    '{"age": "adult", "hair": "dark, short", "clothes": "blue shirt"}',
    "The quick brown fox jumps over the lazy dog.",
    "<speech state=current frames=24>\n</speech>",
] * 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text")
    config = text.TextConfig(vocabulary=400)
    text.save(directory, text.fit(LINES, config), config)
    return load_tokenizer(directory)


@pytest.mark.parametrize(
    "line",
    [*LINES[:3], "", "  two  spaces \n and a line\t", "naïve — 你好 🎬", "<x>", "1234567", " leading"],
)
def test_round_trip(tokenizer, line):
    ids = tokenizer.encode(line)
    assert ids.dtype == "int32" and (ids > text.UNKNOWN).all() and (ids < tokenizer.codebook_sizes[0]).all()
    assert tokenizer.decode(ids) == line


def test_the_corpus_is_shorter_than_its_bytes(tokenizer):
    assert len(tokenizer.encode(LINES[1])) < 0.6 * len(LINES[1])
    assert tokenizer.codebook_sizes[0] <= 400 and tokenizer.eos_id == text.EOS


def test_same_lines_same_model_and_plain_files(tmp_path):
    config = text.TextConfig(vocabulary=350)
    model = text.fit(LINES, config)
    assert model == text.fit(LINES, config)
    (tmp_path / "m.model").write_bytes(model)
    plain = text.TextTokenizer.from_file(tmp_path / "m.model")
    assert plain.decode(plain.encode("a fox")) == "a fox"


def test_no_text_is_an_input_error():
    with pytest.raises(InputError, match="no text"):
        text.fit(["", "  "], text.TextConfig())
