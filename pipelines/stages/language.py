"""Which language a text is in, and how sure that is."""

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
