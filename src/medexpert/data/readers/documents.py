"""Stage-1 formats -> Document; `source` is the collection inside the file."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexpert.data.readers.rows import (
    Change,
    Item,
    Unique,
    id_of,
    ids_of,
    jsonl,
    list_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.records import Document

_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_TRUNCATED = re.compile(r"\s*\(?ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)?\s*$")
_PMCID = re.compile(r"PMC\d+$")
_TCM_MARKS = re.compile(r"\\x|<(?:目录|篇名)>")
_TCM_ENDS = "。！？；：」』”》）"
_TCM_WRAP = 30  # characters; a shorter line is a heading or a list item, not a wrapped line


def documents(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows `{id, text, title?, license?, source?, lang?, pmid?}`."""
    yield from _documents(paths, lambda text: text, "")


def pubmed_abstracts(paths: Sequence[Path]) -> Iterator[Item]:
    """As `documents`, with HTML entities decoded and MEDLINE's truncation mark removed."""
    yield from _documents(
        paths, lambda text: _TRUNCATED.sub("", _decode(text)), "entities_or_truncation_mark"
    )


def tcm_classics(paths: Sequence[Path]) -> Iterator[Item]:
    """As `documents`, for hard-wrapped transcriptions: marks out, wrapped lines joined."""
    yield from _documents(paths, unwrap, "unwrapped")


def structured_abstracts(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows whose text is `sections: [{label, text}]`; a label becomes `LABEL: text`."""
    for where, row, unique in _rows(paths):
        blocks = []
        for position, raw in enumerate(list_of(row, "sections", where)):
            section = object_of(raw, f"sections[{position}]", where)
            label = text_of(section, "label", where).strip().rstrip(":.").strip()
            body = text_of(section, "text", where).strip()
            if body:
                blocks.append(f"{label.upper()}: {body}" if label else body)
        yield _document(row, "\n".join(blocks), where, unique)


def _documents(paths: Sequence[Path], tidy: Any, change: str) -> Iterator[Item]:
    for where, row, unique in _rows(paths):
        text = text_of(row, "text", where)
        tidied = tidy(text)
        if tidied != text:
            yield Change(id_of(row, where), change)
        yield _document(row, tidied, where, unique)


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any], tuple[Unique, Unique]]]:
    unique = Unique("id"), Unique("PMID")
    for path in paths:
        for where, row in jsonl(path):
            yield where, row, unique


def _document(
    row: Mapping[str, Any], text: str, where: str, unique: tuple[Unique, Unique]
) -> Document:
    identifier, ids = id_of(row, where), ids_of(row, where)
    unique[0].check(identifier, where)
    if "pmid" in ids:
        unique[1].check(ids["pmid"], where)
    if _PMCID.match(identifier):
        ids["pmcid"] = identifier
    title = _decode(optional_text(row, "title", where)).strip()
    text = text.strip()
    # The title is part of what is learned; many files already open their text with it.
    if title and text and not text.startswith(title):
        text = f"{title}\n{text}"
    return Document(
        id=identifier,
        text=text,
        title=title,
        ids=ids,
        source=optional_text(row, "source", where),
        lang=optional_text(row, "lang", where),
        licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
    )


def _decode(text: str) -> str:
    return html.unescape(text) if _ENTITY.search(text) else text


def unwrap(text: str) -> str:
    """Join lines broken by width only: a long line that ends inside a sentence goes on."""
    lines = [line.strip() for line in _TCM_MARKS.sub("", text).split("\n")]
    joined: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on and line:
            joined[-1] += line
        else:
            joined.append(line)
        goes_on = len(line) >= _TCM_WRAP and line[-1] not in _TCM_ENDS
    return re.sub(r"\n{3,}", "\n\n", "\n".join(joined)).strip()
