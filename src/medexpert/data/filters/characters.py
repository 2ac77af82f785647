"""Characters: Unicode form, line ends, controls, and text that was decoded wrongly.

Text in plain ASCII without a control character passes in a few microseconds.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_CONTROL_BYTES = bytes({*range(32), 127} - {9, 10})
# Controls, byte order mark, soft hyphen, zero-width space, bidirectional marks: signs without a
# shape. Joiners (U+200C, U+200D) stay: Indic scripts and Persian need them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_INVISIBLE = re.compile(r"[\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069]")
_BLANK = re.compile(r"[\xa0\u2000-\u200a\u202f\u205f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# UTF-8 read as Latin-1 or Windows-1252: a lead byte's character before a continuation byte's.
_MOJIBAKE = re.compile(
    r"[\u00c2-\u00c5\u00ce\u00cf][\u0080-\u00bf]|\u00e2\u20ac|\u00e2[\u0080\u0081]|\u00ef\u00bf\u00bd"
    r"|\u00f0\u0178|[\u00e3-\u00e9][\u0080-\u00bf]{2}|\u951f\u65a4\u62f7|\ufffd"
)
# UTF-8 read as GBK: what Chinese commas and full stops turn into; no one writes these characters.
_GBK = re.compile(r"[\u951b\u9286]")
# A text without any of these needs no more than NFC; the second has the signs of damage alone.
_SUSPECT = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\xc2-\xc5\xce\xcf\xe2-\xe9\xef\xf0\u2000-\u200b\u200e\u200f"
    r"\u2028-\u202f\u205f-\u2064\u2066-\u2069\u951b\u951f\u9286\ud800-\udfff\ufeff\ufffd-\uffff]"
)
_DAMAGE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xc2-\xc5\xce\xcf\xe2-\xe9\xef\xf0\u951b\u951f\u9286"
    r"\ud800-\udfff\ufeff\ufffd-\uffff]"
)
CONTROL_SHARE = 0.005
MOJIBAKE_SHARE = 0.002


def clean(text: str) -> str:
    """NFC, `\\n` line ends, plain blanks, no invisible signs or controls, no blank ends.

    Tab and newline stay. What can be decoded right without doubt is (:func:`repair`). Cleaning a
    clean text changes nothing.
    """
    if text.isascii():
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        raw = text.encode()
        plain = raw.translate(None, _CONTROL_BYTES)
        return (text if len(plain) == len(raw) else plain.decode()).strip()
    if _SUSPECT.search(text) is None:
        whole = unicodedata.is_normalized("NFC", text)
        return (text if whole else unicodedata.normalize("NFC", text)).strip()
    while True:  # a sign that goes can leave a wrong decoding or an accent behind that shows now
        before = text
        text = repair(_SURROGATE.sub("", text)).replace("\r\n", "\n").replace("\r", "\n")
        text = text.replace("\u2028", "\n").replace("\u2029", "\n")
        text = _INVISIBLE.sub("", _CONTROL.sub("", _BLANK.sub(" ", text)))
        text = unicodedata.normalize("NFC", text).strip()
        if text == before:
            return text


def repair(text: str) -> str:
    """Undo a wrong decoding (UTF-8 read as Latin-1, Windows-1252 or GBK) where that is certain.

    Certain: the bytes of the broken text are valid UTF-8, signs of damage become fewer, and no
    character is lost. Any other text is returned as it is.
    """
    if text.isascii() or _DAMAGE.search(text) is None:
        return text
    if len(_GBK.findall(text)) > 1:
        text = _from_gbk(text)
    if not _MOJIBAKE.search(text):
        return text
    from ftfy import fix_encoding

    fixed = text
    while True:  # text broken twice is mended twice; each pass must help, so this ends
        better = fix_encoding(fixed)
        if better.count("\ufffd") > fixed.count("\ufffd") or _signs(better) >= _signs(fixed):
            return fixed
        fixed = better


def _from_gbk(text: str) -> str:
    try:
        fixed = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return text
    return text if _GBK.search(fixed) else fixed


def _signs(text: str) -> int:
    return len(_MOJIBAKE.findall(text))


def damaged(text: str) -> str | None:
    """Reason when the characters themselves are broken. Looks at the text before cleaning."""
    if text.isascii():
        raw = text.encode()
        controls = len(raw) - len(raw.translate(None, _CONTROL_BYTES)) - text.count("\r")
        return "control_characters" if controls > max(2, CONTROL_SHARE * len(text)) else None
    if _DAMAGE.search(text) is None:
        return None
    fixed = repair(text)
    controls = len(_CONTROL.findall(fixed)) - fixed.count("\r") + len(_SURROGATE.findall(fixed))
    if controls > max(2, CONTROL_SHARE * len(text)):
        return "control_characters"
    broken = _signs(fixed) + len(_GBK.findall(fixed))
    return "mojibake" if broken > max(2, MOJIBAKE_SHARE * len(text)) else None


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
