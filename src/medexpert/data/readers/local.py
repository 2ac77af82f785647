"""A user's own folder or file of text -> Document: the reader `local-text`.

`files` lists a folder; each path holds the mark `/./` behind the folder, so that a record's id is
the path inside it, wherever the folder stands. Rows and parts of a file add `#n`. What cannot be
used is a Drop with a reason or a Fault, file by file; nothing is passed over in silence.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from medexpert.data.readers import local_formats
from medexpert.data.readers.local_files import MARK, check_inside, split_path
from medexpert.data.readers.local_files import files as files
from medexpert.data.readers.local_text import INSTALL, decoded, encoding_of, pieces
from medexpert.data.readers.rows import (
    MAX_LINE,
    Change,
    Drop,
    Fault,
    Part,
    Reader,
    Row,
    fault,
    ids_of,
    jsonl,
    kind_of,
    object_row,
)
from medexpert.data.readers.streams import Stream, open_stream
from medexpert.records import Document, UserError

TEXT_FIELDS = ("text", "content", "body", "note")
"""Names of the field that holds a row's text, in the order in which they are looked for."""
_PACKED = (".gz", ".bz2", ".xz")
_NUMBER = re.compile(r"(\d+)\]?$")
_SAMPLE = 1 << 20

# -- what is in a file -------------------------------------------------------------------------

Made = Iterator[Row | Fault]


def rows(part: Part) -> Made:
    """The rows of one file by its kind. What breaks a file as a whole is one Fault.

    Raises UserError when the file is not there or a library is missing.
    """
    path, identifier = split_path(part.path)
    reason = _unusable(part.path, path)
    if reason:
        if not part.index:
            yield path, {"drop": reason, "id": identifier}
        return
    suffix = _suffix(path)
    tells = not part.index or suffix == ".parquet"  # whose slices read row groups of their own
    try:
        if (make := KINDS.get(suffix)) is None:
            if not part.index:
                known = re.fullmatch(r"\.\w{1,8}", suffix)
                reason = f"unknown_kind_{suffix[1:]}" if known else "unknown_kind"
                yield path, {"drop": reason, "id": identifier}
            return
        yield from make(Part(path, part.index, part.parts), identifier)
    except local_formats.Missing:
        raise
    except UserError as error:
        if error.what == "no such file" or INSTALL in str(error):
            raise
        if tells:
            yield fault(error, path)
    except UnicodeError:
        if tells:
            yield Fault(path, "bytes that are not in the file's encoding")


def _unusable(marked: str, path: str) -> str:
    """Why a file is not opened at all; empty: it is. Raises UserError when it is not there."""
    root, mark, inner = marked.rpartition(MARK)
    if mark and "://" not in path:
        check_inside(root, inner)
    # A file that the user names may be hidden; only what is met in a folder is passed over.
    names = inner.split("/") if mark else []
    if any(name.startswith((".", "~$")) or name == "__MACOSX" for name in names):
        return "hidden"
    if "://" in path:
        return ""
    try:
        status = os.lstat(path) if mark else os.stat(path)
    except OSError:
        raise UserError("no such file", where=path) from None
    if stat.S_ISLNK(status.st_mode):
        return "symbolic_link"
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file"
    return "" if status.st_size else "empty"


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1].lower()
    packed = name.endswith(_PACKED)
    inner = name.rsplit(".", 1)[0] if packed else name
    suffix = f".{inner.rsplit('.', 1)[1]}" if "." in inner else ""
    if packed and suffix in (".parquet", ".pdf", ".docx"):
        return f"{suffix}.gz"
    return suffix


def _plain(part: Part, identifier: str) -> Made:
    if part.index:
        return
    with open_stream(part.path) as stream:
        changes: set[str] = set()

        def chunks() -> Iterator[str]:
            for text, altered in decoded(stream):
                changes.update(altered)
                yield text

        title = _heading if _suffix(part.path) in (".md", ".markdown") else _no_title
        yield from _numbered(part.path, identifier, chunks(), title, changes)


def _no_title(text: str) -> str:
    return ""


def _heading(text: str) -> str:
    found = re.search(r"^#[ \t]++(.{1,300}?)[ \t]*#*$", text[:20_000], re.MULTILINE)
    return found[1] if found else ""


