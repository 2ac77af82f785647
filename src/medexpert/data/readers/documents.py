"""Stage-1 rows of JSON -> Document; `source` is the collection inside the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from medexpert.data.readers.abstracts import decoded, documents_from, structured, titled
from medexpert.data.readers.rows import (
    Change,
    Reader,
    id_of,
    ids_of,
    jsonl,
    optional_text,
    text_of,
)
from medexpert.records import Document

_TRUNCATED = re.compile(r"\s*\(?ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)?\s*$")
_PMCID = re.compile(r"PMC\d+$")
_TCM_MARKS = re.compile(r"\\x|<(?:目录|篇名)>")
_TCM_ENDS = "。！？；：」』”》）"
_TCM_WRAP = 30  # characters; a shorter line is a heading or a list item, not a wrapped line

Converted = Iterable[Document | Change]


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


def _abstract_text(text: str) -> str:
    text = decoded(text)
    return _TRUNCATED.sub("", text) if "ABSTRACT TRUNCATED" in text[-60:] else text


def _converter(
    tidy: Callable[[str], str] | None = None, change: str = ""
) -> Callable[[str, Mapping[str, Any]], Converted]:
    def convert(where: str, row: Mapping[str, Any]) -> Iterator[Document | Change]:
        identifier, text = id_of(row, where), text_of(row, "text", where)
        if tidy is not None:
            tidied = tidy(text)
            if tidied != text:
                yield Change(identifier, change)
                text = tidied
        ids = ids_of(row, where)
        if identifier.startswith("PMC") and _PMCID.match(identifier):
            ids["pmcid"] = identifier
        title = decoded(optional_text(row, "title", where)).strip()
        yield Document(
            id=identifier,
            text=titled(text, title),
            title=title,
            ids=ids,
            source=optional_text(row, "source", where),
            lang=optional_text(row, "lang", where),
            licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
        )

    return convert


READERS: dict[str, Reader] = {
    # Rows {id, text, title?, license?, source?, lang?, pmid?}.
    "documents": Reader(jsonl, _converter(), unique=("pmid",)),
    # The same, with HTML entities decoded and MEDLINE's truncation mark removed.
    "pubmed_abstracts": Reader(
        jsonl, _converter(_abstract_text, "entities_or_truncation_mark"), unique=("pmid",)
    ),
    # The same, for hard-wrapped transcriptions: marks out, wrapped lines joined.
    "tcm_classics": Reader(jsonl, _converter(unwrap, "unwrapped"), unique=("pmid",)),
    # Rows whose text is `sections: [{label, text}]`; a label becomes `LABEL: text`.
    "structured_abstracts": Reader(jsonl, documents_from(structured), unique=("pmid",)),
}
