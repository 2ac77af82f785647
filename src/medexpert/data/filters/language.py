"""The language of a document, judged once, on a sample of its characters.

Chinese, Japanese and Korean are told by their scripts and plain English by its function words,
which is quick and sure for classical Chinese, where statistical models of modern text are not.
Everything else goes to py3langid's model (Lui and Baldwin 2012, langid.py).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

SAMPLE = 600  # characters; py3langid takes about 0.2 ms for them
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3041-\u30fa]")
_HANGUL = re.compile(r"[\uac00-\ud7af]")
_ENGLISH_WORDS = (
    "the of and to in that is was for with as on are by be this were from at or an which have has "
    "had not but it their they we been can may these you your if more than when who"
)
ENGLISH = frozenset(_ENGLISH_WORDS.split())
_ENGLISH_SHARE = 0.15  # English prose has 0.3 to 0.5; other languages share few of these words


def sample(text: str, size: int = SAMPLE) -> str:
    """Three pieces, from the start, the middle and the end; the whole of a short text."""
    if len(text) <= size:
        return text
    piece = size // 3
    middle = (len(text) - piece) // 2
    return f"{text[:piece]} {text[middle : middle + piece]} {text[-piece:]}"


def language(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, probability) of a text; ("", 0.0) where two scripts mix."""
    part = sample(text)
    if not part.isascii():
        han, kana, hangul = (len(s.findall(part)) for s in (_HAN, _KANA, _HANGUL))
        if kana > 0.25 * (han + kana):  # a Chinese text that names Japanese works has less
            return ("ja", 1.0) if han + kana > 0.2 * len(part) else ("", 0.0)
        if hangul > 0.2 * len(part):
            return "ko", 1.0
        if han > 0.3 * len(part):
            return "zh", 1.0
        if han > 0.05 * len(part):
            return "", 0.0  # Chinese with much Latin in it, or the reverse
    words = part.lower().split()
    if sum(word in ENGLISH for word in words) > _ENGLISH_SHARE * len(words):
        return "en", 1.0
    name, probability = _model().classify(part)
    return str(name), float(probability)


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_reason(
    text: str, languages: tuple[str, ...], *, confidence: float, min_chars: int
) -> str | None:
    """`language_<code>` when the text is surely in none of `languages`; empty = all are wanted."""
    if not languages or len(text) < min_chars:
        return None
    name, probability = language(text)
    if not name or name in languages or probability < confidence:
        return None
    # An abstract printed in two languages has a part in one that is wanted.
    parts = (text[:SAMPLE], text[-SAMPLE:]) if len(text) > SAMPLE else ()
    if any(language(part)[0] in languages for part in parts):
        return None
    return f"language_{name}"