def _numbered(
    path: str,
    identifier: str,
    chunks: Iterable[str],
    title: Callable[[str], str],
    changes: set[str],
) -> Made:
    """One row, or rows `#1`, `#2`, ... when the text is longer than a document may be."""
    number, held, name = 0, "", ""
    for piece in pieces(chunks):
        if number:
            yield path, _text(f"{identifier}#{number}", held, name, changes, "long_text_cut")
        else:
            name = title(piece)
        number, held = number + 1, piece
    last = f"{identifier}#{number}" if number > 1 else identifier
    yield path, _text(last, held, name, changes)


def _text(
    identifier: str, text: str, title: str, changes: set[str], also: str = ""
) -> dict[str, Any]:
    told = sorted({*changes, also} - {""})
    changes.clear()
    return {"id": identifier, "document": text.strip(), "title": title, "changes": told}


def _html(part: Part, identifier: str) -> Made:
    if not part.index:
        title, text = local_formats.html_text(part.path)
        yield from _numbered(part.path, identifier, [text], lambda _: title, set())


def _docx(part: Part, identifier: str) -> Made:
    if not part.index:
        title, text = local_formats.docx_text(part.path)
        yield from _numbered(part.path, identifier, [text], lambda _: title, set())


def _pdf(part: Part, identifier: str) -> Made:
    if part.index:
        return
    faults: list[Fault] = []

    def pages() -> Iterator[str]:
        for page in local_formats.pdf_pages(part.path):
            if isinstance(page, Fault):
                faults.append(page)
            elif page:
                yield page + "\n\n"

    for row in _numbered(
        part.path, identifier, pages(), lambda _: local_formats.pdf_title(part.path), set()
    ):
        yield from faults
        faults.clear()
        yield row


def _keyed(found: Iterable[Row | Fault], identifier: str) -> Made:
    """Rows of a table under the number of their line or row."""
    for item in found:
        if isinstance(item, Fault):
            yield item
            continue
        where, row = item
        number = _NUMBER.search(where)
        yield where, {"id": f"{identifier}#{number[1] if number else where}", "row": row}


def _json_lines(part: Part, identifier: str) -> Made:
    encoding = _sampled(part.path)
    found = jsonl(part) if encoding == "utf-8" else _other_json_lines(part, encoding)
    yield from _keyed(found, identifier)


def _other_json_lines(part: Part, encoding: str) -> Made:
    with open_stream(part.path) as stream:
        text = io.TextIOWrapper(io.BufferedReader(stream), encoding, errors="replace")
        for number, line in enumerate(iter(lambda: text.readline(MAX_LINE), "")):
            where = f"{part.path}:{number + 1}"
            line = line.removeprefix("\ufeff") if not number else line
            if not part.has(number) or not line.strip():
                continue
            if not line.endswith("\n") and len(line) >= MAX_LINE:
                raise UserError("a line is longer than 64 MiB", where=where)
            yield object_row(line.encode("utf-8", "replace"), where)


def _json(part: Part, identifier: str) -> Made:
    from medexpert.data.readers.json_rows import json_array

    with open_stream(part.path) as stream:
        array = stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    yield from _keyed(json_array()(part), identifier) if array else _json_lines(part, identifier)


def _table(part: Part, identifier: str) -> Made:
    from medexpert.data.readers.tables import csv_rows

    encoding = _sampled(part.path)
    delimiter = "\t" if _suffix(part.path) == ".tsv" else _delimiter(part.path, encoding)
    marked = {"utf-16-le": "utf-16", "utf-16-be": "utf-16"}  # these cut the mark themselves
    name = marked.get(encoding, encoding) if _has_mark(part.path) else encoding
    yield from _keyed(csv_rows(None, delimiter, (name,))(part), identifier)


def _has_mark(path: str) -> bool:
    with open_stream(path) as stream:
        return stream.read(2) in (b"\xff\xfe", b"\xfe\xff")


def _delimiter(path: str, encoding: str) -> str:
    """What parts the names in the first line: comma, semicolon, tab or bar."""
    with open_stream(path) as stream:
        first = stream.read(1 << 16).decode(encoding, "replace").splitlines()[:1]
    return max(",;\t|", key=lambda mark: first[0].count(mark)) if first else ","


