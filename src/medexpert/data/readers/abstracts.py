"""A structured abstract as one record, whatever the file it came from.

The builders of stage 3 need its sections; the readers of stage 1 need it as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medexpert.data.readers.rows import (
    Change,
    Drop,
    Fault,
    Part,
    Row,
    fault,
    id_of,
    ids_of,
    jsonl,
    list_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.records import Document, UserError

_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_PMCID = re.compile(r"PMC\d+$")


@dataclass(frozen=True)
class Abstract:
    """Title and labelled sections of one article; `sections` are (label as printed, text).

    `ids` may hold pmid, pmcid and doi. An unlabelled abstract is one section with an empty label.
    """

    id: str
    ids: Mapping[str, str]
    title: str
    sections: tuple[tuple[str, str], ...]
    licence: str = ""
    lang: str = ""
    year: str = ""
    source: str = ""


AbstractItem = Abstract | Drop | Change
Convert = Callable[[str, Mapping[str, Any]], Iterable[AbstractItem]]


def decoded(text: str) -> str:
    """The text with HTML entities as characters."""
    return html.unescape(text) if "&" in text and _ENTITY.search(text) else text


def document(abstract: Abstract) -> Document:
    """Title, then a line for each section with text: `LABEL: text`."""
    blocks = []
    for label, text in abstract.sections:
        label, body = label.strip().rstrip(":.").strip(), text.strip()
        if body:
            blocks.append(f"{label.upper()}: {body}" if label else body)
    title = abstract.title.strip()
    return Document(
        id=abstract.id,
        text=titled("\n".join(blocks), title),
        title=title,
        ids=abstract.ids,
        source=abstract.source,
        lang=abstract.lang,
        licence=abstract.licence,
    )


def titled(text: str, title: str) -> str:
    """The text with the title as its first line, once.

    The title is part of what is learned; many files already open their text with it.
    """
    text = text.strip()
    return f"{title}\n{text}" if title and text and not text.startswith(title) else text


def documents_from(convert: Convert) -> Callable[..., Iterator[Document | Drop | Change]]:
    """The same conversion with each abstract rendered as a document."""

    def converted(where: str, row: Mapping[str, Any]) -> Iterator[Document | Drop | Change]:
        for item in convert(where, row):
            yield document(item) if isinstance(item, Abstract) else item

    return converted


def structured(where: str, row: Mapping[str, Any]) -> Iterator[AbstractItem]:
    """Rows `{id, title, sections: [{label, text}], pmid?, year?, license?, lang?, source?}`."""
    sections = []
    for position, raw in enumerate(list_of(row, "sections", where)):
        section = object_of(raw, f"sections[{position}]", where)
        sections.append((text_of(section, "label", where), text_of(section, "text", where)))
    identifier, ids = id_of(row, where), ids_of(row, where)
    if _PMCID.match(identifier):
        ids["pmcid"] = identifier
    yield Abstract(
        id=identifier,
        ids=ids,
        title=decoded(optional_text(row, "title", where)).strip(),
        sections=tuple(sections),
        licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
        lang=optional_text(row, "lang", where),
        year=str(row.get("year") or ""),
        source=optional_text(row, "source", where),
    )


def abstracts_of(
    rows: Callable[[Part], Iterator[Row | Fault]], convert: Convert
) -> Callable[[Part], Iterator[Abstract | Drop | Fault]]:
    """`part -> abstracts` from a source of rows and a conversion; what changed is not told."""

    def of(part: Part) -> Iterator[Abstract | Drop | Fault]:
        for found in rows(part):
            if isinstance(found, Fault):
                yield found
                continue
            where, row = found
            try:
                items = list(convert(where, row))
            except UserError as error:
                yield fault(error, where)
                continue
            yield from (item for item in items if not isinstance(item, Change))

    return of


ABSTRACT_READERS: dict[str, Callable[[Part], Iterator[Abstract | Drop | Fault]]]


def _abstract_readers() -> dict[str, Callable[[Part], Iterator[Abstract | Drop | Fault]]]:
    from medexpert.data.readers import jats, medline, rct

    return {
        "structured_abstracts": abstracts_of(jsonl, structured),
        "medline": abstracts_of(medline.rows, medline.convert),
        "pmc_oa": abstracts_of(jats.rows, jats.abstracts),
        "pubmed_rct": abstracts_of(rct.rows, rct.convert),
    }


def __getattr__(name: str) -> Any:
    # These modules import this one for `Abstract`, so the table is made when first asked for.
    if name == "ABSTRACT_READERS":
        return _abstract_readers()
    raise AttributeError(name)
