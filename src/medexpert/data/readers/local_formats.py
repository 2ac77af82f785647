"""HTML, PDF and docx files -> text, one file at a time, in bounded memory.

Each function yields pieces of text and may raise UserError for a file that cannot be used. The
libraries are optional; an absent one is a :class:`Missing`, which stops the build.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from medexpert.data.readers.archives import check_zip
from medexpert.data.readers.local_text import INSTALL, decode_page
from medexpert.data.readers.rows import Fault
from medexpert.data.readers.streams import CHUNK, open_raw, open_stream
from medexpert.records import UserError

MAX_HTML = 32 << 20  # bytes; the tree of a page takes about ten times as much
MAX_DOCX = 512 << 20  # bytes of all members, unpacked
MAX_DOCX_XML = 64 << 20  # bytes of the text's own XML
MAX_PAGE = 2 << 20  # characters of one PDF page
_DEEPEST = 2000  # elements within elements
_OLE = b"\xd0\xcf\x11\xe0"
_SENTENCE_END = tuple(".!?:;。！？：；…")
_HYPHENS = "\ufffe\x02\u00ad"  # what pdfium gives for a hyphen at a line's end
_TAGS = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*+)[^<>]*?(/?)>")
_VOID = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
        "p",
        "li",
        "td",
        "tr",
        "th",
        "dt",
        "dd",
    ]
)


class Missing(UserError):
    """An optional library that is not installed; told with the line that installs it."""


def _missing(kind: str, library: str) -> Missing:
    return Missing(f"reading {kind} needs {library}: {INSTALL}")


# -- HTML --------------------------------------------------------------------------------------


def html_text(path: str) -> tuple[str, str]:
    """(title, main text) of a page; navigation, cookie notices and scripts are left out."""
    try:
        import trafilatura
        from lxml import etree
    except ImportError as error:
        raise _missing("HTML", error.name or "trafilatura") from None
    for name in ("trafilatura", "htmldate", "courlan", "justext"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they log what they read
    page = decode_page(_bytes(path, MAX_HTML))
    if not page.strip():
        return "", ""
    if _depth(page) > _DEEPEST:
        raise UserError(f"elements are nested more than {_DEEPEST} deep")
    try:
        found: Any = trafilatura.bare_extraction(
            page, include_comments=False, include_tables=True, favor_recall=True, with_metadata=True
        )
    except (
        etree.LxmlError,
        ValueError,
        RecursionError,
        AttributeError,
        TypeError,
        IndexError,
    ) as error:
        raise UserError(f"not a readable page ({type(error).__name__})") from None
    if found is None or not found.text:
        return "", ""
    return (found.title or "").strip(), found.text


def _bytes(path: str, limit: int) -> bytes:
    with open_stream(path) as stream:
        held = []
        while data := stream.read(CHUNK):
            held.append(data)
            if stream.count > limit:
                raise UserError(f"larger than {limit >> 20} MiB")
        return b"".join(held)


def _depth(page: str) -> int:
    """How deep elements stand in one another at most, end tags that may be left out aside."""
    depth = deepest = 0
    for tag in _TAGS.finditer(page):
        if tag[3] or tag[2].lower() in _VOID:
            continue
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


# -- PDF ---------------------------------------------------------------------------------------


def pdf_pages(path: str) -> Iterator[str | Fault]:
    """The text of each page, opened and closed one by one; a Fault for a page that cannot be read.

    Raises UserError for a damaged file and for one that needs a password.
    """
    try:
        import pypdfium2
    except ImportError:
        raise _missing("PDF", "pypdfium2") from None
    with open_raw(path) as handle:
        try:
            document = pypdfium2.PdfDocument(handle)
        except (pypdfium2.PdfiumError, ValueError, OSError) as error:
            if "assword" in str(error) or "ecurity" in str(error):
                raise UserError(
                    "this PDF is encrypted; a copy without a password is needed"
                ) from None
            raise UserError(f"not a readable PDF ({str(error)[:120]})") from None
        try:
            for number in range(len(document)):
                try:
                    yield _page(document, number)
                except (pypdfium2.PdfiumError, ValueError, OSError) as error:
                    yield Fault(f"{path} [page {number + 1}]", f"not readable ({str(error)[:120]})")
        finally:
            document.close()


def _page(document: Any, number: int) -> str:
    page = document[number]
    try:
        text = page.get_textpage()
        try:
            count = text.count_chars()
            if count > MAX_PAGE:
                raise ValueError(f"more than {MAX_PAGE} characters")
            return joined_lines(text.get_text_range(0, count) if count > 0 else "")
        finally:
            text.close()
    finally:
        page.close()


def pdf_title(path: str) -> str:
    """The title in the PDF's own description; empty when it is a file name or absent."""
    import pypdfium2

    with open_raw(path) as handle, suppress(pypdfium2.PdfiumError, ValueError, OSError):
        document = pypdfium2.PdfDocument(handle)
        try:
            title = str(document.get_metadata_value("Title") or "").strip("\0 \t\r\n")
        finally:
            document.close()
        return "" if re.search(r"\.\w{2,5}$", title) or title.lower() == "untitled" else title
    return ""


