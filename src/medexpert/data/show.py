"""Records of a data file as a person reads them: wrapped, labelled, nothing a terminal obeys."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medexpert.data import opened
from medexpert.data.readers.rows import Fault
from medexpert.records import UserError

LONG_TEXT, LONG_CONTEXT = 1600, 400  # characters shown of a text and of one context
_BOLD, _RED, _GREEN, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
_WORD = re.compile(r"[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+")
_FIRST = ("title", "question", "QUESTION", "options", "contexts", "CONTEXTS", "messages")
_INDENT = "    "


def show(
    file: str | Path,
    *,
    start: int = 1,
    count: int = 10,
    width: int = 100,
    search: str = "",
    color: bool = False,
    full: bool = False,
) -> Iterator[str]:
    """Lines of `count` records (0 = all) from record number `start` on.

    `search` keeps the records that hold these words in this order, whatever their case. A row that
    cannot be read is shown as such, with file and line. Texts are shortened unless `full`. `width`
    counts terminal columns, a Chinese character as two. Raises UserError for a bad file or number.
    """
    if start < 1 or count < 0 or width < 20:
        raise UserError(
            f"start {start}, count {count}, width {width}",
            where="show",
            allowed="start from 1, count from 0 (all), width from 20",
        )
    wanted = " ".join(search.casefold().split())
    shown = 0
    number = 0
    for number, found in enumerate(opened.rows(file), 1):
        if number < start:
            continue
        if isinstance(found, Fault):
            if wanted:
                continue
            told = f"#{number}  cannot be read: {found.where}: {found.what}"
            lines = [_paint(line, _RED, color) for line in wrap(safe(told), width)]
        elif wanted and wanted not in _searchable(found[1]):
            continue
        else:
            lines = list(_record(number, found[1], width, color, full))
        yield from lines
        yield ""
        shown += 1
        if shown == count:
            return
    if not shown:
        what = f"no record holds {search!r}" if wanted else f"no record {start}"
        raise UserError(f"{what}; the file has {number}", where=str(file))


def _searchable(row: Mapping[str, Any]) -> str:
    return " ".join(" ".join(opened.texts(row)).casefold().split())


def _record(
    number: int, row: Mapping[str, Any], width: int, color: bool, full: bool
) -> Iterator[str]:
    facts = opened.facts(row)
    ids = " ".join(f"{scheme}={value}" for scheme, value in facts.ids.items())
    told = (facts.source, facts.kind, facts.template, facts.lang, facts.licence, ids)
    head = f"#{number}  {facts.id or '(no id)'}"
    yield _paint(_one_line(head, width), _BOLD, color)
    for line in wrap(safe(" · ".join(part for part in told if part)), width - 4):
        yield _paint(_INDENT + line, _DIM, color)
    if facts.reason:
        reason = " · ".join(x for x in (facts.reason, _text(row.get("where", ""))) if x)
        for line in wrap(safe("dropped: " + reason), width - 4):
            yield _paint(_INDENT + line, _RED, color)
    body = facts.body
    names = [name for name in _FIRST if name in body]
    names += [name for name in body if name not in names]
    if isinstance(body.get("options"), Mapping):  # the right one is marked there
        names = [name for name in names if name != "answer_idx"]
    for name in names:
        yield from _field(name, body, width, color, full)


def _field(
    name: str, body: Mapping[str, Any], width: int, color: bool, full: bool
) -> Iterator[str]:
    value = body[name]
    if value is None or value == "" or value == [] or value == {}:
        return
    if name == "messages" and isinstance(value, list):
        for turn in value:
            held = turn if isinstance(turn, Mapping) else {"content": turn}
            role = _text(held.get("role") or held.get("from") or "?")
            content = _text(held.get("content", held.get("value", "")))
            yield from _labelled(role, content, width, full)
    elif name == "options" and isinstance(value, Mapping):
        yield from _options(value, body, width, color)
    elif name.lower() in ("contexts", "snippets", "sections") and isinstance(value, list):
        for part in value:
            label = name.lower().removesuffix("s")
            if isinstance(part, Mapping):
                label = _text(part.get("label") or part.get("heading") or label)
                part = part.get("text", part)
            yield from _labelled(label, _text(part), width, full, LONG_CONTEXT)
    else:
        yield from _labelled(name, _text(value), width, full)


def _options(
    options: Mapping[str, Any], body: Mapping[str, Any], width: int, color: bool
) -> Iterator[str]:
    right = body.get("answer_idx", "")
    chosen = [one for one in right if isinstance(one, str)] if isinstance(right, str | list) else []
    for letter, text in options.items():
        is_right = letter in chosen or letter == right
        lines = wrap(safe(f"{letter}. {_text(text)}"), width - 6)
        for at, line in enumerate(lines):
            mark = "  * " if is_right and not at else _INDENT
            yield _paint(mark + ("  " if at else "") + line, _GREEN, color and is_right)


def _labelled(
    label: str, text: str, width: int, full: bool, most: int = LONG_TEXT
) -> Iterator[str]:
    cut = text if full or len(text) <= most else text[:most].rstrip()
    more = f" … ({len(text):,} characters)" if len(cut) < len(text) and cut != text else ""
    first = True
    for line in wrap(safe(f"{label}: {cut}{more}"), width - 4):
        yield (_INDENT if first else _INDENT + "  ") + line if line else ""
        first = False


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "(nested too deeply to show)"


def _paint(line: str, code: str, color: bool) -> str:
    return f"{code}{line}{_PLAIN}" if color and line else line


# -- text for a terminal -----------------------------------------------------------------------


def safe(text: str) -> str:
    r"""The text without anything a terminal acts on: other than newline, every control, format
    (direction marks too), surrogate, private and unassigned character is written as \x.., \u...."""
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(map(_shown, text))


@lru_cache(maxsize=1 << 16)
def _shown(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in (
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    ):  # fmt: skip
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


@lru_cache(maxsize=1 << 16)
def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def columns(text: str) -> int:
    """Terminal columns that a text without line breaks takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _one_line(text: str, width: int) -> str:
    return (wrap(safe(text.replace("\n", " ")), width) or [""])[0]


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at blanks and between Chinese characters.

    Line breaks in the text stay; a longer word is cut.
    """
    out: list[str] = []
    for paragraph in text.split("\n"):
        out.extend(_wrapped(paragraph, width))
    return out


def _wrapped(paragraph: str, width: int) -> Iterator[str]:
    line, used = "", 0
    for piece in _pieces(paragraph, width):
        size = columns(piece)
        if used + size > width:
            if line.strip():
                yield line.rstrip()
            line, used = "", 0
            if piece.isspace():
                continue
        line, used = line + piece, used + size
    yield line.rstrip()


def _pieces(text: str, width: int) -> Iterator[str]:
    """Blanks, words and single Chinese characters; words longer than a line in parts."""
    at = 0
    while at < len(text):
        word = _WORD.match(text, at)
        end = word.end() if word else at + 1
        if not word and text[at].isspace():
            while end < len(text) and text[end].isspace():
                end += 1
            yield text[at:end][:width]
            at = end
            continue
        piece = text[at:end]
        at = end
        while columns(piece) > width:
            keep = 1
            while keep < len(piece) and columns(piece[: keep + 1]) <= width and keep < width:
                keep += 1
            yield piece[:keep]
            piece = piece[keep:]
        if piece:
            yield piece
