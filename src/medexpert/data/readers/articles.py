"""Full articles, textbooks, guidelines and web text in their published rows -> Document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from medexpert.data.readers.abstracts import titled
from medexpert.data.readers.examples import name_of, numbered
from medexpert.data.readers.rows import (
    Drop,
    Fault,
    Part,
    Reader,
    Row,
    id_of,
    ids_of,
    jsonl,
    kind_of,
    list_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.data.readers.streams import lines
from medexpert.data.readers.tables import parquet_rows
from medexpert.records import Document, UserError

PASSAGE = 20_000  # characters after which a plain text is cut at the next paragraph
_WIKI_LANG = re.compile(r"https?://([a-z-]{2,12})\.(?:m\.)?wikipedia\.org/")
_LINE = re.compile(r":\d+$")

Converted = Iterator[Document | Drop]


def pmc_fulltext(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows `{id, pmid?, title, sections: [{heading, text}], license, ...}`."""
    blocks = []
    for position, raw in enumerate(list_of(row, "sections", where)):
        section = object_of(raw, f"sections[{position}]", where)
        heading = text_of(section, "heading", where).strip()
        body = text_of(section, "text", where).strip()
        if body:
            blocks.append(f"## {heading}\n{body}" if heading else body)
    identifier, ids = id_of(row, where), ids_of(row, where)
    if re.fullmatch(r"PMC\d+", identifier):
        ids["pmcid"] = identifier
    yield _made(row, where, identifier, "\n\n".join(blocks), ids)


def _made(
    row: Mapping[str, Any], where: str, identifier: str, text: str, ids: Mapping[str, str]
) -> Document:
    title = optional_text(row, "title", where).strip()
    return Document(
        id=identifier,
        text=titled(text, title),
        title=title,
        ids=ids,
        source=optional_text(row, "source", where),
        lang=optional_text(row, "lang", where),
        licence=optional_text(row, "license", where),
    )


# -- S2ORC -------------------------------------------------------------------------------------


def s2orc(where: str, row: Mapping[str, Any]) -> Converted:
    """Both published forms: `{paper_id, title, abstract, body_text}` and `{corpusid, content}`.

    The id is `s2orc-NUMBER`: bare digits would be taken for a PMID.
    """
    if "corpusid" in row:
        yield _s2orc_spans(where, row)
    else:
        yield _s2orc_blocks(where, row)


def _s2orc_blocks(where: str, row: Mapping[str, Any]) -> Document | Drop:
    number = id_of({"paper_id": _number_text(row, "paper_id")}, where, "paper_id")
    identifier = f"s2orc-{number}"
    about = row.get("metadata") if isinstance(row.get("metadata"), dict) else row
    assert isinstance(about, Mapping)
    abstract = row.get("abstract")
    texts = [abstract.strip()] if isinstance(abstract, str) else _blocks(row, "abstract", where)
    texts = [*filter(None, texts), *_blocks(row, "body_text", where)]
    if not texts:
        return Drop(identifier, "no_text")
    ids = {"s2orc": number}
    for name, scheme in (("pubmed_id", "pmid"), ("pmcid", "pmcid"), ("pmc_id", "pmcid"),
                         ("doi", "doi")):  # fmt: skip
        value = _number_text(about, name) or _number_text(row, name)
        if value:
            ids.setdefault(scheme, _scheme(scheme, value))
    title = (optional_text(row, "title", where) or optional_text(about, "title", where)).strip()
    return Document(identifier, titled("\n\n".join(texts), title), "", "", title, "", ids)


def _blocks(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """Paragraphs, each section's heading before its first one."""
    if row.get(name) is None:
        return []
    texts = []
    last = ""
    for position, raw in enumerate(list_of(row, name, where)):
        block = object_of(raw, f"{name}[{position}]", where)
        text = text_of(block, "text", where).strip()
        heading = optional_text(block, "section", where).strip()
        if text and heading and heading != last and heading.lower() != "abstract":
            texts.append(f"## {heading}")
        last = heading or last
        if text:
            texts.append(text)
    return texts


def _number_text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) and value.isprintable() else ""


