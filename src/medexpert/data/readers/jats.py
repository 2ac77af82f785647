"""PMC open access articles in JATS XML -> Abstract and Document.

A file is one article (.nxml, .xml), a set of them (<pmc-articleset>) or an archive as PMC publishes
it (oa_*.tar.gz; zip), whose members are read in memory one after the other. Tables, figures,
formulas, references and citation marks are left out, each a counted change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.abstracts import Abstract, AbstractItem, document
from medexpert.data.readers.archives import xml_members
from medexpert.data.readers.rows import Change, Drop, Fault, Part, Reader, Row
from medexpert.data.readers.streams import open_stream
from medexpert.data.readers.xml_rows import removal, squeezed, text_in, xml_records
from medexpert.records import Document, UserError

_SUFFIXES = (".nxml", ".xml")
_single = xml_records("article", roots=("article", "pmc-articleset", "article-set"))
_CC = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)(?:/(\d\.\d))?", re.I)
_CC_WORDS = re.compile(r"\bCC[ -]?(BY(?:-(?:NC|ND|SA))*|0)\b", re.I)
_HOLLOW = re.compile(r"(?:\[[\s,;–—-]*\]|\([\s,;–—-]*\))")
_BEFORE = re.compile(r" +([,.;:])(?=\s|$)")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_NO_ARTICLE = {"retraction", "correction", "expression-of-concern", "addendum", "retracted-article"}
_DEEPEST = 4


# -- rows --------------------------------------------------------------------------------------


def rows(part: Part) -> Iterator[Row | Fault]:
    """Rows `{"xml": article element}` of a file or of an archive's .nxml and .xml members."""
    if not _is_archive(part.path):
        yield from _single(part)
        return
    yield from xml_members(part, _SUFFIXES)


def _is_archive(path: str) -> bool:
    """Told by content: a zip's magic, or a tar header's at byte 257, also inside gzip."""
    with open_stream(path) as stream:
        head = b""
        while len(head) < 512 and (data := stream.read(512)):
            head += data
    return head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar"


# -- articles ----------------------------------------------------------------------------------


def abstracts(where: str, row: Mapping[str, Any]) -> Iterator[AbstractItem]:
    """The article's abstract, or a Drop: no abstract, or a notice about another article."""
    found, removed = _abstract(row["xml"], where)
    if isinstance(found, Abstract) and not found.sections:
        found = Drop(found.id, "no_abstract")
    for kind, count in sorted(removed.items()):
        for _ in range(count):
            yield Change(found.id, kind)
    yield found


def articles(where: str, row: Mapping[str, Any]) -> Iterator[Document | Drop | Change]:
    """Title, abstract and body as one document; `##` marks a heading."""
    found, removed = _abstract(row["xml"], where)
    if isinstance(found, Drop):
        yield found
        return
    blocks: list[str] = []
    body = row["xml"].find("body")
    if body is not None:
        _body(body, 2, blocks, removed)
    start = document(found)
    text = "\n\n".join([*([start.text] if start.text else []), *blocks])
    for kind, count in sorted(removed.items()):
        for _ in range(count):
            yield Change(found.id, kind)
    if not found.sections and not blocks:
        yield Drop(found.id, "no_text")
        return
    yield Document(found.id, text, "", found.lang, start.title, found.licence, found.ids)


def _abstract(article: Any, where: str) -> tuple[Abstract | Drop, Counter[str]]:
    removed: Counter[str] = Counter()
    if article.tag != "article":
        raise UserError(f"element <article> is expected, not <{article.tag}>", where=where)
    meta = article.find("front/article-meta")
    if meta is None:
        raise UserError("element front/article-meta is missing", where=where)
    ids = _ids(meta)
    identifier = ids.get("pmcid") or ids.get("pmid") or ids.get("doi")
    if not identifier:
        raise UserError("no pmc, pmid or doi among its article-id elements", where=where)
    kind = article.get("article-type", "")
    if kind in _NO_ARTICLE:
        return Drop(identifier, f"article_type_{kind}"), removed
    return (
        Abstract(
            id=identifier,
            ids=ids,
            title=text_in(meta.find("title-group/article-title"), removed),
            sections=tuple(_sections(meta, removed)),
            licence=_licence(meta),
            lang=(article.get(_LANG) or "en")[:2].lower(),
            year=_year(meta),
        ),
        removed,
    )


