"""Text in, cleaned text out; Document in, `None` (keep) or the reason to drop it out.

Thresholds are our own, set so that each drops damage rather than style; the data card counts them.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable
from typing import Any

from medexpert.records import Document, Example

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# UTF-8 read as Latin-1 or CP1252: a lead byte's character followed by continuation characters.
_MOJIBAKE = re.compile(
    r"[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd|\u951f\u65a4\u62f7|\ufffd"
)
# The one kind that can be undone without doubt: UTF-8's general punctuation read as Latin-1.
_PUNCTUATION = re.compile(r"\u00e2[\u0080\u0081][\u0080-\u00bf]")
CONTROL_SHARE = 0.005
MOJIBAKE_SHARE = 0.002
COMPRESSED_SHARE = 0.10  # plain prose stays above 0.3; one sentence repeated falls below 0.05
REPEATED_LINES = 0.5
_LONG_ENOUGH = 1000  # bytes; below, zlib's header blurs the ratio


def clean(text: str) -> str:
    """NFC, `\\n` line ends, no control characters other than tab and newline, no blank ends."""
    text = repair(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = unicodedata.normalize("NFC", _SURROGATE.sub("", text))
    return _CONTROL.sub("", text).strip()


def repair(text: str) -> str:
    """Undo UTF-8 punctuation that was read as Latin-1 (quotes, dashes)."""
    return _PUNCTUATION.sub(lambda m: m.group().encode("latin-1").decode("utf-8"), text)


def clean_value(value: Any) -> Any:
    """`clean` on each string inside lists and objects."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {key: clean_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_value(item) for item in value]
    return value


def strings(value: Any) -> list[str]:
    """Every string inside lists and objects, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in strings(item)]
    return []


def damaged(text: str) -> str | None:
    """Reason when the characters themselves are broken. Looks at the text before cleaning."""
    text = repair(text)
    controls = len(_CONTROL.findall(text.replace("\r", ""))) + len(_SURROGATE.findall(text))
    if controls > max(2, CONTROL_SHARE * len(text)):
        return "control_characters"
    if not text.isascii() and len(_MOJIBAKE.findall(text)) > max(2, MOJIBAKE_SHARE * len(text)):
        return "mojibake"
    return None


def repetitive(text: str) -> bool:
    """Whether half of the text is repeated lines, or it compresses as only repeated text does."""
    raw = text.encode("utf-8")
    if len(raw) < _LONG_ENOUGH:
        return False
    if len(zlib.compress(raw, 1)) < COMPRESSED_SHARE * len(raw):
        return True
    lines = [line.strip() for line in text.split("\n") if len(line.strip()) > 15]
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    return len(lines) >= 4 and repeated > REPEATED_LINES * len(text)


def _damaged(document: Document, min_chars: int) -> str | None:
    return damaged(document.text)


def _empty(document: Document, min_chars: int) -> str | None:
    return None if document.text.strip() else "empty"


def _too_short(document: Document, min_chars: int) -> str | None:
    return "too_short" if len(document.text) < min_chars else None


def _repetition(document: Document, min_chars: int) -> str | None:
    return "repetition" if repetitive(document.text) else None


FILTERS: tuple[Callable[[Document, int], str | None], ...] = (
    _empty,
    _damaged,
    _too_short,
    _repetition,
)


def document_reason(document: Document, *, min_chars: int) -> str | None:
    """The first filter's reason to drop, or None to keep."""
    for check in FILTERS:
        reason = check(document, min_chars)
        if reason is not None:
            return reason
    return None


def example_reason(example: Example) -> str | None:
    """As for documents, without a least length: a short answer can be a good one."""
    for text in strings(example.fields):
        reason = damaged(text)
        if reason is not None:
            return reason
        if repetitive(text):
            return "repetition"
    return None
