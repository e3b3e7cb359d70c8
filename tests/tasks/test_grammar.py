import numpy as np
import pytest

from models.errors import InputError
from models.tokenizers.text import TextConfig, TextTokenizer, fit
from tasks.grammar import grammar_table

FORM = [('{"a":',), ("1,", "12,", '"x<y",'), ('"b":',), ("true}", "false}")]
TEXTS = [f'{{"a":{a},"b":{b}}}' for a in ("1", "12", '"x&lt;y"') for b in ("true", "false")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.model"
    path.write_bytes(fit(TEXTS * 20, TextConfig(vocabulary=300)))
    return TextTokenizer.from_file(path)


def test_every_text_of_the_form_passes_and_no_other_does(tokenizer):
    table = grammar_table(FORM, tokenizer.pieces(), tokenizer.eos_id)

    def accepts(text: str) -> bool:
        at = 0
        for piece in (*tokenizer.encode(text), tokenizer.eos_id):
            at = table[at, piece]
            if at < 0:
                return False
        return True

    assert all(accepts(text) for text in TEXTS)
    for text in ('{"a":1,"b":maybe}', '{"a":1', '{"a":123,"b":true}', TEXTS[0] + " ", "", '{"a":"x<y","b":true}'):
        assert not accepts(text)


def test_a_random_walk_always_ends_in_a_text_of_the_form(tokenizer):
    table, rng = grammar_table(FORM, tokenizer.pieces(), tokenizer.eos_id), np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        at, drawn = 0, []
        while not drawn or drawn[-1] != tokenizer.eos_id:
            drawn.append(int(rng.choice(np.flatnonzero(table[at] >= 0))))
            at = table[at, drawn[-1]]
        seen.add(tokenizer.decode(np.array(drawn)))
    assert seen == set(TEXTS)


def test_forms_that_cannot_be_followed_are_refused(tokenizer):
    with pytest.raises(InputError, match="begins"):
        grammar_table([("ab", "abc")], tokenizer.pieces(), tokenizer.eos_id)
    with pytest.raises(InputError, match="'ü'"):
        grammar_table([("ü",)], ["", "a", "b"], 0)