def _ids(meta: Any) -> dict[str, str]:
    ids: dict[str, str] = {}
    for found in meta.iterfind("article-id"):
        kind, value = found.get("pub-id-type"), text_in(found)
        if not value:
            continue
        if kind == "pmid" and value.isdigit():
            ids["pmid"] = value
        elif kind in ("pmc", "pmcid", "pmcaid"):
            ids.setdefault("pmcid", "PMC" + value.removeprefix("PMC"))
        elif kind == "doi":
            ids["doi"] = value.lower()
    return ids


def _licence(meta: Any) -> str:
    """SPDX name of a Creative Commons licence; `open-access-other` for any other <license>."""
    licences = meta.findall("permissions/license")
    for licence in licences:
        links = [value for node in licence.iter() for value in (node.get(_XLINK), node.text)]
        for found in filter(None, map(_CC.search, filter(None, links))):
            version = f"-{found[3]}" if found[3] else ""
            if found[1].lower() == "publicdomain":
                return f"CC0{version}" if found[2].lower() == "zero" else "public domain"
            return f"CC-{found[2].upper()}{version}"
    for licence in licences:
        named = _CC_WORDS.search(f"{licence.get('license-type', '')} {text_in(licence)}")
        if named:
            return "CC0" if named[1] == "0" else f"CC-{named[1].upper()}"
    return "open-access-other" if licences else ""


def _year(meta: Any) -> str:
    years = [text_in(year) for year in meta.iterfind("pub-date/year")]
    return min((year for year in years if len(year) == 4 and year.isdigit()), default="")


def _sections(meta: Any, removed: Counter[str]) -> Iterator[tuple[str, str]]:
    """(label, text) of the main abstract: the first that is no graphical or lay summary."""
    for abstract in meta.iterfind("abstract"):
        if not abstract.get("abstract-type"):
            yield from _labelled(abstract, "", removed)
            return


def _labelled(element: Any, label: str, removed: Counter[str]) -> Iterator[tuple[str, str]]:
    texts: list[str] = []
    for child in element:
        if child.tag == "sec":
            title = text_in(child.find("title"), removed)
            joined = f"{label} > {title}" if label and title else title or label
            yield from _labelled(child, joined, removed)
        elif child.tag not in ("title", "label"):
            texts.extend(_paragraphs(child, removed))
    if texts:
        yield label, "\n".join(texts)


def _body(element: Any, level: int, blocks: list[str], removed: Counter[str]) -> None:
    for child in element:
        if child.tag == "sec":
            title = text_in(child.find("title"), removed)
            start = len(blocks)
            _body(child, min(level + 1, _DEEPEST), blocks, removed)
            # A heading whose section held only tables and figures would stand for nothing.
            if title and len(blocks) > start:
                blocks.insert(start, f"{'#' * level} {title}")
        elif child.tag not in ("title", "label", "sec-meta"):
            blocks.extend(_paragraphs(child, removed))


def _paragraphs(element: Any, removed: Counter[str]) -> Iterator[str]:
    """Texts of a block: a paragraph, the items of a list, the paragraphs inside a box."""
    if not isinstance(element.tag, str):
        return
    if kind := removal(element, element.tag):
        removed[kind] += 1
    elif element.tag == "list":
        for item in element.iterfind("list-item"):
            text = " ".join(text for block in item for text in _paragraphs(block, removed))
            if text:
                yield f"- {text}"
    elif element.tag in ("boxed-text", "disp-quote", "def-list", "def-item", "def", "statement"):
        for child in element:
            yield from _paragraphs(child, removed)
    elif text := _tidy(text_in(element, removed)):
        yield text


def _tidy(text: str) -> str:
    """Brackets that held only citation marks, and the blanks they leave behind, taken out."""
    if "[" in text or "(" in text:
        text = squeezed(_HOLLOW.sub("", text))
    if any(blank in text for blank in (" ,", " .", " ;", " :")):
        text = _BEFORE.sub(r"\1", text)
    return text


READERS: dict[str, Reader] = {"pmc_oa": Reader(rows, articles)}