def _scheme(scheme: str, value: str) -> str:
    if scheme == "pmcid":
        return "PMC" + value.removeprefix("PMC")
    return value.lower() if scheme == "doi" else value


def _s2orc_spans(where: str, row: Mapping[str, Any]) -> Document | Drop:
    number = id_of({"corpusid": _number_text(row, "corpusid")}, where, "corpusid")
    identifier = f"s2orc-{number}"
    content = object_of(row.get("content"), "field 'content'", where)
    text = optional_text(content, "text", where)
    if not text.strip():
        return Drop(identifier, "no_text")
    marks = object_of(content.get("annotations") or {}, "field 'annotations'", where)
    headings = _spans(marks, "sectionheader", text, where)
    abstract = _spans(marks, "abstract", text, where)
    paragraphs = _spans(marks, "paragraph", text, where)
    # Some abstracts are annotated as paragraphs too.
    held = [span for span in paragraphs if not any(a <= span[0] < b for a, b in abstract)]
    body = sorted([*((*span, True) for span in headings), *((*span, False) for span in held)])
    texts = [text[a:b].strip() for a, b in abstract]
    for (start, end, heading), following in zip(body, [*body[1:], None], strict=False):
        # A heading with no paragraph below it, as of a table, is left out.
        if not heading or (following is not None and not following[2]):
            texts.append(("## " if heading else "") + text[start:end].strip())
    if not texts:
        texts = [text.strip()]
    titles = _spans(marks, "title", text, where)
    title = " ".join(text[a:b].strip() for a, b in titles[:1])
    outside = object_of(row.get("externalids") or {}, "field 'externalids'", where)
    ids = {"s2orc": number}
    for name, scheme in (("pubmed", "pmid"), ("pubmedcentral", "pmcid"), ("doi", "doi")):
        found = {key.lower(): key for key in outside}
        value = _number_text(outside, found.get(name, name))
        if value:
            ids[scheme] = _scheme(scheme, value)
    licence = _oa_licence(content)
    joined = "\n\n".join(filter(None, texts))
    return Document(identifier, titled(joined, title), "", "", title, licence, ids)


def _oa_licence(content: Mapping[str, Any]) -> str:
    source = content.get("source")
    info = source.get("oainfo") if isinstance(source, dict) else None
    licence = info.get("license") if isinstance(info, dict) else None
    return licence if isinstance(licence, str) else ""


def _spans(marks: Mapping[str, Any], name: str, text: str, where: str) -> list[tuple[int, int]]:
    """Annotated spans, which the file keeps as a JSON string of `[{start, end}]`; sorted."""
    raw = marks.get(name)
    if raw is None:
        return []
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            what = f"annotation {name!r} is no JSON list of spans"
            raise UserError(what, where=where) from None
    if not isinstance(raw, list):
        what = f"annotation {name!r}: a list is expected, not {kind_of(raw)}"
        raise UserError(what, where=where)
    spans = []
    for entry in raw:
        span = object_of(entry, f"annotation {name!r}", where)
        try:
            start, end = int(span["start"]), int(span["end"])
        except (KeyError, TypeError, ValueError, OverflowError):
            what = f"annotation {name!r}: a span without start and end"
            raise UserError(what, where=where) from None
        if not 0 <= start <= end <= len(text):
            what = f"annotation {name!r}: span {start} to {end} of a text of {len(text)} characters"
            raise UserError(what, where=where)
        spans.append((start, end))
    return sorted(spans)


# -- textbooks, guidelines, web ----------------------------------------------------------------


