"""The language of texts, long and short."""

import pytest

from pipelines.stages.language import NOT_ENGLISH, EnglishEvidence, phone_agreement, spoken_language, text_language
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


def test_sure_words_whose_phones_are_heard_are_english():
    # What PocketSphinx answers to an HDTF speaker, to Mandarin, and to five words of either.
    english = EnglishEvidence(words=24, posterior=-1.38, agreement=0.38, fit=-3.52)
    mandarin = EnglishEvidence(words=15, posterior=-1.87, agreement=0.326, fit=-4.02)
    assert spoken_language(english)[0] == "en" and spoken_language(english)[1] > 0.65
    assert spoken_language(mandarin)[0] == NOT_ENGLISH and 0.5 < spoken_language(mandarin)[1] < 0.6
    assert spoken_language(EnglishEvidence(4, -0.5, 0.9, -1.0)) == spoken_language(None) == (UNDECIDED, 0.0)
    between = EnglishEvidence(20, -1.6, 0.36, -4.3)
    assert spoken_language(between) == (UNDECIDED, 0.0)


def test_agreement_of_phones():
    assert phone_agreement("HH AH L OW".split(), "HH AH L OW".split()) == 1
    assert phone_agreement("HH AH L OW".split(), "HH AA L OW".split()) == 0.875  # alike: half an error
    assert phone_agreement("HH AH L OW".split(), "HH AH L".split()) == 0.75
    assert phone_agreement([], []) == phone_agreement(["B"], []) == phone_agreement(["B"], ["S"]) == 0
