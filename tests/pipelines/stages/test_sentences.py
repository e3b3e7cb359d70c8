import re

import numpy as np

from pipelines.stages.sentences import sentence


def test_sentences_are_many_and_repeat_with_the_seed():
    texts = [sentence(np.random.default_rng([1, k])) for k in range(400)]
    assert len(set(texts)) > 390
    assert texts[:20] == [sentence(np.random.default_rng([1, k])) for k in range(20)]
    for text in texts:
        assert re.fullmatch(r"[A-Z][A-Za-z ,]+\.", text) and 4 <= len(text.split()) <= 24


def test_a_generator_goes_on():
    rng = np.random.default_rng(0)
    assert len({sentence(rng) for _ in range(50)}) > 45