def medrag(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows `{id, title, content, contents, PMID?}`; a title that is a file's name stays aside."""
    title = optional_text(row, "title", where).strip()
    text = text_of(row, "content", where)
    if "_" in title and " " not in title:
        text, title = text.strip(), title.replace("_", " ")
    else:
        text = titled(text, title)
    licence = optional_text(row, "license", where)
    yield Document(id_of(row, where), text, "", "", title, licence, ids_of(row, where))


def guidelines(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows `{id, source, title, clean_text, raw_text, url, overview}`."""
    identifier, text = id_of(row, where), optional_text(row, "clean_text", where)
    if not text.strip():
        yield Drop(identifier, "no_text")
        return
    yield _made(row, where, identifier, text, ids_of(row, where))


def fineweb(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows of FineWeb and FineWeb-Edu: `{text, id, dump, url, language, ...}`.

    The id is `fineweb-ID`: the Chinese edition's bare numbers would be taken for PMIDs.
    """
    yield Document(
        id=f"fineweb-{id_of(row, where)}",
        text=text_of(row, "text", where).strip(),
        source="",
        lang=optional_text(row, "language", where),
    )


def wikipedia(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows `{id, url, title, text}`; the language is the first label of the address.

    The id is `wikipedia-LANG-PAGE`: a page's bare number would be taken for a PMID.
    """
    found = _WIKI_LANG.match(optional_text(row, "url", where))
    identifier = f"wikipedia-{found[1]}-" if found else "wikipedia-"
    lang = found[1].partition("-")[0] if found else ""
    title = optional_text(row, "title", where).strip()
    text = titled(text_of(row, "text", where), title)
    yield Document(f"{identifier}{id_of(row, where)}", text, "", lang, title)


def text_rows(where: str, row: Mapping[str, Any]) -> Converted:
    """Rows `{text, id?, pmid?, ...}`; without an id, such as C4, named by file, line and text."""
    text = text_of(row, "text", where)
    yield Document(
        id=name_of(row, where, text, "id"),
        text=text.strip(),
        ids=ids_of(row, where),
        source=optional_text(row, "source", where),
        lang=optional_text(row, "lang", where),
        licence=optional_text(row, "license", where),
    )


def passages(part: Part) -> Iterator[Row | Fault]:
    """Rows `{text}` of a plain text: whole paragraphs (lines) of about 20,000 characters each."""
    number, size, start = 0, 0, 1
    held: list[str] = []
    for count, line in lines(part.path):
        where = f"{part.path}:{count}"
        if line is None:
            yield from [Fault(where, "the line is too long")] if part.has(number) else []
            continue
        try:
            text = line.decode("utf-8").rstrip()
        except UnicodeDecodeError as error:
            what = f"not UTF-8 (byte {error.start} of the line)"
            yield from [Fault(where, what)] if part.has(number) else []
            continue
        if not held:
            start = count
        held.append(text)
        size += len(text) + 1
        if size >= PASSAGE:
            if part.has(number):
                yield f"{part.path}:{start}", {"text": "\n".join(held)}
            number, size, held = number + 1, 0, []
    if any(held) and part.has(number):
        yield f"{part.path}:{start}", {"text": "\n".join(held)}


def book(where: str, row: Mapping[str, Any]) -> Converted:
    """A passage of a plain-text book; its title is the file's name."""
    text = text_of(row, "text", where)
    name = re.split(r"[/\\]", _LINE.sub("", where))[-1]
    title = name.removesuffix(".gz").removesuffix(".txt").replace("_", " ")
    yield Document(numbered(where, text), text.strip(), "", "", title)


def _columns(columns: Sequence[str], *optional: str) -> Callable[[Part], Iterator[Row | Fault]]:
    return parquet_rows(columns, optional)


READERS: dict[str, Reader] = {
    "pmc_fulltext": Reader(jsonl, pmc_fulltext, unique=("pmid",)),
    "s2orc": Reader(jsonl, s2orc),
    "medrag": Reader(jsonl, medrag),
    "guidelines": Reader(jsonl, guidelines),
    "fineweb": Reader(_columns(("text", "id"), "language", "url"), fineweb),
    "wikipedia": Reader(_columns(("id", "url", "title", "text")), wikipedia),
    "text_jsonl": Reader(jsonl, text_rows),
    "textbook_txt": Reader(passages, book),
}
