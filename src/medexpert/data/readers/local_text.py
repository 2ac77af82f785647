"""Bytes of a user's text file -> text of known encoding, in pieces of bounded size.

The encoding is told, in this order, by a byte-order mark, by zeros in every other byte (UTF-16), by
strict UTF-8, and by charset-normalizer among the encodings medical text comes in.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from medexpert.data.readers.streams import CHUNK, Stream
from medexpert.records import UserError

INSTALL = "pip install 'medexpert[docs]'"
MAX_TEXT = 4 << 20  # characters of one document; a longer text comes in parts
_SAMPLE = 1 << 20
_BACK = 1 << 16  # characters from the bound within which a cut looks for a good place
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins alike
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_CANDIDATES = ["gb18030", "big5", "cp1252", "latin_1", "cp1250", "shift_jis", "euc_kr"]
_CONTROL = bytes(c for c in range(32) if c not in (0, 7, 8, 9, 10, 11, 12, 13, 26, 27))
_ENDS = ("\n\n", "\n", "。", "！", "？", ". ", "! ", "? ", "；", "; ", "，", " ")
# The 60 characters that make up about a quarter of modern Chinese text, in both scripts.
_COMMON = frozenset(
    "的一是不了在人有我他这这個这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多"
    "這來國個說們為時會過學對裡後麼種種發經現實與無於從將間問題應該體關藥療醫檢"
    "药疗医检病患者治用量日次症热痛血术周服剂给部性经发现实与无于从将间问题应该体关"
)


@dataclass(frozen=True)
class Encoding:
    """A codec's name and how many bytes of a byte-order mark come first."""

    name: str
    mark: int = 0