def _sampled(path: str) -> str:
    """The encoding of a file by its beginning; ASCII counts as UTF-8."""
    with open_stream(path) as stream:
        head = _some(stream)
    return encoding_of(head, whole=len(head) < _SAMPLE).name


def _some(stream: Stream) -> bytes:
    held: list[bytes] = []
    while sum(map(len, held)) < _SAMPLE and (data := stream.read(_SAMPLE)):
        held.append(data)
    return b"".join(held)


def _parquet(part: Part, identifier: str) -> Made:
    from medexpert.data.readers.tables import parquet_rows

    yield from _keyed(parquet_rows()(part), identifier)


def _xml(part: Part, identifier: str) -> Made:
    """PubMed/MEDLINE citations, or a JATS article as PubMed Central publishes it."""
    from medexpert.data.readers.jats import READERS as ARTICLES
    from medexpert.data.readers.medline import READERS as CITATIONS

    root = _root(part.path)
    if root in ("PubmedArticleSet", "PubmedBookArticleSet"):
        for item in CITATIONS["medline"].rows(part):
            yield (
                item
                if isinstance(item, Fault)
                else (item[0], {"id": identifier, "pubmed": item[1]})
            )
    elif root == "article" and not part.index:
        for item in ARTICLES["pmc_oa"].rows(Part(part.path)):
            yield (
                item if isinstance(item, Fault) else (item[0], {"id": identifier, "jats": item[1]})
            )
    elif not part.index:
        yield part.path, {"drop": "unknown_kind_of_xml", "id": identifier}


def _root(path: str) -> str:
    from medexpert.data.readers.xml_rows import root_name

    with open_stream(path) as stream:
        head = stream.read(1 << 16)
    return root_name(head.replace(b"\0", b"").decode("utf-8", "replace"))


KINDS: dict[str, Callable[[Part, str], Made]] = {
    ".txt": _plain,
    ".text": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _table,
    ".tsv": _table,
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".xml": _xml,
    ".nxml": _xml,
}
"""Ending of a name (before .gz, .bz2 or .xz) -> how the file is read."""


def convert(where: str, row: Mapping[str, Any]) -> Iterator[Document | Drop | Change]:
    """A row of :func:`rows` -> a Document, or a Drop with its reason."""
    identifier = row["id"]
    if "drop" in row:
        yield Drop(identifier, row["drop"])
    elif "row" in row:
        yield _from_row(where, identifier, row["row"])
    elif "document" in row:
        for what in row["changes"]:
            yield Change(identifier, what)
        text = row["document"]
        yield (
            Document(identifier, text, "", "", row["title"])
            if text
            else Drop(identifier, "no_text")
        )
    else:
        yield from _published(where, identifier, row)


def _from_row(where: str, identifier: str, row: Mapping[str, Any]) -> Document | Drop:
    names = {str(name).lower(): name for name in reversed(list(row))}
    field = next((names[name] for name in TEXT_FIELDS if name in names), None)
    if field is None:
        told = ", ".join(map(str, row))[:200]
        what = f"no field with text (this row has {told})"
        raise UserError(what, where=where, allowed=", ".join(TEXT_FIELDS))
    text = row[field]
    if text is None:
        return Drop(identifier, "no_text")
    if not isinstance(text, str):
        raise UserError(f"field {field!r}: a string is expected, not {kind_of(text)}", where=where)
    title = row.get(names.get("title", "title"))
    text = text.replace("\r\n", "\n").replace("\0", "").strip()
    if not text:
        return Drop(identifier, "no_text")
    return Document(
        id=identifier,
        text=text,
        source="",
        lang="",
        title=title.strip() if isinstance(title, str) else "",
        ids=ids_of(row, where),
    )


def _published(
    where: str, identifier: str, row: Mapping[str, Any]
) -> Iterator[Document | Drop | Change]:
    from medexpert.data.readers.jats import READERS as ARTICLES
    from medexpert.data.readers.medline import READERS as CITATIONS

    reader = CITATIONS["medline"] if "pubmed" in row else ARTICLES["pmc_oa"]
    for item in reader.convert(where, row["pubmed"] if "pubmed" in row else row["jats"]):
        if isinstance(item, Document | Change | Drop):
            named = f"{identifier}#{item.id}"
            yield dataclasses.replace(item, id=named)


READERS = {"local-text": Reader(rows, convert)}
