import dataclasses

import pytest

from infra.presets.language import PAPER
from infra.training.language_job import model_config, paper_vocabulary
from models.language_flops import step_flops
from models.language_model import LanguageModelConfig

TOY = LanguageModelConfig(
    text=10, image=20, levels=(4, 8), width=6, layers=2, heads=2, kv_heads=1, head_width=4, hidden=5, image_width=6
)


def test_a_toy_counted_by_hand():
    flops = step_flops(TOY, length=3, wide=1)
    # Query and out 6 x 2 x 4, key and value 6 x 1 x 4, gate, up and down 6 x 5; 6 operations a weight and position.
    assert flops.body == 6 * 3 * 2 * (2 * 48 + 2 * 24 + 3 * 30)
    # Scores and mix: 2 x 2 operations for each of 9 pairs, 2 heads of 4 and 2 layers; three passes; half the square.
    assert flops.attention == 4 * 9 * 8 * 2 * 3 / 2
    assert flops.head == 6 * (1 * 20 * 6 + 2 * 8 * 6)
    assert flops.full_softmax == 6 * 3 * (10 + 20 + 12) * 6
    assert flops.model == flops.body + flops.attention + flops.head
    assert flops.again == flops.head / 3
    remat = step_flops(dataclasses.replace(TOY, remat=True), length=3, wide=1)
    assert remat.again == pytest.approx(flops.again + (flops.body + flops.attention) / 3)


def test_narrow_image_rows_cost_their_projection():
    narrow = dataclasses.replace(TOY, image_width=2)
    assert step_flops(narrow, 3, wide=3).head == 6 * 3 * max(10 * 6, 20 * 2 + 2 * 6)


def test_the_papers_head_is_at_most_a_tenth_of_the_step():
    flops = step_flops(model_config(PAPER, paper_vocabulary()), PAPER.length, PAPER.wide)
    assert flops.head_share <= 0.10
    assert 0.42 < flops.full_softmax_share < 0.46
    assert 70e12 < flops.model < 80e12