def joined_lines(text: str) -> str:
    """The lines of a page with those joined that were broken by the width of the column only.

    A line of nearly full width (the 80th percentile of the page) that does not end a sentence goes
    on in the next, and a word hyphenated at the end is put together.
    """
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\0", "").split("\n")]
    widths = sorted(len(line) for line in lines if line)
    full = widths[len(widths) * 8 // 10] * 0.75 if widths else 0
    joined: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on and line:
            last = joined.pop()
            if last[-1] in _HYPHENS:
                line = last[:-1] + line
            elif ord(last[-1]) > 0x2E80 or ord(line[0]) > 0x2E80:  # Chinese has no blanks
                line = last + line
            else:
                line = f"{last} {line}"
        joined.append(line)
        tail = line.rsplit("\n", 1)[-1]
        goes_on = bool(line) and (
            line[-1] in _HYPHENS
            or (len(tail) >= max(full, 20) and not line.endswith(_SENTENCE_END))
        )
    whole = re.sub(r"(?<=\w)[\ufffe\x02](?=\w)", "", "\n".join(joined))
    return re.sub(r"\n{3,}", "\n\n", whole.replace("\ufffe", "-").replace("\x02", "-")).strip()


# -- docx --------------------------------------------------------------------------------------


def docx_text(path: str) -> tuple[str, str]:
    """(title, text) of a Word file: paragraphs and tables in order, a table row a line.

    Raises UserError for an encrypted, damaged or oversized file and for one with a DTD.
    """
    try:
        import docx
    except ImportError:
        raise _missing("docx", "python-docx") from None
    with open_raw(path) as handle:
        head = handle.read(8)
        handle.seek(0)
        if head.startswith(_OLE):
            raise UserError("this file is encrypted, or a .doc of Word 97; save it as docx")
        check_zip(handle, path, MAX_DOCX)
        try:
            _check_docx(handle)
            handle.seek(0)
            document = docx.Document(handle)
            title = str(document.core_properties.title or "").strip()
            return title, "\n".join(_blocks(document))
        except UserError:
            raise
        except Exception as error:  # python-docx lets lxml's, zipfile's and its own errors through
            raise UserError(f"not a readable docx ({type(error).__name__})") from None


def _check_docx(handle: IO[bytes]) -> None:
    with zipfile.ZipFile(handle) as archive:
        for member in archive.infolist():
            name = member.filename.lower()
            if not name.endswith((".xml", ".rels")):
                continue
            if member.file_size > MAX_DOCX_XML:
                raise UserError(f"a part of this docx is larger than {MAX_DOCX_XML >> 20} MiB")
            with archive.open(member) as part:
                data = part.read(MAX_DOCX_XML + 1)
            if len(data) > MAX_DOCX_XML:
                raise UserError(f"a part of this docx is larger than {MAX_DOCX_XML >> 20} MiB")
            if (
                b"<!DOCTYPE" in data
                or b"<!ENTITY" in data
                or "<!DOCTYPE".encode("utf-16-le") in data
            ):
                raise UserError("a part of this docx declares a DTD or entities")


def _blocks(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            yield from _table(block)
        elif block.text.strip():
            yield block.text.strip()


def _table(table: Any) -> Iterator[str]:
    for row in table.rows:
        cells: list[str] = []
        last: Any = None
        for cell in row.cells:
            if cell._tc is not last:  # a merged cell comes once for each column it spans
                cells.append(" ".join(cell.text.split()))
            last = cell._tc
        if any(cells):
            yield " | ".join(cells)