def encoding_of(sample: bytes, *, whole: bool) -> Encoding:
    """The encoding of a file by its first bytes; `whole`: the sample is all of it.

    A few broken bytes in UTF-8 leave it UTF-8. Raises UserError when there is no text in it.
    """
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return Encoding(name, len(mark))
    if (wide := _utf16(sample)) is not None:
        return Encoding(wide)
    control = len(sample) - len(sample.translate(None, _CONTROL))
    if control * 20 > len(sample):
        raise UserError("not a text (one byte in twenty is a control code)")
    good, bad = _utf8_share(sample, whole)
    if not bad or bad * 20 < good:
        return Encoding("utf-8")
    return Encoding(_guess(sample if whole else sample[: sample.rfind(b"\n") + 1 or len(sample)]))


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark: zeros in one half of the bytes, or in neither but valid Chinese."""
    head = sample[: 4096 & ~1]
    if len(head) < 4:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > half * 0.4 and even < half * 0.05:
        return "utf-16-le"
    if even > half * 0.4 and odd < half * 0.05:
        return "utf-16-be"
    if len(sample) % 2 == 0 and (even or odd):  # a blank or line end among Chinese characters
        for name in ("utf-16-le", "utf-16-be"):
            text = head.decode(name, "replace")
            if sum(c in _COMMON for c in text) > len(text) * 0.08:
                return name
    return None


def _utf8_share(sample: bytes, whole: bool) -> tuple[int, int]:
    """(characters beyond ASCII that are valid UTF-8, bytes that are not)."""
    try:
        text = codecs.getincrementaldecoder("utf-8")("strict").decode(sample, whole)
        return sum(not c.isascii() for c in text) if not text.isascii() else 0, 0
    except UnicodeDecodeError:
        text = sample.decode("utf-8", "surrogateescape")
    if not whole:
        text = text[:-3]  # a character cut by the end of the sample is no fault
    bad = sum("\udc80" <= c <= "\udcff" for c in text)
    return sum(not c.isascii() for c in text) - bad, bad


def _guess(sample: bytes) -> str:
    """The candidate under which a text reads best; Chinese ones are tried by their characters."""
    shares = {}
    for name in ("gb18030", "big5"):
        try:
            text = codecs.getincrementaldecoder(name)("strict").decode(sample)
        except UnicodeDecodeError:
            continue
        beyond = [c for c in text if not c.isascii()]
        shares[name] = sum(c in _COMMON for c in beyond) / max(len(beyond), 1)
    best = max(shares, key=lambda name: shares[name], default="")
    if best and shares[best] >= 0.08:
        return best
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise UserError(f"its encoding is not UTF-8; to find it out: {INSTALL}") from None
    found = from_bytes(sample[: 1 << 16], cp_isolation=_CANDIDATES, enable_fallback=False).best()
    name = found.encoding if found is not None else "cp1252"
    # Bytes 0x80-0x9f are control codes in Latin-1 and quotation marks in Windows-1252.
    return "cp1252" if name in ("latin_1", "cp1250") and _is_1252(sample) else name


def _is_1252(sample: bytes) -> bool:
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return not any("\x80" <= c <= "\x9f" for c in text)


def decoded(stream: Stream) -> Iterator[tuple[str, set[str]]]:
    """(text, what was altered) a chunk at a time: line ends are `\\n`, zeros are out.

    Alterations: `nul_bytes_removed`, `broken_bytes_replaced` (by U+FFFD). Raises UserError.
    """
    head = stream.read(CHUNK)
    rest = stream.read(CHUNK) if len(head) == CHUNK else b""
    while head and head.isascii() and b"\0" not in head and rest:  # ASCII tells nothing yet
        yield _lines(head.decode("ascii")), set()
        head, rest = rest, stream.read(CHUNK)
    encoding = encoding_of(head[:_SAMPLE], whole=not rest)
    decoder = codecs.getincrementaldecoder(encoding.name)("replace")
    head = head[encoding.mark :]
    while head:
        text = decoder.decode(head, not rest)
        changes = set()
        if "\0" in text:
            text = text.replace("\0", "")
            changes.add("nul_bytes_removed")
        if "\ufffd" in text:
            changes.add("broken_bytes_replaced")
        yield _lines(text), changes
        head, rest = rest, stream.read(CHUNK) if rest else b""


def _lines(text: str) -> str:
    """Line ends as `\\n`; a pair cut by two chunks gives a blank line at worst."""
    if "\r" not in text:
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def pieces(chunks: Iterable[str], limit: int = 0) -> Iterator[str]:
    """The text in pieces of at most `limit` characters (MAX_TEXT), cut at a paragraph, a line, a
    sentence or a blank near the bound; joined they are the text. A short text is one piece.
    """
    limit = limit or MAX_TEXT
    held = ""
    for chunk in chunks:
        held += chunk
        while len(held) > limit:
            at = _cut(held, limit)
            yield held[:at]
            held = held[at:]
    if held:
        yield held


def _cut(text: str, limit: int) -> int:
    start = max(limit - _BACK, limit // 2)
    for mark in _ENDS:
        at = text.rfind(mark, start, limit)
        if at >= 0:
            return at + len(mark)
    return limit


def decode_page(data: bytes) -> str:
    """An HTML page as text: byte-order mark, then what the page declares, then what it looks like.

    Raises UserError when it is no text.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace").replace("\0", "")
    told = re.search(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_\-]{2,20})", data[:4096])
    if told and _utf16(data) is None:
        try:
            name = codecs.lookup(told[1].decode("ascii")).name
            # Browsers read these as the larger set that contains them (WHATWG Encoding).
            name = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252"}.get(name, name)
            text = data.decode(name, "replace")
            if text.count("\ufffd") * 200 <= len(text):
                return text.replace("\0", "")
        except (LookupError, ValueError):
            pass  # an encoding that does not exist tells nothing; the bytes do
    encoding = encoding_of(data[:_SAMPLE], whole=len(data) <= _SAMPLE)
    return data[encoding.mark :].decode(encoding.name, "replace").replace("\0", "")
