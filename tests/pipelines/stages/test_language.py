"""The language of texts, long and short."""

import pytest

from pipelines.stages.language import text_language
from pipelines.stages.transcript import UNDECIDED


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("If the weather stays fine we will take the children to the mountains on Sunday.", "en"),
        ("Wenn das Wetter schön bleibt, fahren wir am Sonntag mit den Kindern in die Berge.", "de"),
        ("今天早上的火车又晚点了，所以我沿着河边走到办公室。", "zh"),
        ("Если погода будет хорошей, в воскресенье мы поедем с детьми в горы.", "ru"),
        ("yes", UNDECIDED),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14", UNDECIDED),
        ("", UNDECIDED),
    ],
)
def test_the_language_of_a_text(text, language):
    found, shares = text_language(text)
    assert found == language
    if language != UNDECIDED:
        assert shares[language] > 0.5 and abs(sum(shares.values()) - 1) < 1e-3
