"""Which language a text is in, and whether speech is English; both say how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.loading import load_once
from pipelines.stages.transcript import UNDECIDED

# Fewer letters tell nothing; less likely than this is not decided.
_FEWEST_LETTERS, _LEAST_SURE = 12, 0.5


@load_once(1)
def _identifier():
    from importlib.resources import files

    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(str(files("py3langid") / MODEL_FILE), norm_probs=True)


def text_language(text: str) -> tuple[str, dict[str, float]]:
    """Identifies a text's language by its letters (py3langid, after Lui and Baldwin, 2012; the model is in the wheel).

    Returns:
        ISO 639-1 code or UNDECIDED, and the probability of every language.
    """
    letters = sum(mark.isalpha() for mark in text)
    wide = sum(mark.isalpha() and ord(mark) > 0x2E7F for mark in text)  # a syllable or a word each
    if letters + 3 * wide < _FEWEST_LETTERS:
        return UNDECIDED, {}
    shares = {code: float(share) for code, share in _identifier().rank(text)}
    best = max(shares, key=shares.__getitem__)
    return (best if shares[best] >= _LEAST_SURE else UNDECIDED), shares


# --- Speech ---

NOT_ENGLISH = "not-en"  # speech of some other language: a recogniser of English cannot say which

# Below so many words nothing is said about the language; nor between these two probabilities, which were set on the
# first seconds of ten real clips (README): the rest between them is about even.
_FEWEST_WORDS = 5
_OTHER, _ENGLISH = 0.47, 0.55
# Of a logistic regression (bias, posterior, agreement, fit) on 29 sentences that espeak-ng speaks in 12 languages; no
# real speech was fitted on. tests/benchmarks/language.py has the sentences, fits anew (--fit) and makes the table.
_WEIGHTS = (2.987, 0.845, 9.205, 1.145)
# English phones that are taken for each other.
_ALIKE = (
    *("AA AO AH AW OW", "AE EH EY AY", "IH IY", "ER R", "UW UH W", "OY", "P B", "T D", "K G", "CH JH SH ZH", "S Z"),
    *("F V TH DH HH", "M N NG", "L", "Y"),
)
_CLASS = {phone: k for k, phones in enumerate(_ALIKE) for phone in phones.split()}


@dataclass(frozen=True)
class EnglishEvidence:
    """What an English recogniser's answer says about its language.

    Attributes:
        words: how many it heard. posterior: their mean log posterior probability.
        agreement: of the words' phones with what is heard when phones may follow in any order, 0..1.
        fit: acoustic log-likelihood of the words a frame of 10 ms, in the decoder's units.
    """

    words: int
    posterior: float
    agreement: float
    fit: float

    def probability(self) -> float:
        """That the speech is English, by logistic regression; 0.5 where there are too few words to tell."""
        if self.words < _FEWEST_WORDS:
            return 0.5
        bias, *weights = _WEIGHTS
        features = self.posterior, self.agreement, self.fit
        return 1 / (1 + math.exp(-bias - sum(w * feature for w, feature in zip(weights, features, strict=True))))


def spoken_language(evidence: EnglishEvidence | None) -> tuple[str, float]:
    """Returns ("en" or NOT_ENGLISH, its probability), or (UNDECIDED, 0) where the evidence does not tell."""
    share = 0.5 if evidence is None else evidence.probability()
    if share >= _ENGLISH:
        return "en", round(share, 4)
    return (NOT_ENGLISH, round(1 - share, 4)) if share <= _OTHER else (UNDECIDED, 0.0)


def phone_agreement(expected: Sequence[str], heard: Sequence[str]) -> float:
    """1 minus the edit distance over the length of the longer; phones that sound alike count half: 0..1."""
    longest = max(len(expected), len(heard))
    if not longest:
        return 0.0
    row = np.arange(len(heard) + 1, dtype=float)
    for k, phone in enumerate(expected, start=1):
        before, row = row, np.empty_like(row)
        row[0] = k
        for j, other in enumerate(heard, start=1):
            alike = _CLASS.get(phone, phone) == _CLASS.get(other, other)
            swap = before[j - 1] + (0.0 if phone == other else 0.5 if alike else 1.0)
            row[j] = min(swap, before[j] + 1, row[j - 1] + 1)
    return float(1 - row[-1] / longest)
